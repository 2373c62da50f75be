"""Nodes of swarmd and of unmodified GenRL, 0.3.0 and 0.1.11, in one swarm: what either publishes, the other uses."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
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
from swarmd.tasks.provenance import Task, is_heldout, task_seed
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
    nodes: dict[str, Node]
    peers: dict[str, GenrlPeer]

    def told(self, peer: GenrlPeer, authors: set[str]) -> dict[str, Any]:
        """What a GenRL peer told of the last round in which it gathered records of all of these."""
        found: dict[str, Any] = until(
            lambda: next((told for told in reversed(peer.rounds()) if authors <= set(told["gathered"])), None),
            every=0.2, why=f"a GenRL peer that gathers the records of {authors}; {peer.text()}",
        )  # fmt: skip
        return found


@dataclass
class Pair:
    """A swarm of one node of ours and one of GenRL, which founded it."""

    version: str
    node: Node
    node_id: str
    peer: GenrlPeer


def exchanges(node: Node) -> list[dict[str, Any]]:
    """Those rows of a node's curves that tell what came from whom."""
    columns = ("round", "admitted", "peer_reward", "refused", "peers")
    rows = [dict(zip(columns, row, strict=True)) for row in saved.rows(node.state, ", ".join(columns), "exchanges")]
    return [{**row, "refused": json.loads(row["refused"]), "peers": json.loads(row["peers"])} for row in rows]


def verdicts(node: Node, peer_id: str) -> Counter[str]:
    """What came of a peer's groups since the start: "used" groups, and for other reasons groups or completions."""
    total: Counter[str] = Counter()
    for row in exchanges(node):
        total.update(row["peers"].get(peer_id, {}))
    return total


def trained_on(node: Node, peer_id: str) -> bool:
    """Whether a completion of the peer's has moved the weights. Of groups that were chosen, completions that the own
    policy could not have written are left out."""
    found = verdicts(node, peer_id)
    return GROUP_SIZE * found["used"] > sum(count for reason, count in found.items() if reason != "used")


def begin(stack: ExitStack, state: Path, preloaded: Preloaded, epoch: float, **changes: Any) -> Node:
    """Starts a node of ours; changes: to the configuration, by section."""
    settings = {
        "coordinator": {"kind": "clock", "round_seconds": ROUND_SECONDS, "epoch": epoch},
        "training": {"group_size": GROUP_SIZE, "tasks_per_round": 8, "evaluate_samples": 8, "evaluate_every": 100_000},
        "monitor": {"listen": None},
        **changes,
    }
    return stack.enter_context(Node(state, settings, preloaded=preloaded))


def end(nodes: Iterable[Node], peers: Iterable[GenrlPeer]) -> None:
    """All at once, as a person would; what is left of them is killed when the block ends that they were started in."""
    for peer in peers:
        peer.leave()
    for node in nodes:
        node.send(signal.SIGTERM)
    for node in nodes:
        node.end()


def network(listen: str) -> dict[str, Any]:
    return {"listen": [listen], "gather_seconds": 2}


