"""Giving nodes that join what they should hold: a record outlives the nodes it was first stored on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from swarmd.network.dht_calls import DhtCalls
from swarmd.network.record_store import RecordStore, StoredRecord

REPLICAS = 5
"""Nodes that a record is stored on, as in hivemind."""

_AT_ONCE = 2
_MOST_WAITING = 32
_BYTES_PER_KEY = 2**20
_STORE_SECONDS = 5.0
_BYTES_A_MINUTE = 4 * 2**20
# What only own records may use: nobody else hands them on in the first place.
_KEPT_FOR_OWN = 2**20


class Handover:
    """Bounded in work: an attacker who invents nodes waits in the same short queue as everybody, and all of them
    together get 4 MiB a minute, since new names cost nothing and bring an upload each.
    """

    def __init__(self, calls: DhtCalls, store: RecordStore) -> None:
        self._calls, self._store = calls, store
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._allowance, self._counted = float(_BYTES_A_MINUTE), time.monotonic()

    def to_new_node(self, node_id: int, peer_id: str) -> None:
        """Starts the handover in the background; none at all where too many wait."""
        if len(self._tasks) < _MOST_WAITING:
            self._start(self._give(node_id, peer_id))

    async def _give(self, node_id: int, peer_id: str) -> None:
        """Own records for which the node is among the nearest, and all others for which nobody known is nearer than us.

        Kademlia, section 2.5: of all that hold a record only the nearest hands it on.
        """
        calls = self._calls
        async with self._at_once:
            if not await calls.is_node(peer_id, node_id):
                return
            own = calls.peer_id
            for key in sorted(self._store, key=lambda key: own not in self._store.get(key)):
                nearest = [known ^ key for known, _ in calls.contacts.nearest(key, REPLICAS, exclude=node_id)]
                if len(nearest) == REPLICAS and node_id ^ key > nearest[-1]:
                    continue
                responsible = calls.node_id is None or all(calls.node_id ^ key < other for other in nearest)
                kept = self._store.get(key)
                chosen = self._affordable(kept if responsible else {own: kept[own]} if own in kept else {})
                if chosen and await calls.store(peer_id, key, chosen, _STORE_SECONDS) is None:
                    return

    def _affordable(self, records: Mapping[str, StoredRecord]) -> dict[str, tuple[bytes, float]]:
        """As many of a key's records as may be handed on now, the own one first; they count as handed on."""
        now = time.monotonic()
        gained = (now - self._counted) * _BYTES_A_MINUTE / 60
        self._allowance, self._counted = min(self._allowance + gained, _BYTES_A_MINUTE), now
        chosen, size, own = {}, 0, self._calls.peer_id
        for subkey, record in sorted(records.items(), key=lambda item: item[0] != own):
            cost = record.cost(subkey)
            left = self._allowance - (0 if subkey == own else _KEPT_FOR_OWN)
            if cost <= left and size + cost <= _BYTES_PER_KEY:
                chosen[subkey] = (record.value, record.expires)
                size += cost
                self._allowance -= cost
        return chosen

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
