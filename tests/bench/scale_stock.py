"""A node of unmodified hivemind for the scale bench, used as GenRL's HivemindBackend does: one key a round, read whole.

GenRL's own additions, a process of its own for each node with torch in it and a pipe, are left out; so is QUIC.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hivemind.dht.node import DHTNode

from tests.bench.scale_settings import BEAM_SIZE

_WAIT_SECONDS = 3.0  # hivemind's default


class StockNode:
    def __init__(self, node: DHTNode, address: str) -> None:
        self._node = node
        self.address = address
        self.daemon = int(node.p2p._child.pid)

    async def publish(self, round: int, key: str, subkey: str, value: bytes, expires: float) -> bool:
        stored = await self._node.store(str(round), value, expires, subkey=subkey, beam_size=BEAM_SIZE)
        return bool(stored)

    async def gather(self, round: int) -> int:
        """Records that were read, the own one with them; 0 where the key was not found."""
        found = await self._node.get(str(round), latest=True, beam_size=BEAM_SIZE)
        # A plain value that lies in the key's place is no dictionary.
        records = found.value if found is not None and isinstance(found.value, dict) else {}
        return len(records)

    async def close(self) -> None:
        await self._node.shutdown()


async def start(identity: Path, state: Path, peers: Sequence[str], patience: float) -> StockNode:
    node = await DHTNode.create(
        initial_peers=list(peers),
        identity_path=str(identity),
        host_maddrs=["/ip4/127.0.0.1/tcp/0"],
        nat_port_map=False,
        auto_nat=False,
        use_relay=False,
        # To see whether the identity is taken hivemind would start a p2pd more, before anything is counted.
        check_if_identity_free=False,
        startup_timeout=60 * patience,
        wait_timeout=_WAIT_SECONDS * patience,
    )
    return StockNode(node, str((await node.get_visible_maddrs())[0]))
