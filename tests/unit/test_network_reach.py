"""Trying for a peer whether it can be called, and what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from swarmd.network import reach as reaching
from swarmd.network.contacts import Contacts
from swarmd.network.p2p_daemon import Daemon
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


class Unstarted(Daemon):
    """Connected to these peers, but no process: there is nothing to end."""

    def __init__(self, **listed: list[str]) -> None:
        self._listed = listed

    async def list_peers(self) -> list[Any]:
        return [SimpleNamespace(peer_id=peer, addrs=addresses) for peer, addresses in self._listed.items()]

    def __del__(self) -> None:
        pass


class Told(Calls):
    """A peer that says in turn whether it could connect, and what is offered to it after each answer."""

    def __init__(self, answers: Iterable[bool | None], p2p: Any = None) -> None:
        super().__init__()
        self.p2p, self._answers, self.offers = p2p, iter(answers), list[bool]()
        self.contacts.heard_from("a peer")

    async def could_connect(self, peer_id: str, timeout: float) -> bool | None:
        for answer in self._answers:
            return answer
        raise EOFError

    def offer(self, offered: bool) -> None:
        self.offers.append(offered)


def offers(
    answers: Iterable[bool | None], monkeypatch: pytest.MonkeyPatch, p2p: Any = None, trusted: bool = True
) -> list[bool]:
    """trusted: whether the peer is one that the user named."""
    monkeypatch.setattr(reaching, "_ASK_SECONDS", 0.0)
    told = Told(answers, p2p)
    with contextlib.suppress(EOFError):
        asyncio.run(Reach(told, ["a peer"] if trusted else []).run())  # type: ignore[arg-type]
    return told.offers


def test_a_node_that_nobody_has_reached_for_long_offers_nothing_until_somebody_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert offers([False] * 9 + [None, True, False], monkeypatch) == [True] * 7 + [False] * 3 + [True] * 2
    # One peer in eight suffices: others may be behind a firewall of their own.
    assert all(offers([True, *[False] * 7] * 4, monkeypatch))


def test_strangers_cannot_talk_a_node_out_of_keeping_records(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(offers([False] * 100, monkeypatch, trusted=False))


def test_a_node_that_is_called_through_a_relay_offers_to_keep_records(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = Unstarted()
    assert offers([False] * 9, monkeypatch, daemon)[-1] is False
    daemon.relayed = True
    assert all(offers([False] * 9, monkeypatch, daemon))


def test_what_is_offered_follows_a_relay_that_is_lost_before_the_next_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "_ASK_SECONDS", 0.001)
    monkeypatch.setattr(reaching, "_SETTLED_FACTOR", 1e6)
    daemon = Unstarted()
    daemon.relayed = True
    told = Told([False] * 8, daemon)  # a ninth question would end it

    async def run() -> None:
        asking = asyncio.create_task(Reach(told, ["a peer"]).run())  # type: ignore[arg-type]
        async with asyncio.timeout(20):
            while len(told.offers) < 8 and not asking.done():
                await asyncio.sleep(0.001)
            daemon.relayed = False
            while told.offers[-1] and not asking.done():
                await asyncio.sleep(0.001)
        assert not asking.done(), "nothing was asked meanwhile"
        asking.cancel()

    asyncio.run(run())


def test_only_who_relays_looks_who_is_connected_through_a_relay() -> None:
    async def run() -> None:
        circuit, direct = "/ip4/192.0.2.1/tcp/1/p2p/QmX/p2p-circuit", "/ip4/192.0.2.2/tcp/1"
        daemon = Unstarted(relayed=[circuit], both=[circuit, direct], direct=[direct])
        reach = Reach(Told([], daemon))  # type: ignore[arg-type]
        assert not await reach.through_relay("relayed")
        daemon.relay = True
        assert [await reach.through_relay(peer) for peer in ("relayed", "both", "direct", "gone")] == [
            True, False, False, False,
        ]  # fmt: skip

    asyncio.run(run())


def test_who_is_told_the_same_again_and_again_asks_more_rarely_until_it_is_told_otherwise() -> None:
    def pace(*answers: bool | None) -> float:
        told = Told(answers)
        reach = Reach(told, ["a peer"])  # type: ignore[arg-type]

        async def ask() -> None:
            for _ in answers:
                await reach._ask("a peer")

        asyncio.run(ask())
        return reach._pace() / reaching._ASK_SECONDS

    assert pace() == pace(True, True, True) == pace(None) == 1
    assert pace(*[True] * 4) == pace(*[None] * 4) == pace(*[False] * 8) == 4
    assert pace(*[True] * 5, False) == pace(*[False] * 8, True) == 1
    assert pace(*[False] * 7) == 1, "the last noes, after which it offers nothing, are not waited for long"
