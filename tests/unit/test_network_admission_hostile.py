"""Every kind of hostile record, alone and among honest ones: nothing but a counted refusal comes of it."""

import random
from functools import cache
from pathlib import Path

import pytest

from swarmd.network.admission_rules import RawRecord
from swarmd.network.dialects import Dialect
from swarmd.network.dialects.genrl_payload import GenrlDialect
from swarmd.network.dialects.own import OwnDialect
from swarmd.tasks.legacy_table import ENVIRONMENT
from swarmd.tasks.provenance import Task
from swarmd.tasks.scorer import Scorer, ScoreRequest
from swarmd.tasks.verdicts import ScoreLimits
from tests.hostile.admitting import DIALECTS, admission, attacker, dialect_named, not_our_own, others, victim
from tests.hostile.authors import NOW, ROUND, Sample, honest, mix, table
from tests.hostile.corpus import corpus_samples
from tests.hostile.legacy import EVALUATED, legacy_samples, stock
from tests.hostile.mutations import mutations
from tests.hostile.own import own_samples


def samples(dialect: Dialect, seed: int = 1, marker: str = "/nowhere/marker") -> list[Sample]:
    if isinstance(dialect, OwnDialect):
        return list(own_samples(dialect, attacker, victim, seed, marker))
    assert isinstance(dialect, GenrlDialect)
    return list(legacy_samples(dialect, attacker, victim, seed, marker))


@cache
def everything(dialect: Dialect) -> list[RawRecord]:
    corpus = corpus_samples(dialect, attacker.peer_id)
    return [sample.raw for seed in (1, 2) for sample in samples(dialect, seed)] + [sample.raw for sample in corpus]


@pytest.mark.parametrize("name", DIALECTS)
def test_each_kind_of_hostile_record_is_refused_for_its_own_reason(name: str) -> None:
    dialect = dialect_named(name)
    wrong = []
    for sample in samples(dialect):
        admitting = admission(dialect)
        groups = admitting.admit([sample.raw], ROUND, NOW)
        reasons = set(admitting.totals)
        if sample.refused and (groups or not reasons or not reasons <= sample.refused):
            wrong.append(f"{sample.kind}: {reasons or 'admitted'} and not {set(sample.refused)}")
        if not sample.refused and (not groups or reasons):
            wrong.append(f"{sample.kind}: refused for {reasons}, and its own task and scores are all that it needs")
        wrong += [f"{sample.kind}: {line}" for line in not_our_own(groups)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", DIALECTS)
def test_what_broke_others_breaks_nothing_here_and_is_not_admitted(name: str) -> None:
    dialect = dialect_named(name)
    for sample in corpus_samples(dialect, attacker.peer_id):
        admitting = admission(dialect)
        assert admitting.admit([sample.raw], ROUND, NOW) == [], sample.kind


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("seed", [1, 2])
def test_honest_records_among_hostile_ones_are_admitted_whole(name: str, seed: int) -> None:
    dialect = dialect_named(name)
    rng = random.Random(seed)
    good = [honest(dialect, author, rng) for author in others]
    found = [*good, *everything(dialect), *mutations(everything(dialect), seed, 500)]
    rng.shuffle(found)
    admitting = admission(dialect, seed=seed)
    groups = admitting.admit(found, ROUND, NOW)
    by_peer = [group.peer_id for group in groups]
    assert all(by_peer.count(author.peer_id) == 2 for author in others)
    assert not (wrong := not_our_own(groups)), "\n".join(wrong)
    honest_lines = [row for row in admitting.peers(NOW) if row["peer_id"] in {author.peer_id for author in others}]
    assert all(row["rejected"] == {} and not row["quarantined"] for row in honest_lines)


@pytest.mark.parametrize("name", ["genrl-0.3", "genrl-0.1"])
def test_an_unmodified_node_of_a_legacy_swarm_is_admitted_by_its_questions(name: str) -> None:
    dialect = dialect_named(name)
    groups = admission(dialect).admit([stock(dialect, others[0].peer_id, random.Random(3))], ROUND, NOW)
    assert len(groups) == 2 and all(group.question and group.provenance is None for group in groups)


@pytest.mark.parametrize("name", DIALECTS)
def test_completions_get_our_own_score_and_their_code_never_runs(name: str, tmp_path: Path) -> None:
    """What is admitted is scored by our copy of the task, whatever answer, metadata and scorer its sender named."""
    dialect, marker = dialect_named(name), tmp_path / "marker"
    wanted = {f"answers: {kind}" for kind in ("false", "code", "code in a list", "bignum", "power tower", "brackets")}
    wanted |= {f"code for {dataset}, true question" for dataset in EVALUATED}
    requests = []
    for sample in samples(dialect, marker=str(marker)):
        if sample.kind in wanted:
            groups = admission(dialect).admit([sample.raw], ROUND, NOW)
            assert groups, sample.kind
            for group in groups:
                task = own_copy(group.question, group.provenance)
                requests += [
                    ScoreRequest(task.provenance.dataset, text, task.answer, task.metadata)
                    for text in group.completions
                ]
    right = mix().draw(7)
    requests.append(
        ScoreRequest(right.provenance.dataset, f"<answer>{right.answer}</answer>", right.answer, right.metadata)
    )
    with Scorer(ScoreLimits()) as scorer:
        scores = scorer.score(requests)
    assert len(scores) > 20
    assert all(score.value < 0.2 for score in scores[:-1]), "a false answer is worth something"
    assert scores[-1].value == 1.0, "the scorer survived them"
    assert not marker.exists()


def own_copy(question: str | None, provenance: object) -> Task:
    task = table().find(question) if question is not None else mix().regenerate(provenance)  # type: ignore[arg-type]
    assert task is not None and (question is None or task.provenance.environment == ENVIRONMENT)
    return task
