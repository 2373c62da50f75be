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
from swarmd.network.round_exchange import LOOKED_BACK
from swarmd.network.shard_sample import read_sample
from tests.bench.scale_settings import DEFAULT_SAMPLE, SAMPLE, SHARDS, SWARM_ID

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
    """Of a node: messages and bytes in one round; least: records that the unluckiest of the readers found in it."""

    calls: float
    bytes: float
    least: int


async def cost_of_a_round(size: int, readers: int, samples: Sequence[int], folder: Path) -> Cost:
    """Of a swarm of this size, all of whom publish, as if all read, though only so many do.

    samples: records that are read of the round, of the one before it and so on; all publish in one of them a time.
    folder: is not written to.
    """
    rounds = len(samples)
    wire = Wire({})
    nodes = [wire.join(folder) for _ in range(size)]
    for node in nodes:
        node.allow([key for round in range(rounds) for key in _DIALECT.keys(round)])
        # As after some rounds: a node has met most of a swarm of this size.
        for other in nodes:
            assert other._calls.node_id is not None
            node._calls.contacts.met(other._calls.node_id, other.peer_id)
    for round in range(rounds):
        for node in nodes:
            key = _DIALECT.key_for(round, node.peer_id)
            assert await node.publish(key, node.peer_id, _RECORD, time.time() + 600, 60)
    # In and out, at both ends of each message: of all nodes, since who reads is served by all.
    calls, transferred = wire.calls, _transferred(nodes)
    found = []
    for node in nodes[:readers]:
        for back, sample in enumerate(samples):
            keys = _DIALECT.keys(rounds - 1 - back)
            records = await read_sample(node.gather, keys, sample, time.monotonic() + 60)
            if not back:
                found.append(len({peer for part in records.values() for peer in part}))
    return Cost(
        calls / rounds / size + (wire.calls - calls) / readers,
        transferred / rounds / size + (_transferred(nodes) - transferred) / readers,
        min(found),
    )


def _transferred(nodes: Sequence[SwarmNode]) -> int:
    return sum(node.traffic.bytes_in + node.traffic.bytes_out for node in nodes)


def wire_table(sizes: Sequence[int], readers: int = 24) -> str:
    """The section of the report."""
    lines = [
        "## Messages alone", "",
        "The same nodes of swarmd on a wire without p2pd, where nothing is lost or late. Bytes: of DHT messages, in",
        f"and out, those for others included. {readers} nodes read; told is what it is for each node if all do.", "",
        f"| nodes | messages sent a node and round, {SAMPLE} records | kB | fewest records read | default sample "
        f"({DEFAULT_SAMPLE}, and {LOOKED_BACK} of the round before): messages | kB | fewest records read |",
        "|---" * 7 + "|",
    ]  # fmt: skip
    for size in sizes:
        few = min(readers, size)
        costs = [
            asyncio.run(cost_of_a_round(size, few, samples, Path("/nonexistent")))
            for samples in ((SAMPLE,), (DEFAULT_SAMPLE, LOOKED_BACK))
        ]
        cells = [f"{cost.calls:.0f} | {cost.bytes / 1e3:.0f} | {cost.least}" for cost in costs]
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
