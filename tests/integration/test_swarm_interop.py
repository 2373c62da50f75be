"""Nodes of swarmd and of unmodified GenRL, 0.3.0 and 0.1.11, in one swarm: what either publishes, the other uses."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from reasoning_gym.factory import get_score_answer_fn
from reasoning_gym.utils import extract_answer

from swarmd.network.dialects import decode, dialect_for
from swarmd.network.dialects.provenance_mark import read_mark
from swarmd.network.identity import load_or_create
from swarmd.tasks.legacy_table import LEGACY_TABLE, LegacyTable, load_table
from swarmd.tasks.mix import TaskMix
from swarmd.tasks.mix_files import preset
from swarmd.tasks.provenance import task_seed
from tests.integration import dht_nodes, saved
from tests.integration.dht_nodes import free_port
from tests.integration.genrl_peers import GenrlPeer, Settings, write_datasets
from tests.integration.genrl_venvs import VERSIONS
from tests.integration.node import Node, Preloaded, until

SWARM_ID = "5eed1e55"
# A round of a swarmd node takes two of these seconds on two free cores. GenRL's read once, a second after they have
# written, which is late enough in the round then.
ROUND_SECONDS = 6.0
GENRL_WRITES_AT = 3.0
GROUP_SIZE = 8
# Answers of a few digits: what the embedded model could have written itself, so that it may be trained on.
DATASETS = ("basic_arithmetic",)


@dataclass
class Mixed:
    """A running swarm. dialect: of its swarmd nodes; version: of GenRL's. nodes, peers: by peer id."""

    dialect: str
    version: str
    address: str
    nodes: dict[str, Node]
    peers: dict[str, GenrlPeer]

    @property
    def node(self) -> Node:
        return next(iter(self.nodes.values()))

    def exchanges(self, node: Node) -> list[dict[str, Any]]:
        """A node's rows of its curves that tell what came from whom, with `verdicts` and `refused` as maps."""
        columns = ("round", "admitted", "peer_groups", "peer_reward", "refused", "peers")
        if not (node.state / "state.sqlite").exists():
            return []
        found = [dict(zip(columns, row, strict=True)) for row in saved.rows(node.state, ", ".join(columns), "exchanges")]
        return [{**row, "refused": json.loads(row["refused"]), "peers": json.loads(row["peers"])} for row in found]

    def verdicts(self, node: Node, peer_id: str) -> Counter[str]:
        """What came of a peer's groups at a node since the start: {"used": groups, reason: groups or completions}."""
        total: Counter[str] = Counter()
        for row in self.exchanges(node):
            total.update(row["peers"].get(peer_id, {}))
        return total


class Starting:
    """A swarm of `dialect` whose processes are coming up; `joined` waits until all are in it."""

    def __init__(
        self, stack: ExitStack, home: Path, preloaded: Preloaded, dialect: str, version: str, nodes: int, peers: int
    ) -> None:
        self._home, self._dialect, self._version = home, dialect, version
        self._epoch = time.time() - 100 * ROUND_SECONDS
        states = [home / f"node-{number}" for number in range(nodes)]
        for state in states:
            state.mkdir(parents=True)
        ids = [load_or_create(state / "identity.key").peer_id for state in states]
        listen = [f"/ip4/127.0.0.1/tcp/{free_port()}" for _ in ids]
        self._address = f"{listen[0]}/p2p/{ids[0]}"
        self._peers = [stack.enter_context(GenrlPeer(version, home / f"genrl-{number}")) for number in range(peers)]
        self._nodes: dict[str, Node] = {}
        for number, (peer_id, state) in enumerate(zip(ids, states, strict=True)):
            node = stack.enter_context(Node(state, self._config(number, listen[number]), preloaded=preloaded))
            stack.callback(_end, node)
            self._nodes[peer_id] = node

    def _config(self, number: int, listen: str) -> dict[str, Any]:
        return {
            "swarm": {"id": SWARM_ID, "dialect": self._dialect, "peers": [self._address] if number else []},
            "network": {"listen": [listen], "gather_seconds": 2},
            "coordinator": {"kind": "clock", "round_seconds": ROUND_SECONDS, "epoch": self._epoch},
            "training": {"seed": number + 1, "group_size": GROUP_SIZE, "tasks_per_round": 8, "evaluate_samples": 8,
                         "evaluate_every": 100_000},
            "monitor": {"listen": None},
        }  # fmt: skip

    def joined(self, **settings: Any) -> Mixed:
        """settings: changes to those of the GenRL peers."""
        for node in self._nodes.values():
            node.line(r"^swarmd: round \d+: ")
        told = Settings(
            peers=(self._address,), epoch=self._epoch, round_seconds=ROUND_SECONDS, offset=GENRL_WRITES_AT,
            datasets=str(write_datasets(self._home / "datasets.yaml", DATASETS)),
        )  # fmt: skip
        for number, peer in enumerate(self._peers):
            # Both kinds of peer id: RL Swarm's nodes have an RSA key in a file, hivemind makes another kind without.
            identity = str(self._home / f"genrl-{number}.pem") if number == 0 else None
            peer.join(replace(told, seed=number, identity=identity, **settings))
        return Mixed(
            self._dialect, self._version, self._address, self._nodes, {peer.peer_id: peer for peer in self._peers}
        )


