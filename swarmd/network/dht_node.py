"""The node in the swarm's DHT: one p2pd, one table of contacts, the records it keeps. All of it on one asyncio loop.

Nothing here raises because of what peers do, and every call to one has a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from swarmd.network.addresses import is_circuit
from swarmd.network.bootstrap import Bootstrap
from swarmd.network.contacts import Contacts
from swarmd.network.dht_calls import DhtCalls, Traffic, key_id
from swarmd.network.dht_search import Search
from swarmd.network.dht_server import DhtServer
from swarmd.network.handover import REPLICAS, Handover
from swarmd.network.hivemind_dht import PeerID, quiet_hivemind
from swarmd.network.p2p_daemon import Daemon
from swarmd.network.p2p_supervisor import Supervisor
from swarmd.network.p2pd_arguments import DaemonSettings
from swarmd.network.reach import Reach
from swarmd.network.record_store import Genuine, RecordLimits, RecordStore
from swarmd.network.remembered_peers import KnownPeer, RememberedPeers, parse_address
from swarmd.network.socket_directory import SocketDirectory
from swarmd.network.strict_serializer import unwrap_value, wrap_value

_CACHE_LIMITS = RecordLimits(bytes_total=16 * 2**20)
_SWEEP_SECONDS = 10.0
_STORE_SECONDS = 3.0
# Of the time for publishing, what may go into finding the nodes nearest to the key.
_SEARCH_SHARE = 0.6

_log = logging.getLogger("swarmd")


@dataclass(frozen=True)
class NodeSettings:
    """state: where peers.json lies. identity: an existing libp2p key file. peers: multiaddresses with peer ids.

    listen, announce: multiaddresses; with nothing in listen the node only calls others, and keeps no records for
    them. namespace: of the swarm; nodes with another one do not hear each other. None: hivemind's own DHT. relay: relay
    for others, and where nobody can call this node be called through those of the peers that do.
    """

    state: Path
    identity: Path
    listen: tuple[str, ...] = ()
    announce: tuple[str, ...] = ()
    relay: bool = False
    peers: tuple[str, ...] = ()
    namespace: str | None = None
    limits: RecordLimits = RecordLimits()


@dataclass(frozen=True)
class PeerSeen:
    """A peer heard of in the last 40 s, or before and p2pd is connected to it. addresses: where it is connected.

    skew_s: seconds that its clock is ahead of ours, None while it has not told.
    """

    peer_id: str
    addresses: tuple[str, ...]
    heard: bool
    skew_s: float | None


class SwarmNode:
    """Made by `start`. Times of day are seconds since 1970, deadlines seconds from now."""

    def __init__(self, settings: NodeSettings, peer_id: str, sockets: SocketDirectory, genuine: Genuine | None) -> None:
        self.peer_id = peer_id
        self._settings, self._sockets, self._genuine = settings, sockets, genuine
        # From the peer id, so that a node comes back at its old place and nobody keeps its old id for nothing.
        place = key_id(f"swarmd node {peer_id}")
        contacts = Contacts(place)
        self._store = RecordStore(settings.limits, genuine)
        self._cache = RecordStore(_CACHE_LIMITS, genuine)
        self._calls = DhtCalls(
            peer_id, place if settings.listen else None, contacts, settings.limits,
            partial(DhtServer.get_stub, namespace=settings.namespace),
        )  # fmt: skip
        named = {parsed[0] for text in settings.peers if (parsed := parse_address(text)) is not None}
        self._reach = Reach(self._calls, () if settings.announce else named)
        self._server = DhtServer(
            self._calls, self._reach, settings.limits, self._store, self._cache, settings.namespace
        )
        self._handover = Handover(self._calls, self._store)
        self._calls.on_new_node = self._handover.to_new_node
        self._bootstrap = Bootstrap(self._calls, settings.peers, RememberedPeers(settings.state))
        daemon = DaemonSettings(
            settings.identity, sockets.path, settings.listen, settings.announce, settings.relay,
            _one_address_each(settings.peers, peer_id),
        )  # fmt: skip
        self._supervisor = Supervisor(
            daemon, self._attach, self._detach, self._doubt, lambda: self._reach.verdict() is False
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._addresses: tuple[str, ...] = ()

    @classmethod
    async def start(cls, settings: NodeSettings, genuine: Genuine | None = None) -> SwarmNode:
        """A node that listens; looking for peers goes on behind it.

        genuine: asked where two records compete for one subkey, see record_store.Genuine; must not raise.
        Raises ConfigurationError (port taken), P2PDaemonError, OSError or TimeoutError where p2pd does not start, and
        ValueError for an identity that is no libp2p RSA key.
        """
        quiet_hivemind()
        peer_id = str(PeerID.from_identity(settings.identity.read_bytes()))
        sockets = SocketDirectory(peer_id)
        node = cls(settings, peer_id, sockets, genuine)
        try:
            await node._supervisor.start()
        # Whatever ends the start, being cancelled too, leaves no directory behind.
        except BaseException:
            sockets.close()
            raise
        node._tasks = [
            asyncio.create_task(node._forever(node._supervisor.run, "the watch over p2pd")),
            asyncio.create_task(node._forever(node._bootstrap.run, "the search for peers")),
            asyncio.create_task(node._forever(node._sweep, "the sweep of old records")),
        ]
        if settings.listen:
            node._tasks.append(asyncio.create_task(node._forever(node._reach.run, "the question who can call us")))
        return node

    async def _attach(self, daemon: Daemon) -> None:
        if self._settings.listen:
            await self._server.attach(daemon)
        self._calls.p2p = daemon
        self._calls.contacts.forget_pauses()
        self._bootstrap.hurry()

    def _detach(self) -> None:
        self._calls.p2p = None

    def _doubt(self, doubtful: bool) -> None:
        self._calls.p2pd_in_doubt = doubtful

    async def _forever(self, work: Any, name: str) -> None:
        while True:
            try:
                await work()
            # A fault of ours must not end what keeps the node connected: it is told, and the work begins anew.
            except Exception:
                _log.exception("%s failed; it goes on", name)
                await asyncio.sleep(1.0)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self._store.sweep()
            self._cache.sweep()

    def allow(self, keys: Iterable[str]) -> None:
        """From now on records are kept for these keys only: those of the rounds from one ago to two ahead."""
        names = {key_id(key): key for key in keys}
        self._store.allow(names)
        self._cache.allow(names)

    async def publish(self, key: str, subkey: str, value: bytes, expires: float, deadline: float) -> bool:
        """Stores a record on the nodes nearest to its key, within `deadline` seconds.

        True if at least one other node took it, or if there is none and it waits here for those to come that ask: also
        where all that are connected listen nowhere, and keep no records. Call `allow` with the key before. ValueError
        for a record that no node would keep, such as one whose time is over.
        """
        place, wrapped, end = key_id(key), wrap_value(value), time.monotonic() + deadline
        if len(value) > self._settings.limits.value_bytes or not 0 < expires - time.time() <= 900:
            left = expires - time.time()
            raise ValueError(f"a record of {len(value)} bytes that expires in {left:.0f} s is not kept")
        self._store.put(place, subkey, wrapped, expires, self.peer_id)
        # Who is asked for a key answers with all that lies under it, which grows with the swarm and is not wanted here.
        # Nothing lies under the number beside it, and the same nodes are the nearest.
        beside = place ^ 1
        search = Search(self._calls, {beside: key})
        await search.run(time.monotonic() + deadline * _SEARCH_SHARE)
        nearest = search.nearest(beside, REPLICAS)
        if not nearest:
            return not self.connected_peers or (self._calls.offered and not len(self._calls.contacts))
        timeout = max(0.1, min(_STORE_SECONDS, end - time.monotonic()))
        stored = await asyncio.gather(
            *(self._calls.store(peer_id, place, {subkey: (wrapped, expires)}, timeout) for _, peer_id in nearest)
        )
        if any(answer == [True] for answer in stored):
            return True
        # A stock node takes no record a second time, and this one was handed over if it was met just now. One is asked
        # and no more: where a flood fills the key each answers with megabytes.
        refusing = [peer_id for (_, peer_id), answer in zip(nearest, stored, strict=True) if answer == [False]]
        timeout = max(0.1, min(_STORE_SECONDS, end - time.monotonic()))
        return bool(refusing) and await self._has(refusing[0], place, subkey, wrapped, timeout)

    async def _has(self, peer_id: str, place: int, subkey: str, value: bytes, timeout: float) -> bool:
        """Whether a peer has this very record; value: as it lies in a store."""
        found = await self._calls.find(peer_id, [place], timeout)
        return found is not None and any(record[:2] == (subkey, value) for record in found[place].records)

    async def gather(self, keys: Sequence[str], deadline: float) -> dict[str, dict[str, tuple[bytes, float]]]:
        """key -> subkey -> (value, expiration): all that was found within `deadline` seconds, of every key asked for.

        The values are the bytes that somebody stored under the peer id in the subkey, of which nothing is checked but
        size and expiration. Not more than 4000 records a key.
        """
        places = {key_id(key): key for key in keys}
        search = Search(self._calls, places, self._genuine, records_only=True)
        for place in places:
            await search.add(place, self._cache.get(place))
            await search.add(place, self._store.get(place))
        if not await search.run(time.monotonic() + deadline):
            _log.debug("the deadline of %.1f s ended a search for %d keys", deadline, len(places))
        return {
            name: {s: (unwrap_value(r.value) or b"", r.expires) for s, r in search.records(place).items()}
            for place, name in places.items()
        }

    async def connect(self, addresses: Iterable[str]) -> int:
        """Tries these multiaddresses with peer ids at once, and from time to time later; how many answered."""
        addresses = list(addresses)
        self._bootstrap.add(addresses)
        parsed = [peer for text in addresses if (peer := parse_address(text)) is not None]
        return sum(await asyncio.gather(*(self._bootstrap.connect(KnownPeer(p, (a,))) for p, a in parsed)))

    async def peers(self) -> list[PeerSeen]:
        """Peers that answer or call, and those of before that p2pd is still connected to."""
        connections, heard = await self._bootstrap.connections(), self._bootstrap.connected()
        skews = self._calls.clock_skews()
        # p2pd is connected to others as well, such as those of a swarm that this node has left.
        before = self._calls.contacts.recent(math.inf).intersection(connections)
        return [PeerSeen(peer, connections.get(peer, ()), peer in heard, skews.get(peer)) for peer in before | heard]

    async def visible_maddrs(self) -> tuple[str, ...]:
        """Where others may reach this node: with its peer id. The last known ones while p2pd does not answer."""
        daemon = self._supervisor.daemon
        if daemon is not None and await daemon.answers():
            self._addresses = tuple(f"{address}/p2p/{self.peer_id}" for address in daemon.addresses)
        return self._addresses

    @property
    def connected_peers(self) -> int:
        """Peers heard of in the last 40 s."""
        return len(self._bootstrap.connected())

    @property
    def daemon_pid(self) -> int | None:
        return None if self._supervisor.daemon is None else self._supervisor.daemon.pid

    @property
    def daemon_restarts(self) -> int:
        return self._supervisor.restarts

    @property
    def problem(self) -> str:
        """Why p2pd is not running, such as a port that is taken; "" while it runs."""
        return self._supervisor.problem

    @property
    def traffic(self) -> Traffic:
        return self._calls.traffic

    @property
    def stored(self) -> Mapping[str, int]:
        """Bytes kept for others, and records refused since the start."""
        return {"bytes": self._store.size, "cache": self._cache.size, "refused": self._store.refused}

    def clock_skew(self) -> float | None:
        """Seconds that the peers' clocks are ahead of ours (median); None while no peer told."""
        return self._calls.clock_skew()

    def reachable(self) -> bool | None:
        """Whether peers can open a connection to this node; None while none tried.

        Where no peer knows how to try that, as in a swarm of stock nodes: whether a pinged one could call back.
        """
        if not self._settings.listen:
            return None
        verdict = self._reach.verdict()
        return self._calls.reachable() if verdict is None else verdict

    async def close(self) -> None:
        """Ends p2pd, and remembers the peers of the last seconds; those before are remembered all the time."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._handover.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._bootstrap.remember(), 3.0)
        await self._supervisor.close()
        self._sockets.close()


def _one_address_each(peers: Iterable[str], own: str) -> tuple[str, ...]:
    """The first address of each peer: of relays that p2pd is told twice it waits for the second as for another one."""
    first: dict[str, str] = {}
    for text in peers:
        parsed = parse_address(text)
        if parsed is not None and parsed[0] != own and not is_circuit(parsed[1]):
            first.setdefault(parsed[0], text)
    return tuple(first.values())
