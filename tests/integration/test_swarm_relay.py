"""Nodes behind two routers with NAT and no open port: with network.relay they call each other through a relay, without
it they train with each other all the same, since what they publish lies on nodes that can be called."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from swarmd.network.addresses import is_circuit
from tests.integration.dht_process import DhtProcess
from tests.integration.namespaces import PUBLIC, Host, Internet, missing
from tests.integration.node import until
from tests.integration.swarm import Member, all_train_on

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

PORT = 38751
ROUND_SECONDS = 8.0
SHARED, UNKNOWN = "a key of all", "a key that the relay keeps no records of"
# So many that those of one key are more than a connection through a relay carries.
RECORDS, RECORD_CHARS, CIRCUIT_BYTES = 20, 15_000, 128 * 1024


@pytest.fixture(scope="module")
def internet() -> Iterator[Internet]:
    """Two hosts with public addresses, and one behind each of two routers."""
    with Internet(routers=2, net=PUBLIC, delay=0.01, loss=0.0) as internet:
        yield internet


def peer_id(number: int) -> str:
    from swarmd.network.hivemind_dht import PeerID

    return str(PeerID(b"\x12\x20" + bytes([number] * 32)).to_base58())


class Trio:
    """A node with a public address, and two behind routers that know it alone."""

    def __init__(self, hosts: list[Host], folder: Path, stack: ExitStack, *, relay: bool, port: int = PORT) -> None:
        self.hosts = [hosts[0], *hosts[2:]]
        # Often enough that the eight answers of which one is made do not take two minutes.
        common: dict[str, Any] = {"listen": [f"/ip4/0.0.0.0/tcp/{port}"], "relay": relay, "ask_seconds": 0.5}
        self.public = stack.enter_context(DhtProcess(self.hosts[0], folder / "public", **common))
        known = [f"/ip4/{self.hosts[0].address}/tcp/{port}/p2p/{self.public.peer_id}"]
        self.first, self.second = (
            stack.enter_context(
                DhtProcess(host, folder / host.namespace, peers=known, no_relay_seconds=5.0, **common)
            )
            for host in self.hosts[1:]
        )
        self.hidden = [self.first, self.second]
        for node in [self.public, *self.hidden]:
            node.do("allow", keys=[SHARED] if node is self.public else [SHARED, UNKNOWN])

    def circuits(self, node: DhtProcess) -> list[str]:
        return [address for address in node.do("addresses") if is_circuit(address)]

    def call_each_other(self) -> None:
        """Waits until both hidden nodes can be called through the relay, and each by the other."""
        for node in self.hidden:
            until(lambda n=node: self.circuits(n), every=0.5, why="it can be called through the relay")
        for node, other in (self.hidden, self.hidden[::-1]):
            until(lambda n=node, o=other: self._asks(n, o), every=0.5, why="it asks the other for records")

    @staticmethod
    def _asks(node: DhtProcess, other: DhtProcess) -> bool:
        node.do("gather", key=SHARED)  # nodes hear of each other when they look for records
        return other.peer_id in node.do("nodes")


@pytest.fixture(scope="module")
def relayed(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    with ExitStack() as stack:
        trio = Trio(internet.hosts, tmp_path_factory.mktemp("relayed"), stack, relay=True)
        trio.call_each_other()
        yield trio


def test_nodes_behind_two_routers_call_each_other_through_the_relay(relayed: Trio) -> None:
    for node, other in (relayed.hidden, relayed.hidden[::-1]):
        through = relayed.circuits(other)
        assert all(f"/p2p/{relayed.public.peer_id}/p2p-circuit/p2p/{other.peer_id}" in address for address in through)
        assert node.do("connect", address=through[0]), "it answers a ping"
        ways = node.do("peers")
        assert ways[other.peer_id] and all(map(is_circuit, ways[other.peer_id])), ways
        assert ways[relayed.public.peer_id] and not any(map(is_circuit, ways[relayed.public.peer_id])), ways


def test_a_relay_is_not_taken_for_an_open_port(relayed: Trio) -> None:
    public, *hidden = relayed.hosts
    for host in hidden:
        assert public.can_connect(host.seen_at, PORT, 2.0) is None
    assert hidden[0].can_connect(hidden[1].seen_at, PORT, 2.0) is None
    until(lambda: relayed.public.do("reachable") is True, every=0.2, why="it can be connected to")
    for node in relayed.hidden:
        until(lambda n=node: n.do("reachable") is False, every=0.2, why="nobody can connect to it")
    assert all(relayed.circuits(node) for node in relayed.hidden)


def test_records_are_kept_and_read_through_the_relay(relayed: Trio) -> None:
    first, second = relayed.hidden
    assert first.do("publish", key=UNKNOWN, subkey=first.peer_id, value="from the first")
    assert second.do("kept") > 0 and relayed.public.do("kept") == 0, "it lies on the other hidden node alone"
    first.do("allow", keys=[SHARED])  # from now on it must ask
    assert first.do("kept") == 0
    assert first.do("gather", key=UNKNOWN) == {first.peer_id: "from the first"}
    first.do("allow", keys=[SHARED, UNKNOWN])


def test_more_records_than_a_circuit_carries_are_read_in_part_and_not_lost_altogether(relayed: Trio) -> None:
    first, second = relayed.hidden
    second.do("allow", keys=[])  # what is published lies on the first alone
    published = {peer_id(number): f"{number:03}" * (RECORD_CHARS // 3) for number in range(RECORDS)}
    for subkey, value in published.items():
        first.do("publish", key=UNKNOWN, subkey=subkey, value=value)
    assert first.do("kept") > 2 * CIRCUIT_BYTES
    read: dict[str, str] = {}
    for _ in range(10):
        found = second.do("gather", key=UNKNOWN)
        assert 1 <= len(found) < RECORDS, "what fits a circuit comes"
        read.update(found)
    assert len(read) > CIRCUIT_BYTES // RECORD_CHARS and read.items() <= published.items(), "another part each time"
    for node in relayed.hidden:
        node.do("allow", keys=[SHARED, UNKNOWN])


def test_a_relay_that_was_away_is_used_again(relayed: Trio) -> None:
    pid, replaced = relayed.public.do("p2pd")
    before = [node.do("p2pd")[1] for node in relayed.hidden]
    os.kill(pid, signal.SIGKILL)
    until(lambda: relayed.public.do("p2pd")[1] > replaced, every=0.2, why="the relay is back")
    for node in relayed.hidden:
        until(lambda n=node: not relayed.circuits(n), every=0.2, why="it knows that its circuit is gone")
    relayed.call_each_other()
    # p2pd by itself tries a relay that it has lost again after an hour.
    assert all(node.do("p2pd")[1] > count for node, count in zip(relayed.hidden, before, strict=True))
    first, second = relayed.hidden
    # They still know each other from before. A call that comes before the way through the new relay is found fails, and
    # who did not answer is left alone for some seconds: a node publishes until somebody has its record.
    record = {"key": UNKNOWN, "subkey": first.peer_id, "value": "after the relay's return"}
    until(lambda: first.do("publish", **record), every=0.5, why="the other takes its record")
    assert second.do("gather", key=UNKNOWN)[first.peer_id] == "after the relay's return"


@pytest.fixture(scope="module")
def unrelayed(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    with ExitStack() as stack:
        yield Trio(internet.hosts, tmp_path_factory.mktemp("unrelayed"), stack, relay=False, port=PORT + 1)


def test_without_a_relay_they_read_what_the_others_published_on_nodes_that_can_be_called(unrelayed: Trio) -> None:
    nodes = [unrelayed.public, *unrelayed.hidden]
    for node in nodes[1:]:
        until(lambda n=node: unrelayed.public.peer_id in n.do("nodes"), every=0.2, why="it has found the public node")
    for node in nodes:
        assert node.do("publish", key=SHARED, subkey=node.peer_id, value=f"by {node.peer_id}")
    for node in nodes:
        assert node.do("gather", key=SHARED) == {other.peer_id: f"by {other.peer_id}" for other in nodes}
    for node, other in (unrelayed.hidden, unrelayed.hidden[::-1]):
        assert other.peer_id not in node.do("peers"), "they have never heard each other"


def test_a_node_that_nobody_can_call_keeps_no_records_until_somebody_can(internet: Internet, unrelayed: Trio) -> None:
    public, first, second = unrelayed.public, *unrelayed.hidden
    for node in unrelayed.hidden:
        until(lambda n=node: n.peer_id not in public.do("nodes"), every=0.2, why="it is no longer asked for records")
        assert node.peer_id in public.do("peers")
    before = [node.do("kept") for node in unrelayed.hidden]
    assert public.do("publish", key=SHARED, subkey=peer_id(1), value="a record")
    assert [node.do("kept") for node in unrelayed.hidden] == before
    assert all(node.do("gather", key=SHARED)[peer_id(1)] == "a record" for node in unrelayed.hidden)

    internet.forward(2, PORT + 1)
    until(lambda: first.do("reachable") is True, every=0.2, why="its port is open now")
    until(lambda: first.peer_id in public.do("nodes"), every=0.2, why="it is asked for records again")
    assert public.do("publish", key=SHARED, subkey=peer_id(2), value="another record")
    assert first.do("kept") > before[0] and second.do("kept") == before[1]


@pytest.mark.parametrize("relay", [False, True])
def test_nodes_behind_routers_train_on_each_other(internet: Internet, tmp_path: Path, relay: bool) -> None:
    hosts = [internet.hosts[0], *internet.hosts[2:]]
    bootnode, *members = [Member(tmp_path, number, before=host.before) for number, host in enumerate(hosts)]
    for member in (bootnode, *members):
        member.settings["network"] = {"listen": [f"/ip4/0.0.0.0/tcp/{PORT + 2}"], "relay": relay}
        member.write()
    invite = bootnode.found("trial", "--bootnode", "--round-seconds", f"{ROUND_SECONDS:g}")
    for member in members:
        member.command("join", invite)
    try:
        for member in (bootnode, *members):
            member.start()
        all_train_on(members, 1, "trains on the other")
        for member, other in (members, members[::-1]):
            until(lambda m=member: m.status()["network"]["reachable"] is False, every=0.2, why="nobody can call it")
            name = other.status()["peer_id"]
            until(lambda m=member, n=name: ways(m, n) == ("relay" if relay else ""), every=0.5, why="by relay, or not")
        all_train_on(members, 1, "goes on to train on the other")
    finally:
        for member in (bootnode, *members):
            member.stop()


def ways(member: Member, peer: str) -> str:
    """How it is connected to a peer, by what `swarmd peers` tells: "relay", "direct", both, or "" for not at all."""
    told = {row["peer_id"]: row for row in json.loads(member.command("peers", "--json"))}
    addresses = told.get(peer, {}).get("addresses", ())
    return " ".join(sorted({"relay" if is_circuit(address) else "direct" for address in addresses}))
