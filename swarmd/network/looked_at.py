"""Looking at a round's records: in which order, until when, which were looked at, and who has a place."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import zip_longest

from swarmd.network.admission_rules import RawRecord
from swarmd.network.refusals import Reason, Refused
from swarmd.network.reputation import Reputation

_MOST_SEEN = 16_384
"""Records that a round remembers to have looked at. Beyond it they are looked at again, which costs time only."""


@dataclass(frozen=True)
class RoundSeen:
    """seen: digests of what was looked at in this round, refused or not. worthless: of what was not worth it.
    untimely: of what came too early or expires too late, which may be in order when it is read again, but is counted
    once. places: who has a place in the round: a peer id, and whether the record was signed, since a signed one finds
    a place beside a forged one; with it a hash of its groups, so that a peer may publish the same ones anew.
    blocks: how many records of each address block have a place."""

    seen: set[bytes] = field(default_factory=set)
    worthless: set[bytes] = field(default_factory=set)
    untimely: set[bytes] = field(default_factory=set)
    places: dict[tuple[str, bool], int] = field(default_factory=dict)
    blocks: Counter[str] = field(default_factory=Counter)


def digest_of(raw: RawRecord) -> bytes:
    """16 bytes for this very record, with its expiration: anybody can publish a peer's bytes with another one, and
    they are not that record. Its form must be that of a record."""
    expires = raw.expires.hex() if isinstance(raw.expires, float) else ascii(type(raw.expires))
    parts = (raw.key.encode("utf-8", "surrogatepass"), raw.subkey.encode(), expires.encode(), raw.value)
    return blake2b(b"".join(len(part).to_bytes(8, "big") + part for part in parts), digest_size=16).digest()


def remember(digests: set[bytes], digest: bytes) -> None:
    if len(digests) < _MOST_SEEN:
        digests.add(digest)


def in_turns(records: list[RawRecord], reputation: Reputation, rng: random.Random) -> list[RawRecord]:
    """In random order; those of peers whose groups were taken before and those of the others in turns."""
    rng.shuffle(records)
    proven: list[RawRecord] = []
    others: list[RawRecord] = []
    for raw in records:
        (proven if reputation.is_proven(raw.subkey) else others).append(raw)
    return [raw for turn in zip_longest(proven, others) for raw in turn if raw is not None]


def in_time(until: float) -> None:
    """until: of time.monotonic(). Raises Refused."""
    if time.monotonic() >= until:
        raise Refused(Reason.NO_TIME, "the time for looking at records and making tasks anew is over")
