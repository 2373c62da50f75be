"""Reading a random sample of a round's shards, so that what it costs does not grow with the swarm."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

Found = Mapping[str, Mapping[str, tuple[bytes, float]]]
"""key -> subkey -> (value, expiration)."""

_KEYS_AT_ONCE = 8
# Of the records wanted, one key at first for so many: four for the default of 64.
_FIRST_SHARE = 16
_GROWTH = 4
_READ_SECONDS = 10.0


async def read_sample(
    gather: Callable[[Sequence[str], float], Awaitable[Found]], keys: Sequence[str], most: int, deadline: float
) -> Found:
    """Reads keys in random order until they have given `most` records, all are read, or the deadline has come.

    The first few show how full the keys are; then as many as it takes are read at once, since one after the other
    they would cost a round trip each, of which there is not time for many where it takes 200 ms.

    gather: called several times at once with keys and seconds; what it returns should be worth reading, since all of
    it counts: names that anybody can invent would take the place of the others. deadline: of time.monotonic().
    """
    left = random.sample(keys, len(keys))
    found: dict[str, Mapping[str, tuple[bytes, float]]] = {}
    records, wave = 0, max(1, most // _FIRST_SHARE)
    while left and records < most and (seconds := deadline - time.monotonic()) > 0:
        some, left = left[:wave], left[wave:]
        # A peer that is gone holds up each search until its end: the others' keys are to be read before the deadline.
        patience = min(_READ_SECONDS, seconds / 2 if left else seconds)
        for part in await asyncio.gather(
            *(gather(some[start : start + _KEYS_AT_ONCE], patience) for start in range(0, len(some), _KEYS_AT_ONCE))
        ):
            found.update(part)
        records = sum(map(len, found.values()))
        needed = math.ceil((most - records) * len(found) / records) if records else len(left)
        wave = max(1, min(needed, _GROWTH * wave))
    return found
