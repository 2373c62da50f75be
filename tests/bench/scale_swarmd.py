"""A node of swarmd for the scale bench: its DHT node alone, which publishes and reads as round_exchange does.

Of the scheme "default" it reads what a node with default settings does where all are in time: of the round before a
few records once more. Of "swarmd" it reads as many records in swarms of all sizes, and the round's own keys alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from swarmd.network import bootstrap, dht_calls, dht_node, dht_search, dht_server, p2p_daemon, publication, shard_sample
from swarmd.network.dht_node import NodeSettings, SwarmNode
from swarmd.network.dialects.own import OwnDialect
from swarmd.network.round_exchange import LOOKED_BACK
from swarmd.network.shard_sample import read_sample
from tests.bench.scale_settings import DEFAULT_SAMPLE, READ_SECONDS, SAMPLE, SHARDS, SWARM_ID

_PATIENT = {
    bootstrap: ("_CONNECT_SECONDS",),
    dht_calls: ("_PING_SECONDS",),
    dht_node: ("_STORE_SECONDS",),
    dht_search: ("_CALL_SECONDS",),
    dht_server: ("_HANDLERS_SECONDS",),
    p2p_daemon: ("_START_SECONDS", "_IDENTIFY_SECONDS"),
    publication: ("_PUBLISH_SECONDS",),
    shard_sample: ("_READ_SECONDS",),
}
_patience = 1.0


def _be_patient(factor: float) -> None:
    """Makes the time limits of this process so many times as long."""
    global _patience
    for module, names in _PATIENT.items():
        for name in names:
            setattr(module, name, getattr(module, name) / _patience * factor)
    dht_calls.DhtCalls.ping.__defaults__ = (dht_calls._PING_SECONDS,)
    _patience = factor


class OwnNode:
    def __init__(self, node: SwarmNode, address: str, default: bool, patience: float) -> None:
        self._node = node
        self._default = default
        self._seconds = READ_SECONDS * patience
        self._dialect = OwnDialect(SWARM_ID, SHARDS)
        self.address = address
        self.daemon = node.daemon_pid or 0

    def open(self, round: int) -> None:
        self._node.allow([key for number in range(round - 1, round + 3) for key in self._dialect.keys(number)])

    async def publish(self, round: int, key: str, subkey: str, value: bytes, expires: float) -> bool:
        return await self._node.publish(key, subkey, value, expires, publication._PUBLISH_SECONDS)

    async def gather(self, round: int) -> int:
        """Records of the round that were read, the own one counted where it lay in one of the shards."""
        deadline = time.monotonic() + self._seconds
        samples = {round: DEFAULT_SAMPLE, round - 1: LOOKED_BACK} if self._default else {round: SAMPLE}
        found, *_ = await asyncio.gather(
            *(read_sample(self._node.gather, self._dialect.keys(n), most, deadline) for n, most in samples.items())
        )
        self.open(round + 1)
        return len({subkey for records in found.values() for subkey in records})

    async def close(self) -> None:
        await self._node.close()


async def start(default: bool, identity: Path, state: Path, peers: Sequence[str], patience: float) -> OwnNode:
    if patience != 1.0:
        _be_patient(patience)
    settings = NodeSettings(
        state=state / identity.stem, identity=identity, listen=("/ip4/127.0.0.1/tcp/0",), peers=tuple(peers)
    )
    settings.state.mkdir(exist_ok=True)
    node = await SwarmNode.start(settings)
    (address, *_) = await node.visible_maddrs()
    own = OwnNode(node, address, default, patience)
    # The round before the first one: the first round's keys are allowed.
    own.open(0)
    return own
