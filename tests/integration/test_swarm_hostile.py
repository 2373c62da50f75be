"""Four real nodes that train while a third of their swarm lies, and a judge of what they trained on."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from swarmd.network.reputation import HARD
from tests.integration.attacked import (
    FALSE,
    audited_members,
    falsified,
    refusals,
    rounds_since,
    unheard,
    wait_until_heard,
)
from tests.integration.audit import Account, Judge, lines_of
from tests.integration.hostile_peers import HostilePeers, Settings
from tests.integration.node import until
from tests.integration.swarm import Member, all_train_on

NODES = 4
# Of the attack, in which every node trains in at least two of three; each kind has its turn in a quarter of them.
ATTACK_ROUNDS = int(os.environ.get("SWARMD_HOSTILE_ROUNDS", "15"))

REASONS = (
    ("other-task",), ("unknown-task",), ("other-peer",), ("bad-signature",), ("unsigned",), ("not-decodable",),
    ("quarantined",), ("implausible",), ("too-long",), ("copied", "republished"),
)  # fmt: skip
"""For which something is refused in such an attack; any one of a tuple."""


@dataclass(frozen=True)
class Trial:
    """What is left of a swarm that was attacked. first, last: the rounds of the attack. hostile: the peer ids of its
    nodes; all_kinds, kinds, lies: what they told. peers, statuses: by node, what `swarmd peers --json` and `swarmd
    status` told in the end. played: rounds by node. trained: what each node trained on since the attack began, as
    `audited` has it; accounts: what the judge says of it. refused: records and groups, by node and reason.
    """

    first: int
    last: int
    hostile: list[str]
    all_kinds: set[str]
    kinds: dict[str, list[int]]
    lies: dict[str, int]
    judge: Judge
    marker: bool
    peers: dict[str, list[dict[str, Any]]]
    statuses: dict[str, dict[str, Any]]
    played: dict[str, list[int]]
    trained: dict[str, list[dict[str, Any]]]
    accounts: dict[str, Account]
    refused: dict[str, Counter[str]]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    folder = tmp_path_factory.mktemp("hostile")
    with audited_members(folder, NODES) as (members, trained):
        yield attacked(members, folder, trained)


def attacked(members: list[Member], folder: Path, trained: Path) -> Trial:
    """Founds a swarm, has it attacked while it trains, ends it, and judges what it trained on."""
    invite = members[0].found()
    for member in members[1:]:
        member.command("join", invite)
    for member in members:
        member.start()
    all_train_on(members, NODES - 1, "trains on all others before the attack")
    drop_in = yaml.safe_load((members[0].state.with_name("n0.d") / "50-swarm.yaml").read_text())
    swarm, clock = drop_in["swarm"], drop_in["coordinator"]
    settings = Settings(
        swarm["id"], swarm["shards"], clock["epoch"], clock["round_seconds"], drop_in["tasks"]["datasets"],
        tuple(yaml.safe_load((members[1].state.with_name("n1.d") / "50-swarm.yaml").read_text())["swarm"]["peers"]),
        str(folder / "attack"),
    )  # fmt: skip
    with HostilePeers(settings) as attack:
        hostile = attack.peer_ids
        first = until(lambda: [told["round"] for told in attack.rounds() if told["victims"] == NODES], every=0.2)[0]
        until(lambda: sum(told["round"] >= first for told in attack.rounds()) >= ATTACK_ROUNDS, every=0.2)
        for member in members:
            until(lambda m=member: rounds_since(m, first) >= ATTACK_ROUNDS * 2 / 3, every=0.2, why=member.state.name)
        wait_until_heard(members, first, REASONS)
        last = attack.rounds()[-1]["round"]
        all_train_on(members, NODES - 1, "trains on all others under attack")
        names = {member.status()["peer_id"]: member for member in members}
        peers = {name: json.loads(member.command("peers", "--json")) for name, member in names.items()}
        statuses = {name: member.status() for name, member in names.items()}
        kinds, lies, all_kinds = attack.kinds(), attack.lies(), attack.all_kinds
        nodes = [member.node for member in members if member.node is not None]
        for node in nodes:
            node.send(signal.SIGTERM)
        assert [node.end() for node in nodes] == [0] * NODES
        # What they published in the end is to be met by the attackers, who keep it for everybody.
        ended = attack.rounds()[-1]["round"]
        until(lambda: attack.rounds()[-1]["round"] >= ended + 2, every=0.2, why="two more rounds of the attack")
    sent, met = folder / "attack" / "sent.jsonl", folder / "attack" / "met.jsonl"
    never = {text for line in lines_of(sent) for text in line["never"]}
    tasks = Path(str(files("swarmd.tasks") / "presets" / f"{settings.datasets}.yaml"))
    shared = {name: trained / "shared" / f"{name}.jsonl" for name in names}
    judge = Judge(settings.swarm_id, settings.shards, tasks, [sent, met], shared, never)
    # In the first round of the attack the witness may have come too late, whose records are trained on in the next too.
    lines = {name: list(lines_of(trained / f"{name}.jsonl")) for name in names}
    judged = {name: [line for line in found if line["round"] > first + 1] for name, found in lines.items()}
    return Trial(
        first, last, hostile, all_kinds, kinds, lies, judge, (folder / "attack" / "marker").exists(), peers, statuses,
        {name: node.rounds() for name, node in zip(names, nodes, strict=True)},
        judged,
        {name: judge.account(name, found) for name, found in judged.items()},
        {name: refusals(member.state, first) for name, member in names.items()},
    )  # fmt: skip


def test_the_attack_was_what_it_should_be(trial: Trial) -> None:
    """Without this all others would hold in a quiet swarm too."""
    print(f"\nrounds {trial.first} to {trial.last}; {trial.judge.signed} records with a good signature")
    for kind, (records, taken) in sorted(trial.kinds.items()):
        print(f"  {kind}: {records} records, taken {taken} times")
    print(f"  answers to searches: {trial.lies}")
    assert set(trial.kinds) == trial.all_kinds, "every kind had its turn"
    assert all(trial.lies.get(lie) for lie in ("neighbours", "forged", "damaged", "silent", "fails")), trial.lies


def test_nothing_false_was_trained_on(trial: Trial) -> None:
    for name, account in trial.accounts.items():
        liars = sum(count for author, count in account.moved.items() if author not in trial.accounts)
        print(f"\n{name}: {len(account.rounds)} rounds, {account.rows} completions in the gradient; foreign groups: "
              f"{account.groups.total()} came to the trainer, {account.refused.total()} it refused, "
              f"{account.moved.total()} moved the weights, {liars} of them hostile peers'")  # fmt: skip
        assert not account.wrong, "\n".join(account.wrong)
        assert account.moved.total() > 20, "or else there was nothing to judge"


@pytest.mark.parametrize("what", FALSE)
def test_the_judge_would_have_found_it(trial: Trial, what: str) -> None:
    name, lines = next(iter(trial.trained.items()))
    others = {group["agent"] for line in lines for group in line["groups"]} - {name}
    assert trial.judge.account(name, falsified(what, lines, others)).wrong, f"a false {what} is not found"


def test_honest_peers_were_trained_on_all_the_while(trial: Trial) -> None:
    for name, account in trial.accounts.items():
        for other in trial.accounts:
            if other != name:
                assert account.moved[other] >= 3, f"{name} hardly learned from {other}: {account.moved}"


def test_lies_were_heard_and_refused_by_reason(trial: Trial) -> None:
    """By one node or another: what a busy one has no time for, it does not look at."""
    refused: Counter[str] = sum(trial.refused.values(), Counter())
    print(f"\nrefused {dict(refused.most_common())}")
    missing = unheard(refused, REASONS)
    assert not missing, f"nothing was refused as {missing}: {refused}"


def test_what_is_told_of_peers_names_the_liars_and_blames_no_honest_one(trial: Trial) -> None:
    for name, told in trial.peers.items():
        by_name = {row["peer_id"]: row for row in told}
        for liar in trial.hostile:
            print(f"\n{name} tells of {liar}: {by_name[liar]['rejected']}, admitted {by_name[liar]['admitted']}, "
                  f"quarantined {by_name[liar]['quarantined']}")  # fmt: skip
            assert by_name[liar]["quarantined"], by_name[liar]
            assert set(by_name[liar]["rejected"]) & set(HARD), by_name[liar]
        for honest in trial.peers:
            if honest != name:
                row = by_name[honest]
                assert not row["quarantined"] and row["reputation"] >= 0.9 and row["admitted"] > 20, row


def test_rounds_kept_their_cadence(trial: Trial) -> None:
    for name, played in trial.played.items():
        during = [number for number in played if trial.first <= number <= trial.last]
        longest = max(later - earlier for earlier, later in itertools.pairwise(during))
        of = trial.last - trial.first + 1
        assert len(set(during)) == len(during), "each round is told of once, or else they could not be counted"
        print(f"\n{name} played {len(during)} of {of} rounds, at most {longest - 1} missed at once")
        # One that a busy machine has no time for is passed over.
        assert len(during) >= 0.5 * of, during
        assert longest <= 5, during


def test_no_process_had_to_be_replaced(trial: Trial) -> None:
    for name, status in trial.statuses.items():
        restarts = {child: found["restarts"] for child, found in status["children"].items()}
        assert restarts == {"network": 0, "p2pd": 0, "scorer": 0}, f"{name}: {restarts}"
        assert status["state"] == "training", status


def test_no_answer_was_run(trial: Trial) -> None:
    assert not trial.marker, "code in a completion has made a file"
