"""Whom the node knows, and whom of them it pings."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swarmd.network import bootstrap
from swarmd.network.bootstrap import Bootstrap
from swarmd.network.contacts import Contacts
from swarmd.network.dht_calls import CALLS_AT_ONCE, DhtCalls, to_bytes
from swarmd.network.dht_server import DhtServer
from swarmd.network.hivemind_dht import PeerID, dht_pb2
from swarmd.network.record_store import RecordLimits, RecordStore
from swarmd.network.remembered_peers import RememberedPeers


def peer(number: int) -> str:
    return PeerID(b"\x12\x20" + number.to_bytes(32, "big")).to_base58()


def test_a_peer_has_two_node_ids_and_the_table_an_end():
    contacts = Contacts(own_node_id=0)
    assert [contacts.met(number, peer(1)) for number in (1, 2, 3, 1)] == [True, True, False, False]
    assert not contacts.met(0, peer(2)) and not contacts.met(1, peer(2))
    for number in range(5000):
        contacts.met(2**159 + number, peer(10 + number))
    assert len(contacts) == 1024
    # The crowd is far away: a node at another distance still finds a place.
    assert contacts.met(2**100, peer(8000)) and len(contacts) == 1024
    assert contacts.nearest(2**100, 1) == [(2**100, peer(8000))]


def test_silent_peers_rest_and_only_unanswered_pings_make_them_forgotten():
    contacts = Contacts(own_node_id=0)
    contacts.met(1, peer(1))
    contacts.heard_from(peer(1))
    for _ in range(5):
        contacts.failed(peer(1), forget=False)
    assert contacts.paused(peer(1)) and 1 in contacts
    contacts.heard_from(peer(1))
    assert not contacts.paused(peer(1)) and contacts.recent(5) == {peer(1)}
    for _ in range(3):
        contacts.failed(peer(1), forget=True)
    assert 1 not in contacts and not contacts.recent(5)


def test_a_peer_may_fail_for_ever():
    contacts = Contacts(own_node_id=0)
    for _ in range(2000):  # 2.0 ** 1024 is no float
        contacts.failed(peer(1), forget=False)
    assert contacts.paused(peer(1))


def test_a_peer_that_no_longer_keeps_records_is_heard_of_but_not_asked():
    contacts = Contacts(own_node_id=0)
    contacts.met(1, peer(1))
    contacts.met(2, peer(2))
    contacts.heard_from(peer(1))
    contacts.only_asks(peer(1))
    contacts.only_asks(peer(3))
    assert contacts.recent(5) == {peer(1)} and contacts.peer_ids() == [peer(2)]
    assert contacts.nearest(1, 5) == [(2, peer(2))]
    assert not contacts.met(1, peer(1)) and 1 in contacts, "and is one again, though no new one, when it says so"


def test_who_takes_back_its_node_ids_gets_no_others_for_them_and_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    contacts, now = Contacts(own_node_id=0), time.monotonic()
    contacts.met(1, peer(1))
    for number in range(2, 12):
        contacts.only_asks(peer(1))
        contacts.met(number, peer(1))
    assert [number in contacts for number in range(1, 12)] == [False, False, *[False] * 9]
    assert not contacts.met(1, peer(2)), "nobody else may have it meanwhile"
    contacts.met(1, peer(1))
    assert 1 in contacts
    contacts.only_asks(peer(1))
    monkeypatch.setattr(time, "monotonic", lambda: now + 700)
    assert contacts.met(1, peer(2))


class Wire:
    """Stands for other nodes: nobody has answered since the beginning, which is long ago, but for those named."""

    def __init__(self, nodes: int, answering: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.peer_id, self.contacts, self.now = peer(0), Contacts(own_node_id=0), 1000.0
        self.p2p: Any = None
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        for number in range(1, nodes + 1):
            self.contacts.met(number, peer(number))
        self.now += 500
        for number in range(1, answering + 1):
            self.contacts.heard_from(peer(number))


def pinging(wire: Any, folder: Path) -> Bootstrap:
    return Bootstrap(wire, (), RememberedPeers(folder))


def test_in_a_small_swarm_everybody_silent_is_pinged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(12, 5, monkeypatch)
    assert set(pinging(wire, tmp_path)._to_ping()) == {peer(number) for number in range(6, 13)}


def test_in_a_large_swarm_no_more_are_pinged_than_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(40, bootstrap._PEERS_ENOUGH - 3, monkeypatch)
    assert len(pinging(wire, tmp_path)._to_ping()) == 3


def test_where_peers_enough_are_heard_one_silent_one_is_pinged_every_few_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire(40, bootstrap._PEERS_ENOUGH, monkeypatch)
    pings = pinging(wire, tmp_path)
    assert len(pings._to_ping()) == 1
    assert not pings._to_ping()
    wire.now += bootstrap._PINGS_SECONDS
    assert len(pings._to_ping()) == 1


def test_who_did_not_answer_is_asked_again_after_its_pause_however_many_others_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire(40, bootstrap._PEERS_ENOUGH, monkeypatch)
    pings = pinging(wire, tmp_path)
    pings._to_ping()
    wire.contacts.failed(peer(30), forget=False)
    assert not pings._to_ping()
    wire.now += 4.5  # its first pause
    assert pings._to_ping() == [peer(30)]
    for _ in range(3):
        wire.contacts.failed(peer(30), forget=True)
    wire.now += 60
    assert peer(30) not in pings._to_ping()


def test_who_was_heard_of_last_is_found_however_long_ago_the_others_were(monkeypatch: pytest.MonkeyPatch) -> None:
    contacts, now = Contacts(own_node_id=0), 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for number in (1, 2, 3, 1, 4):
        now += 10
        contacts.heard_from(peer(number))
    assert contacts.recent(0) == {peer(4)} and contacts.recent(10) == {peer(1), peer(4)}
    assert contacts.recent(20) == {peer(1), peer(3), peer(4)} and len(contacts.recent(30)) == 4


class Connected:
    """p2pd, connected to some: whom it is told to connect to."""

    def __init__(self, *peers: str) -> None:
        self.told: list[str] = []
        self._client, self._peers = self, peers

    async def list_peers(self) -> list[Any]:
        return [SimpleNamespace(peer_id=name, addrs=[]) for name in self._peers]

    async def connect(self, peer_id: Any, addresses: Any) -> None:
        self.told.append(str(peer_id))
        raise OSError


def test_only_who_is_not_connected_is_called_again_once_the_swarm_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire(4, 1, monkeypatch)
    for number in (2, 3):
        wire.contacts.heard_from(peer(number))
    wire.now += 500
    wire.contacts.heard_from(peer(1))
    # 2 is connected, 3 no longer; 4 is connected and has never answered.
    wire.p2p = Connected(peer(1), peer(2), peer(4))
    configured = [f"/ip4/127.0.0.1/tcp/1/p2p/{peer(number)}" for number in range(1, 5)]
    stand_in: Any = wire
    asyncio.run(Bootstrap(stand_in, configured, RememberedPeers(tmp_path))._connect_some())
    assert sorted(wire.p2p.told) == sorted([peer(3), peer(4)])
    # A p2pd that is new is connected to nobody, whoever was heard of a moment ago.
    wire.p2p = Connected()
    asyncio.run(Bootstrap(stand_in, configured, RememberedPeers(tmp_path))._connect_some())
    assert sorted(wire.p2p.told) == sorted(map(peer, range(1, 5)))


class Answering(Wire):
    async def ping(self, peer_id: str) -> bool:
        return True

    def clock_skews(self) -> dict[str, float]:
        return dict.fromkeys(map(peer, range(1, 9)), 0.0)


def test_a_p2pd_that_is_replaced_while_the_old_one_is_waited_for_calls_the_others_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Answering(4, 1, monkeypatch)
    wire.contacts.heard_from(peer(1))
    stand_in: Any = wire
    bootstrap = Bootstrap(stand_in, [f"/ip4/127.0.0.1/tcp/1/p2p/{peer(1)}"], RememberedPeers(tmp_path))

    class Hung(Connected):
        async def connect(self, peer_id: Any, addresses: Any) -> None:
            wire.p2p = Connected()
            bootstrap.hurry()
            raise EOFError

    async def two_steps() -> None:
        wire.p2p = Hung()
        await bootstrap._step()
        await bootstrap._step()

    asyncio.run(two_steps())
    assert wire.p2p.told == [peer(1)]


def test_all_who_are_gone_are_called_anew_at_once_since_each_takes_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = most = 0

    async def disconnect(peer_id: PeerID) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1

    async def silence(peer_id: str) -> bool:
        wire.contacts.failed(peer_id, forget=True)
        return False

    wire: Any = Wire(12, 5, monkeypatch)
    wire.p2p = SimpleNamespace(_client=SimpleNamespace(disconnect=disconnect))
    wire.ping = silence
    asyncio.run(pinging(wire, tmp_path)._ping_silent())
    assert most == 7


def test_who_could_not_be_pinged_since_other_calls_were_under_way_stays_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def not_called(peer_id: str) -> bool:
        return False

    wire: Any = Wire(12, 5, monkeypatch)
    wire.p2p = SimpleNamespace(_client=SimpleNamespace(disconnect=lambda peer_id: pytest.fail("disconnected")))
    wire.ping = not_called
    asyncio.run(pinging(wire, tmp_path)._ping_silent())


def test_a_clock_is_not_measured_by_a_ping_that_had_to_wait_for_other_calls() -> None:
    async def pong(request: Any) -> Any:
        return dht_pb2.PingResponse(peer=dht_pb2.NodeInfo(node_id=to_bytes(7)), dht_time=time.time())

    async def find(request: Any) -> Any:
        await asyncio.sleep(0.5)
        return dht_pb2.FindResponse()

    async def run() -> None:
        node = SimpleNamespace(rpc_ping=pong, rpc_find=find)
        calls = DhtCalls(peer(0), 1, Contacts(own_node_id=0), RecordLimits(), lambda p2p, callee: node)
        calls.p2p = SimpleNamespace()  # type: ignore[assignment]
        finding = dht_pb2.FindRequest()
        under_way = asyncio.gather(
            *(calls.call(peer(number), "rpc_find", finding, 30) for number in range(1, CALLS_AT_ONCE + 1))
        )
        await asyncio.sleep(0)
        assert await calls.ping(peer(50), 30) and not calls.clock_skews()
        await under_way
        assert await calls.ping(peer(50), 30) and set(calls.clock_skews()) == {peer(50)}

    asyncio.run(run())


def test_a_peer_is_not_blamed_for_a_call_that_was_never_sent() -> None:
    async def run() -> None:
        contacts = Contacts(own_node_id=0)
        calls = DhtCalls(peer(0), 1, contacts, RecordLimits(), stub)
        calls.p2p = SimpleNamespace()  # type: ignore[assignment]
        # As many as go out at once, to peers that never answer; the last finds no place.
        answers = [
            calls.call(peer(number), "rpc_find", dht_pb2.FindRequest(), 0.5) for number in range(1, CALLS_AT_ONCE + 1)
        ]
        waiting = calls.call(peer(50), "rpc_find", dht_pb2.FindRequest(), 0.05)
        assert await asyncio.gather(*answers, waiting) == [None] * (CALLS_AT_ONCE + 1)
        assert contacts.paused(peer(1)) and not contacts.paused(peer(50))

    def stub(p2p: Any, callee: PeerID) -> Any:
        return SimpleNamespace(rpc_find=lambda request: asyncio.Event().wait())

    asyncio.run(run())


def test_no_peer_is_blamed_while_p2pd_itself_does_not_answer() -> None:
    async def run() -> None:
        contacts = Contacts(own_node_id=0)
        calls = DhtCalls(peer(0), 1, contacts, RecordLimits(), lambda p2p, callee: silent)
        calls.p2p, calls.p2pd_in_doubt = SimpleNamespace(), True  # type: ignore[assignment]
        assert await calls.call(peer(1), "rpc_find", dht_pb2.FindRequest(), 0.2) is None
        assert not contacts.paused(peer(1))
        calls.p2pd_in_doubt = False
        assert await calls.call(peer(1), "rpc_find", dht_pb2.FindRequest(), 0.2) is None
        assert contacts.paused(peer(1))

    silent = SimpleNamespace(rpc_find=lambda request: asyncio.Event().wait())
    asyncio.run(run())


def test_one_asker_cannot_have_everything_worked_on_at_once_and_many_cannot_have_too_much() -> None:
    calls = DhtCalls(peer(0), 1, Contacts(own_node_id=0), RecordLimits(), lambda p2p, callee: None)
    reach: Any = SimpleNamespace(relays=False)
    server = DhtServer(calls, reach, RecordLimits(), RecordStore(RecordLimits()), RecordStore(RecordLimits()))

    def asked_by(number: int) -> Any:
        return server.rpc_find(dht_pb2.FindRequest(keys=[to_bytes(1)]), SimpleNamespace(remote_id=peer(number)))

    async def run() -> None:
        with ExitStack() as work:
            for number in range(4):
                for _ in range(CALLS_AT_ONCE):
                    work.enter_context(server._working_for(peer(number)))
                with pytest.raises(RuntimeError, match="busy"):
                    await asked_by(number)
                if number < 3:
                    assert len((await asked_by(20)).results) == 1, "another one is answered"
            with pytest.raises(RuntimeError, match="busy"):
                await asked_by(20)
        assert len((await asked_by(0)).results) == 1
        assert not server._at_work

    asyncio.run(run())
