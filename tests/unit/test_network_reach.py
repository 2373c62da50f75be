"""Trying for a peer whether it can be called, and what is told of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from swarmd.network.contacts import Contacts
from swarmd.network.reach import Reach


class Calls:
    """p2pd's list of connected peers, by name; and how often it was asked for."""

    def __init__(self, **addresses: str) -> None:
        self.contacts, self.p2p, self.listed = Contacts(own_node_id=1), self, 0
        self._addresses = addresses

    async def list_peers(self) -> list[Any]:
        self.listed += 1
        return [SimpleNamespace(peer_id=peer, addrs=[address]) for peer, address in self._addresses.items()]


def test_a_new_connection_tells_who_listens_and_who_only_calls() -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        calls = Calls(
            open=f"/ip4/127.0.0.1/tcp/{port}", closed="/ip4/127.0.0.1/tcp/1",
            relayed=f"/ip4/127.0.0.1/tcp/{port}/p2p/QmX/p2p-circuit", odd="/dns4/localhost/udp/1", none="",
        )  # fmt: skip
        reach = Reach(calls)  # type: ignore[arg-type]
        assert await reach.try_peer("open") is True and await reach.try_peer("closed") is False
        for peer in ("relayed", "odd", "none", "unknown"):
            assert await reach.try_peer(peer) is None
        listed = calls.listed
        server.close()
        await server.wait_closed()
        assert await reach.try_peer("open") is True and calls.listed == listed, "nobody has it knock twice in a while"

    asyncio.run(run())


def test_nothing_is_told_before_somebody_has_tried() -> None:
    assert Reach(Calls()).verdict() is None  # type: ignore[arg-type]
