"""The records that the node keeps for others: which may come in, how much of them, and which of two wins.

hivemind keeps what anybody sends: any key, any subkey, any size, until an expiration that the sender chose, and the
later expiration wins, so a stranger overwrites a peer's record or shuts it out for years. Here:

- keys are those that the owner allows, subkeys peer ids, values `bin`, expirations finite and near;
- a key and the whole store have a limit in bytes, a key one in records, and one sender gets half a key at most for
  records that are not its own;
- a record that its own peer brought over an authenticated connection (first hand) is not displaced by what others
  bring under its name, and one with a good signature not by one without;
- a signature is checked once for a record, and not for every rival that somebody cares to send.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from swarmd.network.strict_serializer import is_peer_id, unwrap_value

Genuine = Callable[[str, str, bytes, float], bool]
"""(key, subkey, value, expiration) -> whether the subkey's owner signed it.

Only asked where two records compete, once for each. On the event loop: it takes less than a millisecond.
"""

# What a record costs in a reply beside subkey and value: headers and the expiration.
_OVERHEAD = 24
# Rivals of one sender under one key that are looked at, beside those that won: nodes that hand records on have the
# same ones, but for a peer that published anew. And how often a peer may replace its own.
_RIVALS_OF_OTHERS = 8
_RIVALS_OF_ITS_OWN = 32
_MOST_RIVALLING = 4096


@dataclass(frozen=True)
class RecordLimits:
    """Sizes in bytes, lifetime in seconds. A key's records must fit hivemind's message of 4 MiB together."""

    value_bytes: int = 64 * 1024
    records_per_key: int = 4000
    bytes_per_key: int = 7 * 2**19
    bytes_total: int = 64 * 2**20
    lifetime: float = 900.0


@dataclass(frozen=True)
class StoredRecord:
    """value: as it came, a msgpack `bin`. sender: the peer id that brought it; first hand if that is the subkey.

    signed: whether the subkey's owner signed it; None while nobody had to know.
    """

    value: bytes
    expires: float
    sender: str
    first_hand: bool
    signed: bool | None = None

    def cost(self, subkey: str) -> int:
        return len(self.value) + len(subkey) + _OVERHEAD


def is_well_formed(subkey: str, value: bytes, expires: float, limits: RecordLimits) -> bool:
    """Whether a record may be kept or handed up at all; its content is not looked at."""
    now = time.time()
    return (
        len(value) <= limits.value_bytes + 5
        and math.isfinite(expires)
        and now < expires <= now + limits.lifetime
        and is_peer_id(subkey)
        and unwrap_value(value) is not None
    )


def beats(new: StoredRecord, old: StoredRecord) -> bool:
    """Whether of two records under one subkey the new one is kept: the signed, else the first-hand, else the later.

    Of two with the same expiration the new one, where the peer itself brings and has signed it: a node that starts
    again within a round publishes anew, and its signature alone makes other bytes of the same groups.
    """
    if new.signed != old.signed:
        return bool(new.signed)
    if new.first_hand != old.first_hand:
        return new.first_hand
    if new.expires == old.expires:
        return new.first_hand and bool(new.signed)
    return new.expires > old.expires


class KeyRecords:
    """The records under one key, inside the limits of a key."""

    def __init__(self, key: str, limits: RecordLimits, genuine: Genuine | None) -> None:
        self._key, self._limits, self._genuine = key, limits, genuine
        self.records: dict[str, StoredRecord] = {}
        self.bytes = 0
        self._brought: dict[str, int] = {}
        self._rivals: dict[str, int] = {}

    def put(self, subkey: str, record: StoredRecord) -> bool:
        """Whether the record is kept now; the caller has checked its form."""
        old = self.records.get(subkey)
        if old is not None:
            if (old.value, old.expires) == (record.value, record.expires):
                if record.first_hand and not old.first_hand:
                    # It takes no more room, but from now on its own peer vouches for it.
                    self.drop(subkey)
                    self.records[subkey] = replace(record, signed=old.signed)
                    self.bytes += record.cost(subkey)
                return True
            judged = self._rival(subkey, record, old)
            if judged is None:
                return False
            record = judged
        room = record.cost(subkey) - (old.cost(subkey) if old else 0)
        share = self._brought.get(record.sender, 0) + record.cost(subkey)
        if not record.first_hand and share > self._limits.bytes_per_key // 2:
            return False
        victims = self._victims(subkey, record, room, old is None)
        if victims is None:
            return False
        for victim in victims:
            self.drop(victim)
        if old is not None:
            self.drop(subkey)
        self.records[subkey] = record
        self.bytes += record.cost(subkey)
        if not record.first_hand:
            self._brought[record.sender] = self._brought.get(record.sender, 0) + record.cost(subkey)
        return True

    def _rival(self, subkey: str, new: StoredRecord, old: StoredRecord) -> StoredRecord | None:
        """The new record with the verdict on its signature, if it beats the old one."""
        rivals = self._rivals.get(new.sender, 0)
        if rivals >= (_RIVALS_OF_ITS_OWN if new.first_hand else _RIVALS_OF_OTHERS) and (new.first_hand or old.signed):
            return None
        if self._genuine is not None:
            old = self.records[subkey] = self._judged(subkey, old)
            new = self._judged(subkey, new)
        won = beats(new, old)
        if (new.first_hand or not won) and (rivals or len(self._rivals) < _MOST_RIVALLING):
            self._rivals[new.sender] = rivals + 1
        return new if won else None

    def _judged(self, subkey: str, record: StoredRecord) -> StoredRecord:
        if record.signed is not None or self._genuine is None:
            return record
        value = unwrap_value(record.value) or b""
        return replace(record, signed=self._genuine(self._key, subkey, value, record.expires))

    def _victims(self, subkey: str, new: StoredRecord, room: int, is_new: bool) -> list[str] | None:
        """What has to go so that the record fits; None: nothing may go for it.

        Only a first-hand record displaces others: first the largest that were not brought by their own peers, then the
        largest of all, as long as they are larger than itself.
        """
        room -= self._limits.bytes_per_key - self.bytes
        places = len(self.records) + is_new - self._limits.records_per_key
        if room <= 0 and places <= 0:
            return []
        if not new.first_hand:
            return None
        candidates = [(not r.first_hand, r.cost(s), s) for s, r in self.records.items() if s != subkey]
        victims = []
        for second_hand, cost, victim in sorted(candidates, reverse=True):
            if room <= 0 and places <= 0:
                break
            if not second_hand and cost <= new.cost(subkey):
                return None
            victims.append(victim)
            room, places = room - cost, places - 1
        return victims if room <= 0 and places <= 0 else None

    def drop(self, subkey: str) -> None:
        record = self.records.pop(subkey)
        self.bytes -= record.cost(subkey)
        if not record.first_hand:
            left = self._brought.get(record.sender, 0) - record.cost(subkey)
            if left > 0:
                self._brought[record.sender] = left
            else:
                self._brought.pop(record.sender, None)

    def drop_expired(self, now: float) -> None:
        for subkey in [subkey for subkey, record in self.records.items() if record.expires <= now]:
            self.drop(subkey)


class RecordStore:
    """All records that the node keeps: those under keys that it was told to keep, inside all limits."""

    def __init__(self, limits: RecordLimits, genuine: Genuine | None = None) -> None:
        self._limits, self._genuine = limits, genuine
        self._names: dict[int, str] = {}
        self._keys: dict[int, KeyRecords] = {}
        self.refused = 0

    def allow(self, names: Mapping[int, str]) -> None:
        """From now on only these keys (id -> key) are kept; what lies under others is forgotten."""
        self._names = dict(names)
        self._keys = {key_id: kept for key_id, kept in self._keys.items() if key_id in names}

    def knows(self, key_id: int) -> bool:
        return key_id in self._names

    @property
    def size(self) -> int:
        """Bytes that all records take in replies."""
        return sum(kept.bytes for kept in self._keys.values())

    def put(self, key_id: int, subkey: str, value: bytes, expires: float, sender: str) -> bool:
        """Keeps a record if it may be kept. value: as it came (a msgpack `bin`); sender: who brought it."""
        name = self._names.get(key_id)
        if name is None or not is_well_formed(subkey, value, expires, self._limits):
            self.refused += 1
            return False
        kept = self._keys.get(key_id)
        if kept is None:
            kept = self._keys[key_id] = KeyRecords(name, self._limits, self._genuine)
        record = StoredRecord(value, expires, sender, first_hand=sender == subkey)
        if self.size + record.cost(subkey) > self._limits.bytes_total and not self._make_room(record):
            self.refused += 1
            return False
        stored = kept.put(subkey, record)
        self.refused += not stored
        return stored

    def _make_room(self, record: StoredRecord) -> bool:
        """For a first-hand record, forgets the largest one that others brought under the fullest key."""
        if not record.first_hand:
            return False
        fullest = max(self._keys.values(), key=lambda kept: kept.bytes)
        least = len(record.value)
        brought = [(r.cost(s), s) for s, r in fullest.records.items() if not r.first_hand and r.cost(s) >= least]
        if not brought:
            return False
        fullest.drop(max(brought)[1])
        return True

    def get(self, key_id: int) -> dict[str, StoredRecord]:
        """subkey -> record, those that have not expired; a copy."""
        kept = self._keys.get(key_id)
        if kept is None:
            return {}
        kept.drop_expired(time.time())
        return dict(kept.records)

    def __iter__(self) -> Iterator[int]:
        """The keys (their ids) under which records lie."""
        return iter(list(self._keys))

    def sweep(self) -> None:
        """Forgets what has expired; to be called now and then."""
        for kept in self._keys.values():
            kept.drop_expired(time.time())
