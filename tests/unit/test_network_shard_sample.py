"""The sample of a round's shards that is read: how much, how often asked, and in spite of whom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from swarmd.network.shard_sample import Found, read_sample


class Space:
    """Keys with so many records each; a search takes `seconds`, or all the time that it is given."""

    def __init__(self, records: int, seconds: float = 0.0) -> None:
        self._records, self._seconds = records, seconds
        self.asked: list[Sequence[str]] = []
        self.steps = 0

    async def gather(self, keys: Sequence[str], deadline: float) -> Found:
        self.asked.append(keys)
        step = self.steps
        await asyncio.sleep(min(self._seconds, deadline))
        self.steps = step + 1
        return {key: {f"{key}-{number}": (b"", 0.0) for number in range(self._records)} for key in keys}


def read(space: Space, keys: int, most: int, seconds: float = 60.0) -> Found:
    names = [str(number) for number in range(keys)]
    return asyncio.run(read_sample(space.gather, names, most, time.monotonic() + seconds))


def test_of_empty_keys_all_are_read_in_few_steps() -> None:
    space = Space(0)
    assert len(read(space, 32, 64)) == 32 and space.steps <= 3
    assert sorted(map(int, sum(map(list, space.asked), []))) == list(range(32)), "no key is asked for twice"


def test_of_full_keys_no_more_are_read_than_it_takes() -> None:
    assert len(read(Space(100), 32, 64)) <= 8
    assert 13 <= len(read(Space(5), 32, 64)) <= 16


def test_the_sample_is_a_random_one() -> None:
    assert len({frozenset(read(Space(100), 32, 64)) for _ in range(20)}) > 1


def test_all_keys_are_read_before_the_deadline_though_each_search_takes_all_its_time() -> None:
    begun = time.monotonic()
    assert len(read(Space(1, seconds=60.0), 32, 64, seconds=0.4)) == 32
    assert time.monotonic() - begun < 5


def test_after_the_deadline_nothing_is_asked_for() -> None:
    space = Space(1)
    assert read(space, 32, 64, seconds=-1.0) == {} and not space.asked
