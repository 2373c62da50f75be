"""Calls to other DHT nodes, in hivemind's messages, and what is learnt from them: who is there, how their clocks run.

What comes back is a stranger's: counted, cut to size, its items looked at one by one. No call raises for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgpack

from swarmd.network.contacts import Contacts
from swarmd.network.hivemind_dht import P2P, P2PDaemonError, P2PHandlerError, PeerID, dht_pb2
from swarmd.network.record_store import RecordLimits, is_well_formed
from swarmd.network.strict_serializer import decode_dictionary, encode_subkey, is_peer_id

MOST_NEIGHBOURS = 20
"""Nodes named in an answer for one key, as in hivemind."""

CALLS_AT_ONCE = 32
"""Calls that a node of ours has under way; more wait."""

_ID_BYTES = 20
_PING_SECONDS = 3.0
_AGAIN_SECONDS = 0.1
_CALLS_BACK = 8
_ASK_BACK_SHARE = 1 / 8
_MOST_PEERS_MEASURED = 64
_TURN_SECONDS = 0.005

_log = logging.getLogger("swarmd")


def key_id(key: str) -> int:
    """The place of a key in the DHT, as hivemind makes it: SHA-1 of its msgpack form."""
    return int.from_bytes(hashlib.sha1(msgpack.packb(key, use_bin_type=True)).digest(), "big")


def to_bytes(number: int) -> bytes:
    return number.to_bytes(_ID_BYTES, "big")


def read_id(raw: bytes) -> int | None:
    """A node id or a key as it came; None where it is none (a node that only asks sends nothing)."""
    return int.from_bytes(raw, "big") if len(raw) == _ID_BYTES else None


@lru_cache(maxsize=4096)
def peer_of(peer_id: str) -> PeerID:
    """hivemind's form of a peer id. Base58 takes it a tenth of a millisecond, and an answer holds hundreds of them."""
    return PeerID.from_base58(peer_id)


@lru_cache(maxsize=4096)
def base58_of(raw: bytes) -> str:
    """A peer id that came as bytes; see `peer_of`."""
    return str(PeerID(raw).to_base58())


class Turns:
    """Work for a stranger, in turns: whoever has much of it does not keep everybody else waiting."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    async def pass_on(self) -> None:
        """Lets the loop's other tasks go first, if this one has had it for some milliseconds; to be called often."""
        if time.monotonic() - self._since > _TURN_SECONDS:
            await asyncio.sleep(0)
            self._since = time.monotonic()


@dataclass
class Traffic:
    """Bytes of DHT messages since the start, and requests that came."""

    bytes_in: int = 0
    bytes_out: int = 0
    requests: int = 0


@dataclass
class Found:
    """What a node answered for one key: well formed records (value as it lay there), and nodes nearer to the key."""

    records: list[tuple[str, bytes, float]] = field(default_factory=list)
    neighbours: list[tuple[int, str]] = field(default_factory=list)


async def read_dictionary(raw: bytes, most_items: int, turns: Turns) -> dict[str, tuple[bytes, float]]:
    """subkey -> value, expiration of a dictionary as it came (see decode_dictionary).

    Each subkey is in hivemind's dictionaries once; a stranger may repeat one as often as it finds room.
    """
    listed = {}
    for subkey, value, expires in decode_dictionary(raw, most_items):
        listed[subkey] = value, expires
        await turns.pass_on()
    return listed


