"""Any number of hostile records from few: bytes changed, cut, doubled and mixed; other places, owners, expirations."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from swarmd.network.admission_rules import RawRecord

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_INTERESTING = (b"\0", b"\xff", b"\xc1", b"\x7f\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xc7\xff\x40", b"\xff" * 8)
_EXPIRATIONS: Sequence[Any] = (float("nan"), float("inf"), -1.0, 0, 1e300, 10**400, None, "x", True)


def mutations(records: Sequence[RawRecord], seed: int, count: int) -> Iterator[RawRecord]:
    """`count` records, one in ten of them unchanged. All values stay below 100 KB or so."""
    rng = random.Random(seed)
    for _ in range(count):
        raw = rng.choice(records)
        dice = rng.random()
        if dice < 0.1:
            yield raw
        elif dice < 0.75 and isinstance(raw.value, bytes):
            yield replace(raw, value=_damaged(raw.value, rng, records))
        elif dice < 0.85:
            other = rng.choice(records)
            yield replace(raw, subkey=other.subkey, key=rng.choice((raw.key, other.key)))
        elif dice < 0.95:
            yield replace(raw, subkey="Qm" + "".join(rng.choices(_ALPHABET, k=44)))
        elif dice < 0.98:
            yield replace(raw, expires=rng.choice(_EXPIRATIONS))
        else:
            yield replace(raw, round=raw.round + rng.randrange(-3, 4))


def _damaged(value: bytes, rng: random.Random, records: Sequence[RawRecord]) -> bytes:
    damaged = bytearray(value)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(damaged) + 1)
        match rng.randrange(5):
            case 0 if damaged:
                damaged[place % len(damaged)] ^= 1 << rng.randrange(8)
            case 1:
                del damaged[place:]
            case 2:
                damaged[place:place] = rng.choice(_INTERESTING)
            case 3:
                damaged[place : place + 8] = rng.choice(_INTERESTING)
            case _:
                other = rng.choice(records).value
                if isinstance(other, bytes) and len(damaged) < 50_000:
                    damaged[place:] = other[rng.randrange(len(other) + 1) :][:20_000]
    return bytes(damaged)
