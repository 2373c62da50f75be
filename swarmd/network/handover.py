"""Giving nodes that join what they should hold: a record outlives the nodes it was first stored on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from swarmd.network.dht_calls import DhtCalls
from swarmd.network.record_store import RecordStore

REPLICAS = 5
"""Nodes that a record is stored on, as in hivemind."""

_AT_ONCE = 2
_MOST_WAITING = 32
_BYTES_PER_KEY = 2**20
_STORE_SECONDS = 5.0


class Handover:
    """Bounded in work: an attacker who invents nodes waits in the same short queue as everybody."""

    def __init__(self, calls: DhtCalls, store: RecordStore) -> None:
        self._calls, self._store = calls, store
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

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
            for key in self._store:
                nearest = [known ^ key for known, _ in calls.contacts.nearest(key, REPLICAS, exclude=node_id)]
                if len(nearest) == REPLICAS and node_id ^ key > nearest[-1]:
                    continue
                responsible = calls.node_id is None or all(calls.node_id ^ key < other for other in nearest)
                chosen, size = {}, 0
                for subkey, record in self._store.get(key).items():
                    cost = record.cost(subkey)
                    if (subkey == calls.peer_id or responsible) and size + cost <= _BYTES_PER_KEY:
                        chosen[subkey] = (record.value, record.expires)
                        size += cost
                if chosen and await calls.store(peer_id, key, chosen, _STORE_SECONDS) is None:
                    return

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
