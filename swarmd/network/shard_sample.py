"""Reading a random sample of a round's shards, so that what a round costs does not grow with the swarm."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

Found = Mapping[str, Mapping[str, tuple[bytes, float]]]
"""key -> subkey -> (value, expiration)."""

_KEYS_AT_ONCE = 8
_READ_SECONDS = 10.0


async def read_sample(
    gather: Callable[[Sequence[str], float], Awaitable[Found]], keys: Sequence[str], most: int, deadline: float
) -> Found:
    """Reads keys in random order until they have given `most` records, all are read, or the deadline has come.

    gather: SwarmNode.gather. deadline: of time.monotonic().
    """
    left = random.sample(keys, len(keys))
    found: dict[str, Mapping[str, tuple[bytes, float]]] = {}
    while left and (seconds := deadline - time.monotonic()) > 0 and sum(map(len, found.values())) < most:
        some, left = left[:_KEYS_AT_ONCE], left[_KEYS_AT_ONCE:]
        found.update(await gather(some, min(_READ_SECONDS, seconds)))
    return found
