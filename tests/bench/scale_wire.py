"""What a round costs a node of ours on a wire that hands over every message at once, in the place of p2pd.

The DHT nodes are whole; there are no sockets, no encryption and no other work, so that messages and bytes are exact.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from swarmd.network.dht_node import NodeSettings, SwarmNode
from swarmd.network.dialects.own import OwnDialect
from swarmd.network.hivemind_dht import PeerID
from swarmd.network.shard_sample import read_sample
from tests.bench.scale_settings import PEERS_PER_ROUND, SHARDS, SWARM_ID

_DIALECT = OwnDialect(SWARM_ID, SHARDS)
_RECORD = os.urandom(6000)


@dataclass
class Wire:
    """Between these nodes, in the place of p2pd."""

    nodes: dict[str, SwarmNode]
    calls: int = 0

    def join(self, folder: Path) -> SwarmNode:
        peer_id = PeerID(b"\x12\x20" + os.urandom(32)).to_base58()
        settings = NodeSettings(folder, folder / "key", listen=("/ip4/127.0.0.1/tcp/0",))
        no_sockets: Any = SimpleNamespace(path=folder)
        node = self.nodes[peer_id] = SwarmNode(settings, peer_id, no_sockets, None)
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
    """Of a swarm of this size, all of whom publish; so many of them read. folder: is not written to."""
    wire = Wire({})
    nodes = [wire.join(folder) for _ in range(size)]
    for node in nodes:
        node.allow(list(_DIALECT.keys(1)))
        # As after some rounds: a node has met most of a swarm of this size.
        for other in nodes:
            assert other._calls.node_id is not None
            node._calls.contacts.met(other._calls.node_id, other.peer_id)
    for node in nodes:
        key = _DIALECT.key_for(1, node.peer_id)
        assert await node.publish(key, node.peer_id, _RECORD, time.time() + 600, 60)
    published = wire.calls
    found = []
    for node in nodes[:readers]:
        records = await read_sample(node.gather, _DIALECT.keys(1), PEERS_PER_ROUND, time.monotonic() + 60)
        found.append(len({peer for part in records.values() for peer in part}))
    transferred = sum(node.traffic.bytes_in + node.traffic.bytes_out for node in nodes[:readers])
    return Cost(published / size + (wire.calls - published) / readers, transferred / readers, min(found))


def wire_table(sizes: Sequence[int], readers: int = 24) -> str:
    """The section of the report."""
    lines = [
        "## Messages alone", "",
        f"The same nodes of swarmd on a wire without p2pd, where nothing is lost or late; {readers} of them read.",
        "Bytes: of DHT messages, in and out, of those who read, serving others included.", "",
        "| nodes | messages sent a node and round | kB a node and round | fewest records read |", "|---|---|---|---|",
    ]  # fmt: skip
    for size in sizes:
        cost = asyncio.run(cost_of_a_round(size, min(readers, size), Path("/nonexistent")))
        lines.append(f"| {size} | {cost.calls:.0f} | {cost.bytes / 1e3:.0f} | {cost.least} |")
    return "\n".join(lines)