class DhtCalls:
    """The asking half of a DHT node.

    node_id None: a node that only asks, since nobody could connect to it. stub: of hivemind, for a peer.
    p2pd_in_doubt: whether p2pd itself does not answer at the moment, which is no peer's failure.
    """

    def __init__(
        self, peer_id: str, node_id: int | None, contacts: Contacts, limits: RecordLimits,
        stub: Callable[[P2P, PeerID], Any],
    ) -> None:  # fmt: skip
        self.peer_id, self.node_id, self.contacts = peer_id, node_id, contacts
        self.traffic = Traffic()
        self.p2p: P2P | None = None
        self.p2pd_in_doubt = False
        self.on_new_node: Callable[[int, str], None] = lambda node_id, peer_id: None
        self.info = dht_pb2.NodeInfo()
        self.offer(True)
        self._limits, self._stub = limits, stub
        self._at_once = asyncio.Semaphore(CALLS_AT_ONCE)
        self._skews: dict[str, float] = {}
        self._called_back: deque[bool] = deque(maxlen=_CALLS_BACK)

    def offer(self, offered: bool) -> None:
        """Whether others are told that this node keeps records and may be asked for them."""
        self.info = dht_pb2.NodeInfo(node_id=to_bytes(self.node_id) if offered and self.node_id is not None else b"")

    @property
    def offered(self) -> bool:
        return bool(self.info.node_id)

    async def call(self, peer_id: str, method: str, request: Any, timeout: float) -> Any:
        """The peer's response, or None: it did not answer in time, refused, or nothing is connected.

        timeout: seconds, those included in which it waits for other calls of ours.
        """
        p2p, sent = self.p2p, math.inf
        if p2p is None:
            return None
        try:
            async with asyncio.timeout(timeout), self._at_once:
                sent = time.monotonic()
                response = await self._send(p2p, peer_id, method, request)
        except P2PHandlerError as error:
            # The peer is there; it could not do what it was asked.
            _log.debug("peer %s failed in %s: %s", peer_id, method, ascii(str(error))[:200])
            self.contacts.heard_from(peer_id)
            return None
        # Whatever a stranger answers, and whatever hivemind makes of it, is that peer's failure and nobody else's.
        except Exception as error:
            _log.debug("peer %s did not answer %s: %s", peer_id, method, type(error).__name__)
            # But where our own calls took most of its time, or p2pd had none, it had none to fail in.
            in_vain = not isinstance(error, TimeoutError) or time.monotonic() - sent > timeout / 2
            if in_vain and self.p2p is p2p and not self.p2pd_in_doubt:
                self.contacts.failed(peer_id, forget=method == "rpc_ping")
            return None
        self.traffic.bytes_in += response.ByteSize()
        self.contacts.heard_from(peer_id)
        self.met(response.peer, peer_id)
        return response

    async def _send(self, p2p: P2P, peer_id: str, method: str, request: Any) -> Any:
        stub = self._stub(p2p, peer_of(peer_id))
        self.traffic.bytes_out += request.ByteSize()
        try:
            return await getattr(stub, method)(request)
        except P2PDaemonError as error:
            # The connection was gone, which p2pd notices by trying; the second time it makes a new one.
            _log.debug("peer %s: %s; once more", peer_id, ascii(str(error))[:200])
            await asyncio.sleep(_AGAIN_SECONDS)
            return await getattr(stub, method)(request)

    def met(self, peer: dht_pb2.NodeInfo, peer_id: str) -> None:
        """Notes a node that answered or called, or that it does not keep records (any more)."""
        node_id = read_id(peer.node_id)
        if node_id is None:
            self.contacts.only_asks(peer_id)
        elif self.contacts.met(node_id, peer_id):
            self.on_new_node(node_id, peer_id)

    async def ping(self, peer_id: str, timeout: float = _PING_SECONDS) -> bool:
        """Whether the peer answers; notes its clock, and at first and now and then asks it to call back."""
        # It costs both sides a second call, and says less than reach.py finds out where the peers know that.
        untold = len(self._called_back) < _CALLS_BACK or random.random() < _ASK_BACK_SHARE
        request = dht_pb2.PingRequest(peer=self.info, validate=self.offered and untold)
        # The peer answers late by as long as the question waits here for other calls of ours.
        at_once, asked = not self._at_once.locked(), time.time()
        response = await self.call(peer_id, "rpc_ping", request, timeout)
        if response is None:
            return False
        if at_once and 0 < response.dht_time < 2**40:
            self._skews.pop(peer_id, None)
            # The peer's clock at the middle of the exchange, as in NTP (RFC 5905): half the round trip is the error.
            self._skews[peer_id] = response.dht_time - (asked + time.time()) / 2
            if len(self._skews) > _MOST_PEERS_MEASURED:
                del self._skews[next(iter(self._skews))]
        if request.validate:
            self._called_back.append(response.available)
        return True

    async def is_node(self, peer_id: str, node_id: int) -> bool:
        """Whether the peer answers a call of our own as the node it says it is."""
        response = await self.call(peer_id, "rpc_ping", dht_pb2.PingRequest(peer=self.info), _PING_SECONDS)
        return response is not None and response.peer.node_id == to_bytes(node_id)

    async def could_connect(self, peer_id: str, timeout: float) -> bool | None:
        """Whether the peer could open a new connection to this node (see reach.py); None where it did not try."""
        p2p = self.p2p
        if p2p is None:
            return None
        try:
            async with asyncio.timeout(timeout):
                response = await self._stub(p2p, peer_of(peer_id)).rpc_reach(dht_pb2.PingRequest(peer=self.info))
        # Apart from `call`: stock nodes do not have the method, and that is not their failure.
        except Exception as error:
            _log.debug("peer %s did not try to connect here: %s", peer_id, type(error).__name__)
            return None
        return bool(response.available) if response.dht_time else None

    async def store(
        self, peer_id: str, key: int, records: Mapping[str, tuple[bytes, float]], timeout: float
    ) -> list[bool] | None:
        """Hands records (subkey -> value as it lies in a store, expiration) of one key to a peer.

        Returns which it kept; None without an answer.
        """
        count = len(records)
        request = dht_pb2.StoreRequest(
            keys=[to_bytes(key)] * count,
            subkeys=[encode_subkey(subkey) for subkey in records],
            values=[value for value, _ in records.values()],
            expiration_time=[expires for _, expires in records.values()],
            in_cache=[False] * count,
            peer=self.info,
        )
        response = await self.call(peer_id, "rpc_store", request, timeout)
        if response is None or len(response.store_ok) != count:
            return None
        return list(response.store_ok)

    async def find(self, peer_id: str, keys: Sequence[int], timeout: float) -> dict[int, Found] | None:
        """What the peer knows of each key; None without an answer that fits the question."""
        request = dht_pb2.FindRequest(keys=[to_bytes(key) for key in keys], peer=self.info)
        response = await self.call(peer_id, "rpc_find", request, timeout)
        if response is None or len(response.results) != len(keys):
            return None
        found, turns = {}, Turns()
        for key, result in zip(keys, response.results, strict=True):
            records = []
            if result.type == dht_pb2.FOUND_DICTIONARY:
                # A store and a cache of theirs, each full.
                listed = await read_dictionary(result.value, 2 * self._limits.records_per_key, turns)
                for subkey, (value, expires) in listed.items():
                    await turns.pass_on()
                    if is_well_formed(subkey, value, expires, self._limits):
                        records.append((subkey, value, expires))
            await turns.pass_on()
            found[key] = Found(records, self._neighbours(result))
        return found

    def _neighbours(self, result: dht_pb2.FindResult) -> list[tuple[int, str]]:
        named = zip(result.nearest_node_ids[:MOST_NEIGHBOURS], result.nearest_peer_ids, strict=False)
        neighbours = []
        for raw_node, raw_peer in named:
            node_id = read_id(raw_node)
            if node_id is None or not 32 <= len(raw_peer) <= 64:
                continue
            peer_id = base58_of(raw_peer)
            if peer_id != self.peer_id and is_peer_id(peer_id):
                neighbours.append((node_id, peer_id))
        return neighbours

    def clock_skews(self) -> Mapping[str, float]:
        """By peer: seconds that its clock is ahead of ours; of the 64 that told last."""
        return self._skews

    def clock_skew(self) -> float | None:
        """Seconds that the others' clocks are ahead of ours: the median over peers; None while nobody told."""
        return statistics.median(self._skews.values()) if self._skews else None

    def reachable(self) -> bool | None:
        """Whether one of the last pinged peers could call us, over whatever connection; None while nobody tried."""
        return any(self._called_back) if self._called_back else None
