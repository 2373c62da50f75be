"""Code for each of the eleven scorers that would run it, from a record to the reward: it is a wrong answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from genrl.communication.communication import Payload
from genrl.examples.rgym.reward_utils import accuracy_reward
from genrl.state import WorldState

from swarmd.game.stages import Branching, answer_stage, leave_stage, new_state
from swarmd.network.admission_rules import RawRecord
from swarmd.network.dialects import Dialect
from swarmd.network.dialects.genrl_payload import GenrlDialect
from swarmd.network.dialects.own import OwnDialect
from swarmd.network.records import AdmittedGroup
from swarmd.network.refusals import Reason
from swarmd.tasks.dataset_settings import MixError
from swarmd.tasks.mix import DatasetSpec, TaskMix
from swarmd.tasks.provenance import Task, task_seed
from swarmd.tasks.reasoning import ReasoningData
from swarmd.tasks.rewards import ReasoningRewards
from swarmd.tasks.scorer import Scorer
from swarmd.tasks.verdicts import ScoreLimits
from tests.hostile.admitting import DIALECTS, LIMITS, admission, me
from tests.hostile.authors import NOW, ROUND, SWARM_ID, table, table_questions
from tests.hostile.code import (
    EVALUATING,
    IN_A_MIX,
    WRONG,
    answers_of_code,
    code_for,
    elsewhere,
    false_metadata,
    mix_of_all,
    open_dialect,
    record_of,
    slot_of,
)
from tests.hostile.legacy import asked, record
from tests.hostile.own import signed_fields
from tests.hostile.seeded import seeded_author

LEGACY = [name for name in DIALECTS if name != "swarmd"]
# Who shows the task of a late slot alone has a part of its groups taken only; here each is to be looked at.
GENEROUS = replace(LIMITS, groups_per_peer=64)
STRANGER = "Qm" + "s" * 44

mix = cache(mix_of_all)
author = cache(lambda: seeded_author(11))


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    with Scorer(ScoreLimits(wall_s=60.0, silence_s=60.0)) as scorer:  # CPU time is limited as ever
        yield scorer


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[str]:
    """The file that the code in records would make; the test fails if it is there in the end."""
    path = tmp_path / "marker"
    yield str(path)
    assert not path.exists(), "the code in a record was run"


@cache
def place_of(dataset: str) -> tuple[int, Task]:
    """A slot of the author's, and its task of this dataset."""
    slot = slot_of(dataset, mix(), author())
    return slot, mix().draw(task_seed(SWARM_ID, ROUND, author().peer_id, slot))


def right(task: Task) -> str:
    """Of a task that has many right answers, the one it gives for an example."""
    return f"<answer>{task.answer or task.metadata['example_answer']}</answer>"


def admitted(dialect: Dialect, raw: RawRecord) -> list[AdmittedGroup]:
    """All groups of a record, of which none is refused."""
    admitting = admission(dialect, mix=mix(), limits=GENEROUS)
    groups = admitting.admit([raw], ROUND, NOW)
    assert not admitting.totals, admitting.totals
    return groups


def refused(dialect: Dialect, raw: RawRecord) -> set[str]:
    """The reasons for which nothing of a record is admitted."""
    admitting = admission(dialect, mix=mix(), limits=GENEROUS)
    assert admitting.admit([raw], ROUND, NOW) == []
    return set(admitting.totals)


def rewards_of(groups: Sequence[AdmittedGroup], scorer: Scorer) -> list[list[float]]:
    """Those of each group, as a node gives them: as GenRL's communication hands them on, by its own game and scorer."""
    data = ReasoningData(mix(), SWARM_ID, me.peer_id, 1, None, 1, 1, by_question=table().find)
    data.begin_round(ROUND)
    state = new_state(ROUND, data.get_round_data(), me.peer_id, Branching(1))
    answer_stage(state, data, lambda prompts: [[WRONG, WRONG]] * len(prompts))
    (peer,) = {group.peer_id for group in groups}
    gathered: dict[str, list[Payload]] = {}
    for number, group in enumerate(groups):
        named: dict[str, Any] = {"provenance": group.provenance} if group.provenance else {"question": group.question}
        gathered[f"{group.round}-{number}"] = [Payload(WorldState(named, None, None), list(group.completions), None)]
    leave_stage(state, data, {me.peer_id: state.get_latest_communication()[me.peer_id], peer: gathered})
    rewards = ReasoningRewards(scorer)
    child = scorer.pid
    rewards.update_rewards(state)
    assert (data.refused, rewards.refused) == ({}, {}), "every answer was scored, none took the scorer's limits"
    assert (scorer.pid, scorer.restarts) == (child, 0)
    return [found for (found,) in rewards[0][peer].values()]


def are_those_of_wrong_answers(rewards: Sequence[float]) -> bool:
    """Of code, then one wrong answer, then the right one, which is scored after all that."""
    *code, wrong, last = rewards
    return set(code) == {wrong} and wrong < last == 1.0


