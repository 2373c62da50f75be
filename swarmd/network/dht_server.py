"""What the node answers to others, in the messages of hivemind's DHT, so that stock nodes and swarmd share one.

The rules are hivemind's (hivemind.dht.protocol, version in hivemind_dht.VERSION). What differs: nothing is decoded
beyond what strict_serializer reads, a bad item is refused and the rest is kept, what one request may ask and bring is
bounded, and work for it is done in turns of some milliseconds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from swarmd.network.dht_calls import (
    CALLS_AT_ONCE,
    MOST_NEIGHBOURS,
    DhtCalls,
    Turns,
    peer_of,
    read_dictionary,
    read_id,
    to_bytes,
)
from swarmd.network.hivemind_dht import P2P, P2PContext, ServicerBase, dht_pb2
from swarmd.network.p2p_daemon import waiting_messages
from swarmd.network.reach import Reach
from swarmd.network.record_store import RecordLimits, RecordStore
from swarmd.network.strict_serializer import (
    DICTIONARY_TAG,
    PLAIN_TAG,
    decode_subkey,
    encode_dictionary,
)

_MOST_KEYS_FOUND = 64
_MOST_ITEMS_STORED = 256
# hivemind's messages end at 4 MiB, and a longer reply is not sent at all: the asker would wait in vain.
_REPLY_BYTES = 15 * 2**18
# Through a relay a connection takes 128 KiB each way (libp2p's limit, see p2p_daemon) and then breaks. A second one is
# made for a call that breaks (dht_calls), so that two replies on the way at the same time do no harm.
_RELAYED_REPLY_BYTES = 40 * 2**10
# Replies that p2pd has not yet taken; beyond, who asks gets neighbours only.
_MOST_WAITING = 16
_CALLS_BACK_AT_ONCE = 8
# Each request in work has a turn of 5 ms in every pass of the loop, and may hold 4 MiB; a pong must not take seconds.
# One node of ours may have as many under way as it makes at once.
_MOST_AT_WORK, _MOST_OF_ONE = 4 * CALLS_AT_ONCE, CALLS_AT_ONCE
_HANDLERS_SECONDS = 5.0


class DhtServer(ServicerBase):
    """The answering half of a DHT node. hivemind finds the rpc_ methods by name, and the messages in annotations.

    namespace: what goes before their names on the wire; None as in hivemind's own DHT.
    """

    def __init__(
        self, calls: DhtCalls, reach: Reach, limits: RecordLimits, store: RecordStore, cache: RecordStore,
        namespace: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._calls, self._reach, self._limits, self._store, self._cache = calls, reach, limits, store, cache
        self._namespace = namespace
        self._calls_back = asyncio.Semaphore(_CALLS_BACK_AT_ONCE)
        self._at_work: Counter[str] = Counter()

    @classmethod
    def _get_handle_name(cls, namespace: str | None, method_name: str) -> str:
        name = f"DHTProtocol.{method_name}"  # whatever this class is called: it is what stock nodes call
        return name if namespace is None else f"{namespace}::{name}"

    async def attach(self, p2p: P2P) -> None:
        """Answers through this libp2p daemon from now on. TimeoutError if it does not take the handlers in 5 s."""
        await asyncio.wait_for(self.add_p2p_handlers(p2p, namespace=self._namespace), _HANDLERS_SECONDS)

    async def rpc_ping(self, request: dht_pb2.PingRequest, context: P2PContext) -> dht_pb2.PingResponse:
        self._count(request, context)
        sender, node_id = str(context.remote_id), read_id(request.peer.node_id)
        available = False
        if node_id is not None and request.validate and not self._calls_back.locked():
            async with self._calls_back:
                available = await self._calls.is_node(sender, node_id)
        elif not request.validate:
            self._calls.met(request.peer, sender)
        response = dht_pb2.PingResponse(peer=self._calls.info, dht_time=time.time(), available=available)
        self._calls.traffic.bytes_out += response.ByteSize()
        return response

    async def rpc_reach(self, request: dht_pb2.PingRequest, context: P2PContext) -> dht_pb2.PingResponse:
        """Not hivemind's: whether the asker can be called; dht_time 0 says that it was not tried."""
        self._count(request, context)
        if request.HasField("peer"):
            self._calls.met(request.peer, str(context.remote_id))
        reached = await self._reach.try_peer(str(context.remote_id))
        return dht_pb2.PingResponse(dht_time=0.0 if reached is None else time.time(), available=bool(reached))

    async def rpc_store(self, request: dht_pb2.StoreRequest, context: P2PContext) -> dht_pb2.StoreResponse:
        self._count(request, context)
        sender = str(context.remote_id)
        self._calls.met(request.peer, sender)
        with self._working_for(sender):
            return await self._stored(request, sender)

    async def _stored(self, request: dht_pb2.StoreRequest, sender: str) -> dht_pb2.StoreResponse:
        response = dht_pb2.StoreResponse(peer=self._calls.info)
        items = zip(
            request.keys, request.subkeys, request.values, request.expiration_time, request.in_cache, strict=False
        )
        turns = Turns()
        for number, (key, tag, value, expires, in_cache) in enumerate(items):
            store = self._cache if in_cache else self._store
            place = read_id(key) if number < _MOST_ITEMS_STORED else None
            response.store_ok.append(
                place is not None and await self._keep(store, place, tag, value, expires, sender, turns)
            )
            await turns.pass_on()
        return response

    async def _keep(
        self, store: RecordStore, key: int, tag: bytes, value: bytes, expires: float, sender: str, turns: Turns
    ) -> bool:
        if tag == PLAIN_TAG or not store.knows(key):
            store.refused += 1
            return False
        if tag == DICTIONARY_TAG:
            kept = []
            for name, (item, until) in (await read_dictionary(value, self._limits.records_per_key, turns)).items():
                kept.append(store.put(key, name, item, until, sender))
                await turns.pass_on()
            return bool(kept) and all(kept)
        subkey = decode_subkey(tag)
        return subkey is not None and store.put(key, subkey, value, expires, sender)

    async def rpc_find(self, request: dht_pb2.FindRequest, context: P2PContext) -> dht_pb2.FindResponse:
        self._count(request, context)
        sender = str(context.remote_id)
        self._calls.met(request.peer, sender)
        with self._working_for(sender):
            return await self._found(request, sender)

    async def _found(self, request: dht_pb2.FindRequest, sender: str) -> dht_pb2.FindResponse:
        asker = read_id(request.peer.node_id)
        keys = request.keys[:_MOST_KEYS_FOUND]
        busy = waiting_messages(self._calls.p2p) > _MOST_WAITING
        response = dht_pb2.FindResponse(peer=self._calls.info)
        room, turns = await self._room(keys, sender), Turns()
        for number, key in enumerate(keys):
            await turns.pass_on()
            place = read_id(key) or 0
            result = response.results.add(type=dht_pb2.NOT_FOUND)
            if not busy and key not in keys[:number]:
                room -= self._fill(result, place, room // (len(keys) - number))
            for node_id, peer_id in self._calls.contacts.nearest(place, MOST_NEIGHBOURS, exclude=asker):
                result.nearest_node_ids.append(to_bytes(node_id))
                result.nearest_peer_ids.append(peer_of(peer_id).to_bytes())
        self._calls.traffic.bytes_out += response.ByteSize()
        return response

    async def _room(self, keys: Sequence[bytes], asker: str) -> int:
        """The most that an answer of these keys may hold of records."""
        # Who is connected how, p2pd has to be asked, and that takes longer than the rest of an answer.
        if not self._reach.relays or sum(map(self._weight, keys)) <= _RELAYED_REPLY_BYTES:
            return _REPLY_BYTES
        return _RELAYED_REPLY_BYTES if await self._reach.through_relay(asker) else _REPLY_BYTES

    def _weight(self, key: bytes) -> int:
        place = read_id(key) or 0
        return sum(r.cost(subkey) for store in (self._cache, self._store) for subkey, r in store.get(place).items())

    def _fill(self, result: dht_pb2.FindResult, place: int, room: int) -> int:
        """Puts the records of a key into the result, of too many a random part; returns what they take."""
        records = {**self._cache.get(place), **self._store.get(place)}
        chosen, taken = [], 0
        for subkey, record in random.sample(list(records.items()), len(records)):
            if taken + record.cost(subkey) <= room:
                chosen.append((subkey, record.value, record.expires))
                taken += record.cost(subkey)
        if chosen:
            result.type = dht_pb2.FOUND_DICTIONARY
            result.value = encode_dictionary(chosen)
            result.expiration_time = max(expires for _, _, expires in chosen)
        return taken

    @contextmanager
    def _working_for(self, sender: str) -> Iterator[None]:
        """RuntimeError, which the asker is told of, where too much is in work already."""
        if self._at_work[sender] >= _MOST_OF_ONE or self._at_work.total() >= _MOST_AT_WORK:
            raise RuntimeError("busy")
        self._at_work[sender] += 1
        try:
            yield
        finally:
            self._at_work[sender] -= 1
            if not self._at_work[sender]:
                del self._at_work[sender]

    def _count(self, request: Any, context: P2PContext) -> None:
        self._calls.traffic.requests += 1
        self._calls.traffic.bytes_in += request.ByteSize()
        self._calls.contacts.heard_from(str(context.remote_id))