def _end(node: Node) -> None:
    """As systemd does it; whatever is left of it at the end of the block is killed."""
    if node.code() is None:
        node.send(signal.SIGTERM)
        node.end()


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda version: f"genrl-{version}")
def swarm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, preloaded: Preloaded
) -> Iterator[Mixed]:
    """Two nodes of ours and two of GenRL, all of one wire format."""
    with ExitStack() as stack:
        home = tmp_path_factory.mktemp("swarm")
        yield Starting(stack, home, preloaded, f"genrl-{request.param}", request.param, nodes=2, peers=2).joined()


@pytest.fixture(scope="module")
def liars(tmp_path_factory: pytest.TempPathFactory, preloaded: Preloaded) -> Iterator[list[Mixed]]:
    """Two swarms of one node of ours and one of GenRL, each with the other's wire format. GenRL's lies about the answer
    and the metadata, and sends a task more that nobody knows."""
    with ExitStack() as stack:
        home = tmp_path_factory.mktemp("liars")
        starting = [
            Starting(stack, home / ours, preloaded, f"genrl-{ours}", theirs, nodes=1, peers=1)
            for ours, theirs in zip(VERSIONS, reversed(VERSIONS), strict=True)
        ]
        yield [each.joined(lies=True, foreign=True) for each in starting]


@pytest.fixture(scope="module")
def table() -> LegacyTable:
    return load_table(LEGACY_TABLE)


def test_genrl_decodes_and_scores_what_a_swarmd_node_publishes(swarm: Mixed) -> None:
    mix = TaskMix(preset("embedded"))
    for peer_id, peer in swarm.peers.items():
        for node_id in swarm.nodes:
            told = until(
                lambda: next((told for told in peer.rounds() if node_id in told["gathered"]), None),  # noqa: B023
                every=0.2, why=f"a record of {node_id} at {peer_id}",
            )  # fmt: skip
            groups = [group for batch in told["gathered"][node_id].values() for group in batch]
            assert groups
            for group in groups:
                mark = read_mark(group["metadata"]["swarmd"], len(group["actions"]))
                assert mark is not None
                assert mark.provenance.seed == task_seed(SWARM_ID, told["round"], node_id, mark.slot)
                task = mix.draw(mark.provenance.seed)
                assert (group["question"], group["answer"]) == (task.question, task.answer)
                assert len(group["actions"]) == GROUP_SIZE
                # By GenRL's own scorer, from the answer and the metadata that came with it.
                assert group["scores"] == [_score(task, completion) for completion in group["actions"]]


def test_what_genrl_publishes_trains_a_swarmd_node(swarm: Mixed) -> None:
    for node in swarm.nodes.values():
        for peer_id in swarm.peers:
            # Groups that were chosen are not yet trained on: completions that the own policy could not have written
            # are left out of them.
            def trained(node: Node = node, peer_id: str = peer_id) -> bool:
                found = swarm.verdicts(node, peer_id)
                left_out = sum(count for reason, count in found.items() if reason != "used")
                return found["used"] > 0 and GROUP_SIZE * found["used"] > left_out

            until(trained, every=0.2, why=f"{peer_id} trained on; {node.text()}")
        told = [re.search(r"peers (\d+)/\d+, (\d+) groups", line) for line in node.lines()]
        assert any(found and int(found[1]) >= 1 and int(found[2]) >= 1 for found in told), node.text()
        assert until(lambda node=node: saved.status(node.state)["admitted"] > 0, every=0.2)


def test_all_exchange_with_all_in_one_legacy_swarm(swarm: Mixed) -> None:
    everybody = {*swarm.nodes, *swarm.peers}
    for peer in swarm.peers.values():
        until(
            lambda: any(set(told["gathered"]) == everybody for told in peer.rounds()),  # noqa: B023
            every=0.2, why="a GenRL peer that gathers all records of a round",
        )  # fmt: skip
    for own, node in swarm.nodes.items():
        until(
            lambda: all(swarm.verdicts(node, other)["used"] for other in everybody - {own}),  # noqa: B023
            every=0.2, why=f"all others used; {node.text()}",
        )  # fmt: skip