def a_round(node: Node) -> None:
    """Waits until the node has told of one."""
    node.line(r"^swarmd: round \d+: ")


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda version: f"genrl-{version}")
def swarm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, preloaded: Preloaded
) -> Iterator[Mixed]:
    """Two nodes of ours, the first of them the one that all others join at, and two of GenRL, all of one format."""
    version, home = request.param, tmp_path_factory.mktemp("swarm")
    datasets, epoch = write_datasets(home / "datasets.yaml", DATASETS), time.time() - 100 * ROUND_SECONDS
    with ExitStack() as stack:
        peers = [stack.enter_context(GenrlPeer(version, home / f"genrl-{number}")) for number in range(2)]
        nodes: dict[str, Node] = {}
        joined_at = ""
        for number in range(2):
            state, listen = home / f"node-{number}", f"/ip4/127.0.0.1/tcp/{free_port()}"
            peer_id = identity_in(state)
            at = {"id": SWARM_ID, "dialect": f"genrl-{version}", "peers": [joined_at] if joined_at else []}
            nodes[peer_id] = begin(stack, state, preloaded, epoch, swarm=at, network=network(listen))
            joined_at = joined_at or f"{listen}/p2p/{peer_id}"
        for node in nodes.values():
            a_round(node)
        for number, peer in enumerate(peers):
            # Both kinds of peer id: RL Swarm's nodes have an RSA key in a file, hivemind makes another kind without.
            key = str(home / "genrl.pem") if number == 0 else None
            told = ((joined_at,), epoch, ROUND_SECONDS, GENRL_WRITES_AT, str(datasets))
            peer.join(Settings(*told, seed=number, identity=key))
        yield Mixed(f"genrl-{version}", version, nodes, {peer.peer_id: peer for peer in peers})
        end(nodes.values(), peers)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, preloaded: Preloaded) -> Iterator[dict[str, Pair]]:
    """By the wire format that our node writes: it joins a swarm that a GenRL node of the *other* format has founded,
    which lies about answers and metadata, and sends a task more that nobody knows."""
    home = tmp_path_factory.mktemp("pairs")
    datasets, epoch = write_datasets(home / "datasets.yaml", DATASETS), time.time() - 100 * ROUND_SECONDS
    with ExitStack() as stack:
        others = dict(zip(VERSIONS, reversed(VERSIONS), strict=True))
        peers = {ours: stack.enter_context(GenrlPeer(other, home / f"genrl-{other}")) for ours, other in others.items()}
        for peer in peers.values():
            told = ((), epoch, ROUND_SECONDS, GENRL_WRITES_AT, str(datasets))
            peer.join(Settings(*told, lies=True, foreign=True))
        made = {}
        for ours, peer in peers.items():
            state, listen = home / f"node-{ours}", f"/ip4/127.0.0.1/tcp/{free_port()}"
            peer_id = identity_in(state)
            at = {"id": SWARM_ID, "dialect": f"genrl-{ours}", "peers": [peer.address]}
            node = begin(stack, state, preloaded, epoch, swarm=at, network=network(listen))
            made[ours] = Pair(others[ours], node, peer_id, peer)
        for pair in made.values():
            a_round(pair.node)
        yield made
        end([pair.node for pair in made.values()], peers.values())


@pytest.fixture(params=VERSIONS, ids=lambda version: f"node-of-genrl-{version}")
def pair(request: pytest.FixtureRequest, pairs: dict[str, Pair]) -> Pair:
    return pairs[request.param]


def identity_in(state: Path) -> str:
    """The peer id of a node that is about to be started for the first time."""
    state.mkdir()
    return load_or_create(state / "identity.key").peer_id


@pytest.fixture(scope="module")
def table() -> LegacyTable:
    return load_table(LEGACY_TABLE)


def test_genrl_decodes_and_scores_what_a_swarmd_node_publishes(swarm: Mixed) -> None:
    mix = TaskMix(preset("embedded"))
    for peer in swarm.peers.values():
        for node_id in swarm.nodes:
            told = swarm.told(peer, {node_id})
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
                assert group["scores"] == [score(task, completion) for completion in group["actions"]]


def test_what_genrl_publishes_trains_a_swarmd_node(swarm: Mixed) -> None:
    for node in swarm.nodes.values():
        until(
            lambda node=node: all(trained_on(node, peer_id) for peer_id in swarm.peers),
            every=0.2, why=f"all GenRL peers trained on; {node.text()}",
        )  # fmt: skip
        # The round's line comes after its row in the history: behind the checkpoint.
        assert node.line(r", peers [1-9]\d*/\d+, [1-9]\d* groups?, ")


def test_what_a_swarmd_node_publishes_reaches_the_trainer_of_genrl(swarm: Mixed) -> None:
    for peer in swarm.peers.values():
        told = swarm.told(peer, set(swarm.nodes))["trains_on"]
        if swarm.version == "0.3":
            assert told == "TypeError: 'Payload' object is not subscriptable"  # before it looks at anything of ours
            continue
        assert isinstance(told, list), told
        # Its ranking lets through some groups of a round; so it takes a few rounds until both nodes' were among them.
        until(
            lambda peer=peer: all(any(node in told["trains_on"] for told in peer.rounds()) for node in swarm.nodes),
            every=0.2, why=f"groups of ours at GenRL's trainer; {told}",
        )  # fmt: skip


def test_all_exchange_with_all_in_one_legacy_swarm(swarm: Mixed) -> None:
    everybody = {*swarm.nodes, *swarm.peers}
    for peer in swarm.peers.values():
        assert set(swarm.told(peer, everybody)["gathered"]) == everybody
    for own, node in swarm.nodes.items():
        until(
            lambda own=own, node=node: all(verdicts(node, other)["used"] for other in everybody - {own}),
            every=0.2, why=f"groups of all others used; {node.text()}",
        )  # fmt: skip


