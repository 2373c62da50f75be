"""What p2pd does for others: without network.relay it is nobody's relay, whatever its own defaults are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarmd.network.hivemind_dht import Multiaddr, P2PDaemonError, PeerID, quiet_hivemind
from swarmd.network.identity import load_or_create
from swarmd.network.p2p_daemon import Daemon
from swarmd.network.p2pd_arguments import DaemonSettings

HOP = "/libp2p/circuit/relay/0.2.0/hop"
"""The protocol by which a relay is asked for a place (libp2p specs, relay/circuit-v2.md)."""

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


@pytest.mark.parametrize("relay", [False, True])
def test_others_can_ask_p2pd_to_relay_only_where_relaying_is_on(tmp_path: Path, relay: bool) -> None:
    quiet_hivemind()

    async def launch(name: str, **settings: bool) -> Daemon:
        folder = tmp_path / name
        folder.mkdir()
        load_or_create(folder / "key")
        return await Daemon.launch(DaemonSettings(folder / "key", folder, LOOPBACK, **settings))

    async def run() -> bool:
        asked, asking = await launch("asked", relay=relay), await launch("asking")
        try:
            peer_id = PeerID.from_base58(load_or_create(tmp_path / "asked/key").peer_id)
            (address,) = (one for one in asked.addresses if one.startswith("/ip4/127.0.0.1/tcp/"))
            await asking._client.connect(peer_id, [Multiaddr(address)])
            _, _, writer = await asking._client.stream_open(peer_id, [HOP])
            writer.close()
        except P2PDaemonError as error:
            assert "protocols not supported" in str(error)
            return False
        finally:
            await asked.kill()
            await asking.kill()
        return True

    assert asyncio.run(run()) is relay
