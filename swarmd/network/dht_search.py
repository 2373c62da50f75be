"""Finding the nodes nearest to keys, and the records under them: Kademlia's lookup, with a deadline.

Each key has a list of known nodes in the order of their distance. The nearest ones that were not asked yet are asked,
several at a time and for several keys in one message, until all of the nearest have answered. The nodes of our own
table, which have answered before, come first: neighbours that a liar invents cannot push them out.

Nodes asked, records taken and neighbours believed have limits; what answers cost to look at is spent in turns with
everything else on the loop, and goes on behind a search whose deadline has come.

Who only wants the records need not hear them from all replicas: most of what a round costs is their bytes.
"""

from __future__ import annotations

import asyncio
import time
from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from swarmd.network.dht_calls import DhtCalls, Found, Turns
from swarmd.network.record_store import Genuine, KeyRecords, RecordLimits, StoredRecord

MOST_ASKED = 30
"""Nodes asked for one key at most (hivemind calls it the beam size)."""

_TRUSTED_FIRST = 8
_WIDTH = 10
_AT_ONCE = 8
_KEYS_PER_CALL = 16
_MOST_KNOWN = 40 * MOST_ASKED
# For the records of a key three replicas are asked at once (Kademlia's alpha), and it is done when so many had records
# and the last of them none that was new. One liar cannot end it, nor can those that say that there are no records.
_SOURCES = 3
_CALL_SECONDS = 3.0
# Merged from several replicas; a single one cannot answer more than its half, see KeyRecords.
_MERGED = RecordLimits(bytes_per_key=7 * 2**20)

# The loop itself keeps no task alive. Each ends by the deadline of its call.
_under_way: set[asyncio.Task[None]] = set()


@dataclass
class _Lookup:
    """One key. known: node id -> peer id. trusted: of our own table, asked whatever else turns up.

    sources: nodes that had records, as long as it is only these that are looked for; None: nodes are looked for.
    """

    key: int
    known: dict[int, str]
    trusted: list[int]
    sources: int | None = None
    done: bool = False
    asked: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    # The distances of all that are known and have not failed, in order.
    _living: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._living = sorted(node_id ^ self.key for node_id in self.known)

    def learn(self, node_id: int, peer_id: str) -> None:
        if node_id not in self.known and len(self.known) < _MOST_KNOWN:
            self.known[node_id] = peer_id
            insort(self._living, node_id ^ self.key)

    def fail(self, node_id: int) -> None:
        self.failed.add(node_id)
        self._living.remove(node_id ^ self.key)

    def note_records(self, found: bool, new: bool) -> None:
        """That a node has answered with records or without, and whether some of them were new."""
        if self.sources is not None:
            self.sources += found
            self.done = self.done or (found and not new and self.sources >= _SOURCES)

    def may_ask(self) -> bool:
        waiting = len(self.asked) - len(self.answered) - len(self.failed)
        return not self.done and len(self.asked) < MOST_ASKED and (self.sources is None or waiting < _SOURCES)

    def wants(self, node_id: int) -> bool:
        """Whether the node is one of those to ask, though perhaps not the next."""
        if node_id in self.asked or not self.may_ask():
            return False
        return node_id in self.trusted or node_id ^ self.key in self._living[:_WIDTH]

    def next_node(self) -> int | None:
        if not self.may_ask():
            return None
        for node_id in self.trusted:
            if node_id not in self.asked:
                return node_id
        for distance in self._living[:_WIDTH]:
            if distance ^ self.key not in self.asked:
                return distance ^ self.key
        return None

    def nearest(self, most: int) -> list[tuple[int, str]]:
        ordered = sorted(self.answered, key=lambda node_id: node_id ^ self.key)
        return [(node_id, self.known[node_id]) for node_id in ordered[:most]]


class Search:
    """One walk through the DHT for some keys; `run` it once, then read.

    records_only: it ends with the records of a key, and may not have found all of the nearest nodes.
    """

    def __init__(
        self, calls: DhtCalls, keys: dict[int, str], genuine: Genuine | None = None, *, records_only: bool = False
    ) -> None:
        self._calls = calls
        self._lookups = [self._begin(key, 0 if records_only else None) for key in keys]
        self._merged = {key: KeyRecords(name, _MERGED, genuine) for key, name in keys.items()}

    def _begin(self, key: int, sources: int | None) -> _Lookup:
        contacts = self._calls.contacts
        near = contacts.nearest(key, 20, exclude=self._calls.node_id)
        living = [(node_id, peer_id) for node_id, peer_id in near if not contacts.paused(peer_id)]
        return _Lookup(key, dict(living), [node_id for node_id, _ in living[:_TRUSTED_FIRST]], sources)

    async def run(self, deadline: float) -> bool:
        """Asks until all is known or the deadline (time.monotonic()) has come; False in the second case.

        Calls that are under way then go on for themselves: to connect to a peer for the first time may take longer
        than a search has, and a peer that never answers is to be known as one.
        """
        running: set[asyncio.Task[None]] = set()
        while True:
            while len(running) < _AT_ONCE and (call := self._next_call()) is not None:
                task = asyncio.create_task(self._ask(*call))
                running.add(task)
                _under_way.add(task)
                task.add_done_callback(_under_way.discard)
            left = deadline - time.monotonic()
            if not running or left <= 0:
                return not running
            done, running = await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    def _next_call(self) -> tuple[str, int, list[_Lookup]] | None:
        """The next node to ask and the lookups to ask it for: that of a key it is next for, and others that know it."""
        for lookup in self._lookups:
            node_id = lookup.next_node()
            if node_id is not None:
                break
        else:
            return None
        wanted = [lookup]
        for other in self._lookups:
            if len(wanted) < _KEYS_PER_CALL and other is not lookup and other.wants(node_id):
                wanted.append(other)
        for each in wanted:
            each.asked.add(node_id)
        return lookup.known[node_id], node_id, wanted

    async def _ask(self, peer_id: str, node_id: int, lookups: Sequence[_Lookup]) -> None:
        paused = self._calls.contacts.paused(peer_id)
        found = None if paused else await self._calls.find(peer_id, [each.key for each in lookups], _CALL_SECONDS)
        for lookup in lookups:
            if found is None:
                lookup.fail(node_id)
                continue
            lookup.answered.add(node_id)
            await self._take(lookup, found[lookup.key], peer_id)

    async def _take(self, lookup: _Lookup, found: Found, peer_id: str) -> None:
        for node_id, neighbour in found.neighbours:
            if node_id != self._calls.node_id:
                lookup.learn(node_id, neighbour)
        merged = self._merged[lookup.key]
        known = {subkey: record.value for subkey, record in merged.records.items()}
        new, turns = any(known.get(subkey) != value for subkey, value, _ in found.records), Turns()
        for subkey, value, expires in found.records:
            merged.put(subkey, StoredRecord(value, expires, peer_id, first_hand=subkey == peer_id))
            await turns.pass_on()
        lookup.note_records(bool(found.records), new)

    def nearest(self, key: int, most: int) -> list[tuple[int, str]]:
        """The nodes (node id, peer id) nearest to the key that answered, nearest first."""
        return next(lookup for lookup in self._lookups if lookup.key == key).nearest(most)

    async def add(self, key: int, records: Mapping[str, StoredRecord]) -> None:
        """Takes what lies in a store of our own."""
        turns = Turns()
        for subkey, record in records.items():
            self._merged[key].put(subkey, record)
            await turns.pass_on()

    def records(self, key: int) -> dict[str, StoredRecord]:
        return dict(self._merged[key].records)
