"""What p2pd does for others: without network.relay it is nobody's relay, whatever its own defaults are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from swarmd.network.hivemind_dht import P2PDaemonError
from tests.p2pd_pair import two_p2pds

HOP = "/libp2p/circuit/relay/0.2.0/hop"
"""The protocol by which a relay is asked for a place (libp2p specs, relay/circuit-v2.md)."""


@pytest.mark.parametrize("relay", [False, True])
def test_others_can_ask_p2pd_to_relay_only_where_relaying_is_on(tmp_path: Path, relay: bool) -> None:
    async def is_spoken() -> bool:
        async with two_p2pds(tmp_path, relay=relay) as pair:
            await pair.connect()
            try:
                _, _, writer = await pair.calling._client.stream_open(pair.peer_id, [HOP])
            except P2PDaemonError as error:
                assert "protocols not supported" in str(error)
                return False
            writer.close()
            return True

    assert asyncio.run(is_spoken()) is relay
