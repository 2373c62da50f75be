"""Two real nodes of a swarm that speaks GenRL's format, where nobody has to sign, and hostile nodes beside them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from swarmd.network.identity import load_or_create
from tests.integration.attacked import (
    FALSE,
    audited_members,
    falsified,
    refusals,
    rounds_since,
    unheard,
    wait_until_heard,
)
from tests.integration.audit import Account, lines_of
from tests.integration.audit_legacy import LegacyJudge
from tests.integration.hostile_peers import HostilePeers, Settings
from tests.integration.node import until
from tests.integration.swarm import Member, all_train_on

NODES = 2
DIALECT, SWARM_ID = "genrl-0.3", "5eed1e55"
ROUND_SECONDS, GATHER_SECONDS = 3.0, 1.2
# Of the attack, in which both nodes were met; each kind has its turn in three of them.
ATTACK_ROUNDS = int(os.environ.get("SWARMD_HOSTILE_ROUNDS", "6"))

REASONS = (
    ("unknown-task",), ("held-out",), ("other-task",), ("other-peer", "unsigned"), ("bad-signature",),
    ("not-decodable",), ("wrong-shape",), ("wrong-batch-id",), ("implausible",), ("quota-round",),
)  # fmt: skip
"""For which something is refused in such an attack; any one of a tuple."""


@dataclass(frozen=True)
class LegacySettings(Settings):
    dialect: str = DIALECT


@dataclass(frozen=True)
class Trial:
    """What is left of the swarm. hostile: the hostile nodes' peer ids; kinds, all_kinds, lies: what they told. By node:
    peers and statuses as swarmd told them in the end, texts its log, trained what it trained on since the attack began,
    as `audited` has it, accounts what the judge says of that, refused what it refused, by reason."""

    hostile: list[str]
    all_kinds: set[str]
    kinds: dict[str, list[int]]
    lies: dict[str, int]
    marker: bool
    judge: LegacyJudge
    peers: dict[str, list[dict[str, Any]]]
    statuses: dict[str, dict[str, Any]]
    texts: dict[str, str]
    trained: dict[str, list[dict[str, Any]]]
    accounts: dict[str, Account]
    refused: dict[str, Counter[str]]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    folder = tmp_path_factory.mktemp("legacy")
    with audited_members(folder, NODES) as (members, trained):
        yield attacked(members, folder, trained)


def attacked(members: list[Member], folder: Path, trained: Path) -> Trial:
    """Starts a swarm, has it attacked from its first rounds on, ends it, and judges what it trained on."""
    epoch, addresses = time.time() - 100 * ROUND_SECONDS, list[str]()
    for member in members:
        member.state.mkdir()
        peer_id = load_or_create(member.state / "identity.key").peer_id
        member.settings["swarm"] = {"id": SWARM_ID, "dialect": DIALECT, "peers": addresses[:1]}
        member.settings["coordinator"] = {"kind": "clock", "round_seconds": ROUND_SECONDS, "epoch": epoch}
        # Most of what is admitted and has something to teach is trained on: else names without number would push the
        # honest peer's groups out by chance, and there would be less to judge.
        member.settings["training"]["peer_samples"] = 32
        member.settings["monitor"] = {"listen": None}
        member.settings["network"]["gather_seconds"] = GATHER_SECONDS
        member.write()
        addresses.append(f"{member.settings['network']['listen'][0]}/p2p/{peer_id}")
        member.start()
    settings = LegacySettings(SWARM_ID, 1, epoch, ROUND_SECONDS, "embedded", tuple(addresses), str(folder / "attack"))
    with HostilePeers(settings) as attack:
        hostile = attack.peer_ids
        first = until(lambda: [told["round"] for told in attack.rounds() if told["victims"] == NODES], every=0.2)[0]
        until(lambda: sum(told["round"] >= first for told in attack.rounds()) >= ATTACK_ROUNDS, every=0.2)
        until(lambda: set(attack.kinds()) == attack.all_kinds, every=0.2, why="every kind has had its turn")
        for member in members:
            until(lambda m=member: rounds_since(m, first) >= ATTACK_ROUNDS / 2, every=0.2, why=member.state.name)
        wait_until_heard(members, first, REASONS)
        all_train_on(members, NODES - 1, "trains on others under attack")
        names = {member.status()["peer_id"]: member for member in members}
        peers = {name: json.loads(member.command("peers", "--json")) for name, member in names.items()}
        statuses = {name: member.status() for name, member in names.items()}
        kinds, lies, all_kinds = attack.kinds(), attack.lies(), attack.all_kinds
        nodes = [member.node for member in members if member.node is not None]
        for node in nodes:
            node.send(signal.SIGTERM)
        assert [node.end() for node in nodes] == [0] * NODES
    marker = (folder / "attack" / "marker").exists()
    sent = folder / "attack" / "sent.jsonl"
    tasks = Path(str(files("swarmd.tasks") / "presets" / f"{settings.datasets}.yaml"))
    shared = {name: trained / "shared" / f"{name}.jsonl" for name in names}
    judge = LegacyJudge(SWARM_ID, tasks, [sent], shared, {text for line in lines_of(sent) for text in line["never"]})
    found = {name: list(lines_of(trained / f"{name}.jsonl")) for name in names}
    lines = {name: [line for line in some if line["round"] >= first] for name, some in found.items()}
    return Trial(
        hostile, all_kinds, kinds, lies, marker, judge, peers, statuses,
        {name: node.text() for name, node in zip(names, nodes, strict=True)},
        lines,
        {name: judge.account(name, some) for name, some in lines.items()},
        {name: refusals(member.state, first) for name, member in names.items()},
    )  # fmt: skip


def test_the_attack_was_what_it_should_be(trial: Trial) -> None:
    """Without this all others would hold in a quiet swarm too."""
    for kind, (records, taken) in sorted(trial.kinds.items()):
        print(f"  {kind}: {records} records, taken {taken} times")
    print(f"  answers to searches: {trial.lies}")
    assert set(trial.kinds) == trial.all_kinds, "every kind had its turn"
    assert all(trial.lies.get(lie) for lie in ("neighbours", "forged", "damaged", "silent", "fails")), trial.lies


def test_every_group_trained_on_has_its_true_task_and_reward(trial: Trial) -> None:
    for name, account in trial.accounts.items():
        strangers = sum(count for author, count in account.moved.items() if author not in trial.accounts)
        print(f"\n{name}: {len(account.rounds)} rounds, {account.rows} completions in the gradient; foreign groups: "
              f"{account.groups.total()} came to the trainer, {account.moved.total()} moved the weights, "
              f"{strangers} of them strangers'")  # fmt: skip
        assert not account.wrong, "\n".join(account.wrong)
        assert strangers > 5, "true answers of strangers are learned from, or else there was nothing to judge"


@pytest.mark.parametrize("honest", [True, False], ids=["an honest peer's", "a stranger's"])
@pytest.mark.parametrize("what", FALSE)
def test_the_judge_would_have_found_it(trial: Trial, what: str, honest: bool) -> None:
    name, lines = next(iter(trial.trained.items()))
    groups = [group["agent"] for line in lines for group in line["groups"]]
    names = {agent for agent in groups if agent != name and (agent in trial.accounts) == honest}
    assert trial.judge.account(name, falsified(what, lines, names)).wrong, f"a false {what} is not found"


def test_the_honest_nodes_used_each_other_all_the_while(trial: Trial) -> None:
    for name, account in trial.accounts.items():
        for other in trial.accounts.keys() - {name}:
            assert account.moved[other] >= 3, f"{name} hardly learned from {other}: {account.moved}"
            row = next(row for row in trial.peers[name] if row["peer_id"] == other)
            assert not row["quarantined"] and row["reputation"] >= 0.9 and row["admitted"] > 5, row


def test_lies_were_heard_and_refused_by_reason(trial: Trial) -> None:
    """By one node or the other: what a busy one has no time for, it does not look at."""
    refused: Counter[str] = sum(trial.refused.values(), Counter())
    print(f"\nrefused {dict(refused.most_common())}")
    missing = unheard(refused, REASONS)
    assert not missing, f"nothing was refused as {missing}: {refused}"


def test_who_signs_false_tasks_is_shut_out(trial: Trial) -> None:
    for name, told in trial.peers.items():
        by_name = {row["peer_id"]: row for row in told}
        for liar in trial.hostile:
            assert by_name[liar]["quarantined"], f"{name} tells of {liar}: {by_name[liar]}"


def test_no_node_had_to_be_mended_and_none_tells_of_an_error(trial: Trial) -> None:
    for name, status in trial.statuses.items():
        restarts = {child: found["restarts"] for child, found in status["children"].items()}
        assert restarts == {"network": 0, "p2pd": 0, "scorer": 0}, f"{name}: {restarts}"
        assert status["state"] == "training", status
        for word in ("Traceback", "Error", "failed", "replaced"):
            assert word not in trial.texts[name], trial.texts[name]


def test_no_answer_was_run(trial: Trial) -> None:
    assert not trial.marker, "code in a record has made a file"
