"""Finding the swarm and staying in it, in the background and for ever. Nobody there is a state, not an error."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Iterable

from swarmd.network.dht_calls import DhtCalls
from swarmd.network.hivemind_dht import P2PDaemonError, PeerID
from swarmd.network.p2p_daemon import dialable
from swarmd.network.remembered_peers import MOST_ADDRESSES, KnownPeer, RememberedPeers, parse_address

HEARD_SECONDS = 40.0
"""A peer counts as connected if it was heard of within this time; the silent ones are pinged well before."""

_FIRST_DELAY, _LONGEST_DELAY = 1.0, 60.0
# While some peer answers, nothing is due more often than pings are.
_TICK, _CONNECTED_TICK = 1.0, 2.5
_SILENT_SECONDS = 15.0
_PINGS_AT_ONCE = 16
_CLOCKS_ENOUGH = 8  # for a median that one wrong clock does not move
# Where so many have been heard of lately the swarm is there: to ping everybody in a swarm of hundreds would cost each
# node more than the rounds do. Who is gone shows when a search calls it in vain, and is then pinged until it is
# forgotten; of those that nobody calls one is pinged now and then, and more only until there are enough again.
_PEERS_ENOUGH = 16
_PINGS_SECONDS = 5.0
_CONNECT_SECONDS = 5.0
_CONNECTS_AT_ONCE = 8
_LIST_SECONDS = 2.0
# What is written down of a swarm is soon enough to find it again, and each time costs a disk a flush.
_SAVE_SECONDS, _ENOUGH_SAVE_SECONDS = 30.0, 300.0
# Two halves of a swarm that were cut off from each other each have peers enough: so that they meet again, nodes keep
# calling peers they are not connected to.
_REJOIN_SECONDS = 60.0
_REMEMBERED_AT_ONCE = 8

_log = logging.getLogger("swarmd")


class Bootstrap:
    """configured: multiaddresses with peer ids, of the configuration and of invites."""

    def __init__(self, calls: DhtCalls, configured: Iterable[str], remembered: RememberedPeers) -> None:
        self._calls, self._remembered = calls, remembered
        self._configured: dict[str, list[str]] = {}
        self._hurried = asyncio.Event()
        self.add(configured)
        self._delay = _FIRST_DELAY
        self._next_try = self._next_save = self._next_ping = 0.0
        self._alone: bool | None = None

    def add(self, addresses: Iterable[str]) -> None:
        """More peers to try from now on; what is no address with a peer id is left out, and logged."""
        for text in addresses:
            parsed = parse_address(text)
            if parsed is None:
                _log.warning("swarm.peers: %s is no TCP address with a peer id, and is not used", ascii(text[:200]))
                continue
            peer_id, address = parsed
            listed = self._configured.setdefault(peer_id, [])
            if address not in listed:
                listed.append(address)
        self._configured.pop(self._calls.peer_id, None)
        self.hurry()

    def hurry(self) -> None:
        """Starts over with short pauses: p2pd is new, or more peers are known."""
        self._delay, self._next_try = _FIRST_DELAY, 0.0
        self._hurried.set()

    def connected(self) -> set[str]:
        return self._calls.contacts.recent(HEARD_SECONDS)

    async def run(self) -> None:
        while True:
            self._hurried.clear()
            if self._calls.p2p is not None:
                await self._step()
            tick = _CONNECTED_TICK if self._alone is False else _TICK
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(tick * random.uniform(0.75, 1.25)):
                    await self._hurried.wait()

    async def _step(self) -> None:
        now = time.monotonic()
        await self._ping_silent()
        await self._ask_the_time()
        if not self.connected() and not self._alone:
            self.hurry()
        if now >= self._next_try:
            self._hurried.clear()
            await self._connect_some()
            if self._hurried.is_set():
                _log.debug("p2pd is new, or more peers are known: they are tried at once")
            elif self.connected():
                self._next_try = time.monotonic() + _REJOIN_SECONDS * random.uniform(0.5, 1.0)
                self._delay = _FIRST_DELAY
            else:
                self._next_try = time.monotonic() + self._delay * random.uniform(0.5, 1.0)
                self._delay = min(self._delay * 2, _LONGEST_DELAY)
        self._tell()
        if now >= self._next_save:
            self._next_save = now + _SAVE_SECONDS
            await self.remember()
            lately = time.time() - _SAVE_SECONDS
            if sum(peer.last_good > lately for peer in self._remembered) >= _PEERS_ENOUGH:
                self._next_save = now + _ENOUGH_SAVE_SECONDS

    def _tell(self) -> None:
        """Says when the node has come to be alone, or no longer is."""
        connected = len(self.connected())
        if connected and self._alone is not False:
            answer = "1 peer answers" if connected == 1 else f"{connected} peers answer"
            _log.info("connected to the swarm: %s", answer)
        elif not connected and self._alone is not True:
            _log.info("no peer answers; looking on for others in the background")
        self._alone = not connected

    async def _ping_silent(self) -> None:
        silent = self._to_ping()[:_PINGS_AT_ONCE]
        answers = await asyncio.gather(*(self._calls.ping(peer_id) for peer_id in silent))
        unanswered = [peer_id for peer_id, answered in zip(silent, answers, strict=True) if not answered]
        # Who is not blamed may not have been called: nothing is known of its connection.
        gone = [peer_id for peer_id in unanswered if self._calls.contacts.paused(peer_id)]
        # At once: one that is gone takes ten seconds, in which nobody else is pinged.
        await asyncio.gather(*map(self._renew, gone))

    def _to_ping(self) -> list[str]:
        contacts, now = self._calls.contacts, time.monotonic()
        missing = _PEERS_ENOUGH - len(self.connected())
        if missing > 0:
            return contacts.silent_for(_SILENT_SECONDS)[:missing]
        doubtful = contacts.doubtful()
        if now < self._next_ping:
            return doubtful
        self._next_ping = now + _PINGS_SECONDS
        silent = contacts.silent_for(_SILENT_SECONDS)[:1]
        return [*doubtful, *(peer for peer in silent if peer not in doubtful)]

    async def _ask_the_time(self) -> None:
        """Who is heard of all the time is not silent and would never be pinged, which alone tells its clock."""
        known, contacts = self._calls.clock_skews(), self._calls.contacts
        unknown = [peer for peer in self.connected() if peer not in known and not contacts.paused(peer)]
        if unknown and len(known) < _CLOCKS_ENOUGH:
            await self._calls.ping(random.choice(unknown))

    async def _renew(self, peer_id: str) -> None:
        """p2pd may hold a connection of which only the peer knows that it is gone: closed, it is made anew."""
        p2p = self._calls.p2p
        if p2p is None:
            return
        try:
            async with asyncio.timeout(_LIST_SECONDS):
                await p2p._client.disconnect(PeerID.from_base58(peer_id))
        except (OSError, EOFError, ValueError, P2PDaemonError) as error:
            _log.debug("p2pd did not disconnect %s: %s", peer_id, type(error).__name__)
        known = next((peer for peer in self._remembered if peer.peer_id == peer_id), None)
        if known is not None:
            await self.connect(known)

    async def _connect_some(self) -> None:
        connected = self.connected()
        configured = [KnownPeer(peer_id, tuple(listed)) for peer_id, listed in self._configured.items()]
        remembered = [peer for peer in self._remembered if peer.peer_id not in self._configured]
        if connected:
            remembered = random.sample(remembered, min(len(remembered), _REMEMBERED_AT_ONCE))
        wanted = configured + remembered
        if connected:
            # Heard of is not connected to: p2pd may have been replaced since. Whom it is connected to and who has been
            # heard of is pinged in its turn.
            known = self._calls.contacts.recent(math.inf).intersection(await self.connections())
            wanted = [peer for peer in wanted if peer.peer_id not in known]
        at_once = asyncio.Semaphore(_CONNECTS_AT_ONCE)

        async def try_one(peer: KnownPeer) -> None:
            async with at_once:
                await self.connect(peer)

        await asyncio.gather(*map(try_one, wanted))

    async def connect(self, peer: KnownPeer) -> bool:
        """Whether the peer can be connected to and answers as a DHT node."""
        p2p = self._calls.p2p
        if p2p is None or peer.peer_id == self._calls.peer_id:
            return False
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await p2p._client.connect(PeerID.from_base58(peer.peer_id), [dialable(a) for a in peer.addresses])
        except (OSError, EOFError, ValueError, P2PDaemonError) as error:
            _log.debug("cannot connect to %s: %s", peer.peer_id, ascii(str(error))[:300])
            return False
        if not await self._calls.ping(peer.peer_id):
            return False
        self._remembered.answered(peer.peer_id, peer.addresses)
        return True

    async def connections(self) -> dict[str, tuple[str, ...]]:
        """peer id -> addresses, of all peers that p2pd is connected to now; empty where it does not say in time."""
        p2p = self._calls.p2p
        found: dict[str, tuple[str, ...]] = {}
        if p2p is None:
            return found
        try:
            async with asyncio.timeout(_LIST_SECONDS):
                listed = await p2p.list_peers()
            for peer in listed:
                found[str(peer.peer_id)] = tuple(map(str, peer.addrs[:MOST_ADDRESSES]))
        except (OSError, EOFError, P2PDaemonError) as error:
            _log.debug("p2pd did not list its peers: %s", type(error).__name__)
        return found

    async def remember(self) -> None:
        """Writes down who answers, and where."""
        connections = await self.connections()
        for peer_id in self.connected().intersection(connections):
            self._remembered.answered(peer_id, connections[peer_id])
        # A disk to which a checkpoint is being written lets an fsync wait for seconds.
        await asyncio.to_thread(self._remembered.save)