def test_swarmds_records_are_signed_in_a_legacy_swarm(swarm: Mixed) -> None:
    dialect = dialect_for(swarm.dialect, SWARM_ID)

    async def signed(round: int) -> dict[str, bool]:
        async with dht_nodes.swarm() as others:
            reader = await others.ours(peers=(swarm.address,))
            key = str(round)
            reader.allow([key])
            await dht_nodes.until(lambda: reader.connected_peers)
            found = (await reader.gather([key], 10.0))[key]
            return {
                peer: decode(value, round, key, peer, expires, dialect).signed
                for peer, (value, expires) in found.items()
            }

    # A round that everybody has published in.
    told = until(
        lambda: [
            told["round"] for told in next(iter(swarm.peers.values())).rounds()
            if len(told["gathered"]) == len(swarm.nodes) + len(swarm.peers)
        ],
        every=0.2,
    )  # fmt: skip
    assert asyncio.run(signed(told[-1])) == {**dict.fromkeys(swarm.nodes, True), **dict.fromkeys(swarm.peers, False)}


@pytest.mark.parametrize("number", range(len(VERSIONS)), ids=[f"node-of-genrl-{version}" for version in VERSIONS])
def test_a_false_answer_and_false_metadata_change_no_reward(
    liars: list[Mixed], number: int, table: LegacyTable
) -> None:
    swarm = liars[number]
    (peer,) = swarm.peers.values()
    row = until(
        lambda: next((row for row in swarm.exchanges(swarm.node) if row["admitted"] == 2), None),
        every=0.2, why=f"a round with both groups of the liar; {swarm.node.text()}",
    )  # fmt: skip
    expected, claimed = [], []
    for told in until(lambda: [told for told in peer.rounds() if told["round"] in (row["round"], row["round"] - 1)]):
        groups = [group for batch in told["published"].values() for group in batch]
        scores = []
        for group in groups:
            if (task := table.find(group["question"])) is not None:
                assert group["answer"] != task.answer
                assert group["metadata"] != task.metadata
                scores += [_score(task, completion) for completion in group["actions"]]
                liars_task = replace(task, answer=group["answer"])
                claimed.append([_score(liars_task, completion) for completion in group["actions"]])
        expected.append(statistics.fmean(scores))
    # What a peer publishes late in a round is taken in the next one.
    assert any(row["peer_reward"] == pytest.approx(mean) for mean in expected), (row, expected)
    assert not any(row["peer_reward"] == pytest.approx(statistics.fmean(scores)) for scores in claimed)


@pytest.mark.parametrize("number", range(len(VERSIONS)), ids=[f"node-of-genrl-{version}" for version in VERSIONS])
def test_a_task_that_is_in_no_table_is_refused_alone(liars: list[Mixed], number: int) -> None:
    swarm = liars[number]
    until(
        lambda: any(row["refused"].get("unknown-task") and row["admitted"] for row in swarm.exchanges(swarm.node)),
        every=0.2, why=f"a refused task beside admitted ones; {swarm.node.text()}",
    )  # fmt: skip
    assert until(lambda: saved.status(swarm.node.state)["rejected"].get("unknown-task"), every=0.2)


@pytest.mark.parametrize("number", range(len(VERSIONS)), ids=[f"node-of-genrl-{version}" for version in VERSIONS])
def test_a_swarmd_node_reads_both_wire_formats_whichever_it_writes(liars: list[Mixed], number: int) -> None:
    swarm = liars[number]
    ((peer_id, peer),) = swarm.peers.items()
    until(lambda: swarm.verdicts(swarm.node, peer_id)["used"], every=0.2, why=f"{peer_id} used; {swarm.node.text()}")
    told = until(lambda: [told["gathered"] for told in peer.rounds()], every=0.2)
    # GenRL itself reads its own format only: 0.1.11 passes over the other's records, and 0.3.0 takes the first byte for
    # the number 0, which its game stumbles over.
    (node_id,) = swarm.nodes
    assert {gathered.get(node_id) for gathered in told} <= ({None} if swarm.version == "0.1" else {None, "int"})


def _score(task: Any, completion: str) -> float:
    """That of the dataset's own scorer, as GenRL calls it."""
    source = getattr(task, "provenance").dataset
    scored: float = get_score_answer_fn(source)(
        extract_answer(completion), {"answer": task.answer, "metadata": {**task.metadata, "source_dataset": source}}
    )
    return scored
