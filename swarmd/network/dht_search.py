"""Finding the nodes nearest to keys, and the records under them: Kademlia's lookup, with a deadline and limits.

Each key has a list of known nodes in the order of their distance. The nearest ones that were not asked yet are asked,
several at a time and for several keys in one message, until all of the nearest have answered. The nodes of our own
table, which have answered before, come first: neighbours that a liar invents cannot push them out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from swarmd.network.dht_calls import DhtCalls, Found
from swarmd.network.record_store import Genuine, KeyRecords, RecordLimits, StoredRecord

MOST_ASKED = 30
"""Nodes asked for one key at most (hivemind calls it the beam size)."""

_TRUSTED_FIRST = 8
_WIDTH = 10
_AT_ONCE = 8
_KEYS_PER_CALL = 8
_CALL_SECONDS = 3.0
# Merged from several replicas; a single one cannot answer more than its half, see KeyRecords.
_MERGED = RecordLimits(bytes_per_key=7 * 2**20)


@dataclass
class _Lookup:
    """One key. known: node id -> peer id. trusted: of our own table, asked whatever else turns up."""

    key: int
    known: dict[int, str]
    trusted: list[int]
    asked: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)

    def next_node(self) -> int | None:
        if len(self.asked) >= MOST_ASKED:
            return None
        for node_id in self.trusted:
            if node_id not in self.asked:
                return node_id
        living = [node_id for node_id in self.known if node_id not in self.failed]
        for node_id in sorted(living, key=lambda node_id: node_id ^ self.key)[:_WIDTH]:
            if node_id not in self.asked:
                return node_id
        return None

    def nearest(self, most: int) -> list[tuple[int, str]]:
        ordered = sorted(self.answered, key=lambda node_id: node_id ^ self.key)
        return [(node_id, self.known[node_id]) for node_id in ordered[:most]]


class Search:
    """One walk through the DHT for some keys; `run` it once, then read."""

    def __init__(self, calls: DhtCalls, keys: dict[int, str], genuine: Genuine | None = None) -> None:
        self._calls = calls
        self._lookups = [self._begin(key) for key in keys]
        self._merged = {key: KeyRecords(name, _MERGED, genuine) for key, name in keys.items()}

    def _begin(self, key: int) -> _Lookup:
        contacts = self._calls.contacts
        near = contacts.nearest(key, 20, exclude=self._calls.node_id)
        living = [(node_id, peer_id) for node_id, peer_id in near if not contacts.paused(peer_id)]
        return _Lookup(key, dict(living), [node_id for node_id, _ in living[:_TRUSTED_FIRST]])

    async def run(self, deadline: float) -> bool:
        """Asks until all is known or the deadline (time.monotonic()) has come; False in the second case."""
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                while len(running) < _AT_ONCE and (call := self._next_call()) is not None:
                    running.add(asyncio.create_task(self._ask(*call, deadline)))
                left = deadline - time.monotonic()
                if not running or left <= 0:
                    return not running
                done, running = await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in running:
                task.cancel()

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
            if len(wanted) < _KEYS_PER_CALL and other is not lookup and self._wants(other, node_id):
                wanted.append(other)
        for each in wanted:
            each.asked.add(node_id)
        return lookup.known[node_id], node_id, wanted

    @staticmethod
    def _wants(lookup: _Lookup, node_id: int) -> bool:
        if node_id in lookup.asked or len(lookup.asked) >= MOST_ASKED:
            return False
        return node_id in lookup.trusted or node_id in sorted(lookup.known, key=lambda n: n ^ lookup.key)[:_WIDTH]

    async def _ask(self, peer_id: str, node_id: int, lookups: Sequence[_Lookup], deadline: float) -> None:
        timeout = min(_CALL_SECONDS, max(deadline - time.monotonic(), 0.05))
        paused = self._calls.contacts.paused(peer_id)
        found = None if paused else await self._calls.find(peer_id, [each.key for each in lookups], timeout)
        for lookup in lookups:
            if found is None:
                lookup.failed.add(node_id)
                continue
            lookup.answered.add(node_id)
            self._take(lookup, found[lookup.key], peer_id)

    def _take(self, lookup: _Lookup, found: Found, peer_id: str) -> None:
        for node_id, neighbour in found.neighbours:
            if node_id != self._calls.node_id and len(lookup.known) < 40 * MOST_ASKED:
                lookup.known.setdefault(node_id, neighbour)
        merged = self._merged[lookup.key]
        for subkey, value, expires in found.records:
            merged.put(subkey, StoredRecord(value, expires, peer_id, first_hand=subkey == peer_id))

    def nearest(self, key: int, most: int) -> list[tuple[int, str]]:
        """The nodes (node id, peer id) nearest to the key that answered, nearest first."""
        return next(lookup for lookup in self._lookups if lookup.key == key).nearest(most)

    def add(self, key: int, records: Mapping[str, StoredRecord]) -> None:
        """Takes what lies in a store of our own."""
        for subkey, record in records.items():
            self._merged[key].put(subkey, record)

    def records(self, key: int) -> dict[str, StoredRecord]:
        return dict(self._merged[key].records)
