"""Nodes of the DHT on loopback, ours and stock ones: for tests."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from hivemind.dht import DHTNode

from swarmd.network.dht_node import NodeSettings, SwarmNode
from swarmd.network.hivemind_dht import P2P, PeerID


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def identity(path: Path) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        P2P.generate_identity(str(path))
    return path


class Swarm:
    """Starts nodes; all are closed at the end."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._made = 0
        self.root = Path(tempfile.mkdtemp(prefix="dht-test-"))
        stack.callback(shutil.rmtree, self.root, True)

    async def ours(self, **changes: Any) -> SwarmNode:
        """A node of ours on a port of its own; `changes` go into its settings, `genuine` beside them."""
        self._made += 1
        state = changes.pop("state", self.root / f"node-{self._made}")
        genuine = changes.pop("genuine", None)
        changes.setdefault("listen", (f"/ip4/127.0.0.1/tcp/{free_port()}",))
        settings = NodeSettings(state=state, identity=identity(state / "identity.key"), **changes)
        node = await SwarmNode.start(settings, genuine)
        self._stack.push_async_callback(node.close)
        return node

    async def stock(self, *peers: str, **options: Any) -> DHTNode:
        """An unmodified hivemind node that knows these peers; its subkey is str(node.peer_id)."""
        self._made += 1
        path = identity(self.root / f"stock-{self._made}.key")
        quiet = {"nat_port_map": False, "auto_nat": False, "use_relay": False, "identity_path": str(path)}
        node = await asyncio.wait_for(DHTNode.create(initial_peers=list(peers), **quiet, **options), 30)
        self._stack.push_async_callback(node.shutdown)
        return node


@asynccontextmanager
async def swarm() -> AsyncIterator[Swarm]:
    async with AsyncExitStack() as stack:
        yield Swarm(stack)


async def address_of(node: Any) -> str:
    """Where a node, ours or a stock one, can be reached."""
    if isinstance(node, SwarmNode):
        return (await node.visible_maddrs())[0]
    return str((await node.get_visible_maddrs())[0])


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> float:
    """Waits until the condition holds and returns how many seconds that took; AssertionError after `seconds`."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, "it did not come to pass in time"
        await asyncio.sleep(0.05)
    return time.monotonic() - begin


def new_peer_id() -> str:
    """A peer id that nobody has."""
    return PeerID(b"\x12\x20" + os.urandom(32)).to_base58()


async def within(seconds: float, work: Any) -> Any:
    """The result of an awaitable; TimeoutError after so many seconds."""
    return await asyncio.wait_for(work, seconds)
