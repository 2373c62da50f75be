"""A node of swarmd for the scale bench: its DHT node alone, which publishes and reads as round_exchange does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from swarmd.network.dht_node import NodeSettings, SwarmNode
from swarmd.network.dialects.own import OwnDialect
from swarmd.network.shard_sample import read_sample
from tests.bench.scale_settings import PEERS_PER_ROUND, READ_SECONDS, SHARDS, SWARM_ID


class OwnNode:
    def __init__(self, node: SwarmNode, address: str) -> None:
        self._node = node
        self._dialect = OwnDialect(SWARM_ID, SHARDS)
        self.address = address
        self.daemon = node.daemon_pid or 0

    def open(self, round: int) -> None:
        self._node.allow([key for number in range(round - 1, round + 3) for key in self._dialect.keys(number)])

    async def publish(self, round: int, key: str, subkey: str, value: bytes, expires: float) -> bool:
        return await self._node.publish(key, subkey, value, expires, READ_SECONDS)

    async def gather(self, round: int) -> int:
        """Records of others that were read."""
        deadline = time.monotonic() + READ_SECONDS
        found = await read_sample(self._node.gather, self._dialect.keys(round), PEERS_PER_ROUND, deadline)
        self.open(round + 1)
        return len({subkey for records in found.values() for subkey in records} - {self._node.peer_id})

    async def close(self) -> None:
        await self._node.close()


async def start(identity: Path, state: Path, peers: Sequence[str]) -> OwnNode:
    settings = NodeSettings(
        state=state / identity.stem, identity=identity, listen=("/ip4/127.0.0.1/tcp/0",), peers=tuple(peers)
    )
    settings.state.mkdir(exist_ok=True)
    node = await SwarmNode.start(settings)
    (address, *_) = await node.visible_maddrs()
    own = OwnNode(node, address)
    # The round before the first one: the first round's keys are allowed.
    own.open(0)
    return own
