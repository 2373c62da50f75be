"""What a round costs a node as the swarm grows: our DHT nodes, on a wire that hands over every message at once."""

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from swarmd.network.dht_node import NodeSettings, SwarmNode
from swarmd.network.dialects.own import OwnDialect
from swarmd.network.hivemind_dht import PeerID
from swarmd.network.shard_sample import read_sample

DIALECT = OwnDialect("5ca1e", 32)
RECORD = os.urandom(6000)
ENOUGH = 16


@dataclass
class Wire:
    """Between these nodes, in the place of p2pd."""

    nodes: dict[str, SwarmNode]
    calls: int = 0

    def join(self, folder: Path) -> SwarmNode:
        peer_id = PeerID(b"\x12\x20" + os.urandom(32)).to_base58()
        settings = NodeSettings(folder, folder / "key", listen=("/ip4/127.0.0.1/tcp/0",))
        node = self.nodes[peer_id] = SwarmNode(settings, peer_id, folder, None)
        control = SimpleNamespace(_pending_messages=asyncio.Queue())
        node._calls.p2p = SimpleNamespace(_client=SimpleNamespace(control=control))
        node._calls._stub = lambda p2p, callee: self.stub(peer_id, callee)
        return node

    def stub(self, caller: str, callee: PeerID) -> Any:
        server, context = self.nodes[str(callee)]._server, SimpleNamespace(remote_id=PeerID.from_base58(caller))

        def method(name: str) -> Any:
            async def call(request: Any) -> Any:
                self.calls += 1
                return await getattr(server, name)(request, context)

            return call

        return SimpleNamespace(**{name: method(name) for name in ("rpc_ping", "rpc_find", "rpc_store")})


@dataclass(frozen=True)
class Cost:
    """Of a node: messages and bytes in one round; least: records that the unluckiest of the readers found."""

    calls: float
    bytes: float
    least: int


async def cost_of_a_round(size: int, readers: int, folder: Path) -> Cost:
    wire = Wire({})
    nodes = [wire.join(folder) for _ in range(size)]
    for node in nodes:
        node.allow(list(DIALECT.keys(1)))
        # As after some rounds: a node has met most of a swarm of this size.
        for other in nodes:
            assert other._calls.node_id is not None
            node._calls.contacts.met(other._calls.node_id, other.peer_id)
    for node in nodes:
        key = DIALECT.key_for(1, node.peer_id)
        assert await node.publish(key, node.peer_id, RECORD, time.time() + 600, 60)
    published = wire.calls
    found = []
    for node in nodes[:readers]:
        records = await read_sample(node.gather, DIALECT.keys(1), ENOUGH, time.monotonic() + 60)
        found.append(len({peer for part in records.values() for peer in part}))
    transferred = sum(node.traffic.bytes_in + node.traffic.bytes_out for node in nodes[:readers])
    return Cost(published / size + (wire.calls - published) / readers, transferred / readers, min(found))


def test_what_a_round_costs_a_node_does_not_grow_with_the_swarm(tmp_path: Path):
    few, many = (asyncio.run(cost_of_a_round(size, 24, tmp_path)) for size in (40, 160))
    assert few.least >= ENOUGH and many.least >= ENOUGH
    assert many.calls <= 1.2 * few.calls and many.bytes <= 1.2 * few.bytes