@pytest.mark.parametrize("dataset", IN_A_MIX)
@pytest.mark.parametrize("name", DIALECTS)
def test_code_in_a_signed_record_is_scored_as_a_wrong_answer(
    name: str, dataset: str, scorer: Scorer, marker: str
) -> None:
    """The task is the author's own, so the group is admitted; answer and metadata, if there are any, are not used."""
    dialect, (slot, task) = open_dialect(name), place_of(dataset)
    texts = (*answers_of_code(marker), WRONG, right(task))
    false = {"answer": code_for(marker), "metadata": false_metadata(dataset, marker)}
    groups = admitted(dialect, record_of(dialect, author(), task, slot, texts, **false))
    assert groups == admitted(dialect, record_of(dialect, author(), task, slot, texts))
    assert groups == [AdmittedGroup(author().peer_id, ROUND, texts, task.provenance, None)]
    (rewards,) = rewards_of(groups, scorer)
    assert are_those_of_wrong_answers(rewards), rewards


@pytest.mark.parametrize("dataset", IN_A_MIX)
def test_code_in_what_a_record_says_beyond_its_fields_counts_for_nothing(
    dataset: str, scorer: Scorer, marker: str
) -> None:
    """Our own dialect has no answers and no metadata; who adds some has them passed over, as a later version's."""
    dialect, (slot, task) = open_dialect("swarmd"), place_of(dataset)
    assert isinstance(dialect, OwnDialect)
    texts = (*answers_of_code(marker), WRONG, right(task))
    said = [code_for(marker), false_metadata(dataset, marker)]
    group = [slot, *vars(task.provenance).values(), list(texts), None, *said]
    raw = signed_fields(dialect, author(), groups=[group], answer=said[0], metadata=said[1])
    groups = admitted(dialect, raw)
    assert groups == [AdmittedGroup(author().peer_id, ROUND, texts, task.provenance, None)]
    (rewards,) = rewards_of(groups, scorer)
    assert are_those_of_wrong_answers(rewards), rewards


@cache
def tasks_of_the_table() -> list[Task]:
    return [task for question in table_questions(heldout=False) if (task := table().find(question)) is not None]


def one_of_each_dataset(marker: str) -> list[Task]:
    """Of the table, tasks whose answer is in none of the answers that are code: some scorers look for it."""
    texts = "".join(answers_of_code(marker))
    found: dict[str, Task] = {}
    for task in tasks_of_the_table():
        if task.answer is None or task.answer not in texts:
            found.setdefault(task.provenance.dataset, task)
    return list(found.values())


@pytest.mark.parametrize("claimed", EVALUATING)
@pytest.mark.parametrize("name", LEGACY)
def test_code_with_a_question_of_the_table_is_scored_as_a_wrong_answer_to_it(
    name: str, claimed: str, scorer: Scorer, marker: str
) -> None:
    """As a GenRL node would publish it. One of the table's datasets is among the eleven; which of them the metadata
    name, and what code they and the answer hold, changes nothing, whichever dataset the question is of."""
    dialect = open_dialect(name)
    assert isinstance(dialect, GenrlDialect)
    tasks = one_of_each_dataset(marker)
    assert len(tasks) == 9 and {task.provenance.dataset for task in tasks} & set(EVALUATING) == {"binary_matrix"}
    said = {"answer": code_for(marker), "metadata": false_metadata(claimed, marker)}
    value: dict[Any, Any] = {}
    texts = {task.question: (*answers_of_code(marker), WRONG, right(task)) for task in tasks}
    for question, completions in texts.items():
        value |= asked(dialect, question, list(completions), **said)
    groups = admitted(dialect, record(dialect, STRANGER, value))
    assert {group.question: group.completions for group in groups} == texts
    assert all(group.provenance is None for group in groups)
    for group, rewards in zip(groups, rewards_of(groups, scorer), strict=True):
        assert are_those_of_wrong_answers(rewards), (group.question, rewards)


@pytest.mark.parametrize("name", DIALECTS)
def test_the_one_dataset_of_the_eleven_that_no_swarm_has_is_refused_before_anything_of_it_is_scored(
    name: str, marker: str
) -> None:
    (missing,) = set(EVALUATING) - set(IN_A_MIX)
    with pytest.raises(MixError, match="cannot be made again by a peer"):
        TaskMix([DatasetSpec(missing)])
    dialect, (slot, task) = open_dialect(name), place_of("simple_integration")
    task = replace(task, provenance=elsewhere(task.provenance, missing))
    false = {"answer": code_for(marker), "metadata": false_metadata(missing, marker)}
    raw = record_of(dialect, author(), task, slot, answers_of_code(marker), **false)
    assert refused(dialect, raw) == {Reason.UNKNOWN_TASK}
    if isinstance(dialect, GenrlDialect):
        value = asked(dialect, task.question, list(answers_of_code(marker)), **false)
        assert refused(dialect, record(dialect, STRANGER, value)) == {Reason.UNKNOWN_TASK}


@pytest.mark.parametrize("dataset", EVALUATING)
def test_a_node_that_scores_as_genrl_does_would_have_run_it(dataset: str, tmp_path: Path) -> None:
    """Or else all of the above would hold of harmless text. Here GenRL's own reward is given what the records say."""
    marker = tmp_path / "marker"
    texts = [text for text in answers_of_code(str(marker)) if str(marker) in text]  # the others would write to files
    accuracy_reward([*texts, "<answer>[1]</answer>"], code_for(str(marker)), false_metadata(dataset, str(marker)))
    assert marker.exists()
