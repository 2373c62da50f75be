"""Two p2pds on loopback, of which one is to connect to the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from swarmd.network.hivemind_dht import Multiaddr, PeerID, quiet_hivemind
from swarmd.network.identity import load_or_create
from swarmd.network.p2p_daemon import Daemon
from swarmd.network.p2pd_arguments import DaemonSettings


@dataclass(frozen=True)
class Pair:
    """called: the one that is connected to; peer_id: its."""

    called: Daemon
    calling: Daemon
    peer_id: PeerID

    async def connect(self) -> None:
        addresses = [Multiaddr(address) for address in self.called.addresses]
        await self.calling._client.connect(self.peer_id, addresses)

    async def disconnect(self) -> None:
        await self.calling._client.disconnect(self.peer_id)


@asynccontextmanager
async def two_p2pds(folder: Path, *, relay: bool = False) -> AsyncIterator[Pair]:
    """relay: whether the called one relays. They end with the block."""
    quiet_hivemind()
    async with AsyncExitStack() as stack:
        called = await _launch(stack, folder / "called", relay=relay)
        calling = await _launch(stack, folder / "calling")
        identity = load_or_create(folder / "called" / "key")
        yield Pair(called, calling, PeerID.from_base58(identity.peer_id))


async def _launch(stack: AsyncExitStack, place: Path, *, relay: bool = False) -> Daemon:
    place.mkdir()
    load_or_create(place / "key")
    daemon = await Daemon.launch(DaemonSettings(place / "key", place, ("/ip4/127.0.0.1/tcp/0",), relay=relay))
    stack.push_async_callback(daemon.kill)
    return daemon