def test_swarmds_records_are_signed_in_a_legacy_swarm(swarm: Mixed) -> None:
    dialect = dialect_for(swarm.dialect, SWARM_ID)
    everybody = {*swarm.nodes, *swarm.peers}
    peer = next(iter(swarm.peers.values()))

    async def signed() -> dict[str, bool]:
        """Who has published in the last round that the peer saw all of, and whether it is signed."""
        async with dht_nodes.swarm() as others:
            reader = await others.ours(peers=(peer.address,))
            await dht_nodes.until(lambda: reader.connected_peers)
            round = swarm.told(peer, everybody)["round"]
            key = str(round)
            reader.allow([key])
            found = (await reader.gather([key], 10.0))[key]
            return {
                author: decode(value, round, key, author, expires, dialect).signed
                for author, (value, expires) in found.items()
            }

    # Our nodes' records live for two rounds: this may come too late for those of a round.
    def of_everybody() -> dict[str, bool] | None:
        found = asyncio.run(signed())
        return found if set(found) == everybody else None

    assert until(of_everybody, every=1.0) == {**dict.fromkeys(swarm.nodes, True), **dict.fromkeys(swarm.peers, False)}


def test_a_false_answer_and_false_metadata_change_no_reward(pair: Pair, table: LegacyTable) -> None:
    row = until(
        lambda: next((row for row in exchanges(pair.node) if row["admitted"]), None),
        every=0.2, why=f"a round with groups of the liar; {pair.node.text()}",
    )  # fmt: skip
    published = {told["round"]: told["published"] for told in pair.peer.rounds()}
    # What a peer publishes late in a round is taken in the next one.
    true, claimed = [], []
    for rounds in ([row["round"]], [row["round"] - 1], [row["round"] - 1, row["round"]]):
        groups = [group for number in rounds for batch in published.get(number, {}).values() for group in batch]
        found = [(group, table.find(group["question"])) for group in groups]
        known = [(group, task) for group, task in found if task is not None and not is_heldout(task.question)]
        if len(known) == row["admitted"]:
            assert all(group["answer"] != task.answer for group, task in known)
            assert all(group["metadata"].get("source_dataset") != task.provenance.dataset for group, task in known)
            true.append(fmean(score(task, text) for group, task in known for text in group["actions"]))
            claimed.append(fmean(text == f"<answer>{group['answer']}</answer>" for group, _ in known
                                 for text in group["actions"]))  # fmt: skip
    assert any(row["peer_reward"] == pytest.approx(mean) for mean in true), (row, true)
    assert not any(row["peer_reward"] == pytest.approx(mean) for mean in claimed), (row, claimed)


def test_a_task_that_is_in_no_table_is_refused_and_the_rest_of_its_record_is_not(pair: Pair) -> None:
    until(
        lambda: any(row["refused"].get("unknown-task") and row["admitted"] for row in exchanges(pair.node)),
        every=0.2, why=f"a refused task beside admitted ones; {pair.node.text()}",
    )  # fmt: skip
    assert until(lambda: saved.status(pair.node.state)["rejected"].get("unknown-task"), every=0.2)


def test_a_swarmd_node_reads_both_wire_formats_whichever_it_writes(pair: Pair) -> None:
    until(
        lambda: verdicts(pair.node, pair.peer.peer_id)["used"],
        every=0.2, why=f"groups of the other format used; {pair.node.text()}",
    )  # fmt: skip
    # GenRL reads its own alone: the older passes over what it cannot decode, the newer finds a number in it.
    if pair.version == "0.1":
        until(lambda: "SKIPPING: Failed to decode value" in pair.peer.text(), every=0.2)
        assert all(pair.node_id not in told["gathered"] for told in pair.peer.rounds())
    else:
        until(lambda: any(told["gathered"].get(pair.node_id) == "int" for told in pair.peer.rounds()), every=0.2)


def score(task: Task, completion: str) -> float:
    """That of reasoning-gym's own scorer, as GenRL asks it."""
    dataset = task.provenance.dataset
    entry = {"answer": task.answer, "metadata": {**task.metadata, "source_dataset": dataset}}
    scored: float = get_score_answer_fn(dataset)(extract_answer(completion), entry)
    return scored
