"""Whatever bytes lie in the DHT: a record within its limits, or Refused, soon and in little memory."""

from __future__ import annotations

import functools
import random
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.network.dialects import Dialect
from swarmd.network.records import Record
from swarmd.network.refusals import Reason, Refused, shown
from tests.unit.dialect_records import (
    EXPIRES,
    NAMES,
    ROUND,
    BadRecord,
    bad_records,
    bomb,
    dialect,
    group,
    groups,
    identity,
    own_body,
    own_record,
    private,
    read,
    written,
)

MOST_SECONDS = 0.05
MOST_MEMORY = 4 * 2**20
SWARMS = {**{name: dialect(name) for name in NAMES}, "private": private()}
BAD = list(bad_records())
ONE_TO_FOUR = st.integers(1, 4)


def outcome(value: bytes, swarm: Dialect) -> str:
    """What becomes of a value: a reason, or "taken" for a record that is within all limits."""
    try:
        record = read(value, swarm)
    except Refused as refused:
        return refused.reason
    assert within_limits(record, swarm, value)
    return "taken"


def within_limits(record: Record, swarm: Dialect, value: bytes) -> bool:
    limits = swarm.limits
    return (
        (record.peer_id, record.round, record.expires) == (identity().peer_id, ROUND, EXPIRES)
        and record.size == len(value) <= limits.value_bytes
        and len(record.model) <= 64
        and len(record.groups) <= limits.groups
        and all(0 < len(one.completions) <= limits.completions for one in record.groups)
        and all(len(text) <= limits.completion_chars for one in record.groups for text in one.completions)
        and all((one.provenance is None) != (one.question is None) for one in record.groups)
        and all(one.mean_logprobs is None or len(one.mean_logprobs) == len(one.completions) for one in record.groups)
    )


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.id)
def test_a_bad_record_meets_its_rule(case: BadRecord) -> None:
    assert outcome(case.value, SWARMS["genrl-0.1"]) == case.expected
    assert outcome(case.value, SWARMS["genrl-0.3"]) == case.expected
    assert outcome(case.value, SWARMS["private"]) in {Reason.OTHER_SECRET, Reason.TOO_LARGE}


HEAVY = [
    *BAD,
    BadRecord("O-bomb", "60 MB, deflated to 58 KB", Reason.TOO_LARGE, own_record(None, bomb(60_000_000))),
    BadRecord("O-values", "4000 empty maps", Reason.NOT_DECODABLE, own_record(own_body(more=[{}] * 4000))),
    BadRecord("O-zeros", "256 KiB of zeros, deflated", Reason.NOT_DECODABLE, own_record(None, bomb(2**18))),
]


@pytest.mark.parametrize("case", HEAVY, ids=lambda case: case.id)
def test_a_bad_record_costs_little(case: BadRecord) -> None:
    swarm = SWARMS["swarmd" if case.id.startswith("O-") else "genrl-0.1"]
    seconds = []
    for _ in range(3):  # the least of three: a busy machine is no slow reader
        started = time.thread_time()
        outcome(case.value, swarm)
        seconds.append(time.thread_time() - started)
    tracemalloc.start()
    try:
        assert outcome(case.value, swarm) == case.expected
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert min(seconds) < MOST_SECONDS, f"{case.title}: {min(seconds):.3f} s"
    assert peak < MOST_MEMORY, f"{case.title}: {peak} bytes"


@functools.cache
def honest(name: str) -> bytes:
    return written(SWARMS[name], groups(4))


@pytest.mark.parametrize("name", SWARMS)
@settings(max_examples=100, deadline=None)
@given(noise=st.binary(max_size=300), kept=st.integers(0, 64))
def test_arbitrary_bytes_are_refused_or_within_limits(name: str, noise: bytes, kept: int) -> None:
    outcome(noise, SWARMS[name])
    outcome(honest(name)[:kept] + noise, SWARMS[name])


@pytest.mark.parametrize("name", SWARMS)
@settings(max_examples=100, deadline=None)
@given(place=st.floats(0, 1), length=st.sampled_from([0, 1, 2, 8, 100]), seed=st.integers(0, 2**31), count=ONE_TO_FOUR)
def test_changed_records_are_refused_or_within_limits(
    name: str, place: float, length: int, seed: int, count: int
) -> None:
    value, drawn = bytearray(honest(name)), random.Random(seed)
    for _ in range(count):
        start = int(place * len(value))
        value[start : start + length] = drawn.choice([*WORDS, drawn.randbytes(length)])
        place = drawn.random()
    outcome(bytes(value), SWARMS[name])


WORDS = [bytes(7) + bytes([kind]) for kind in range(11)] + [b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\xdf\xff\xff\xff\xff"]


@pytest.mark.parametrize("name", SWARMS)
@settings(max_examples=100, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True))
def test_a_record_that_is_cut_off_is_refused(name: str, place: float) -> None:
    cut = honest(name)[: int(place * len(honest(name)))]
    try:
        record = read(cut, SWARMS[name])
    except Refused:
        return
    # Cut off right behind GenRL's object: the signature is gone, and `signed` says so.
    assert name.startswith("genrl")
    assert not record.signed


@settings(max_examples=100, deadline=None)
@given(
    names=st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), cuts=st.tuples(st.floats(0, 1), st.floats(0, 1))
)
def test_pieces_of_two_records_are_refused_or_within_limits(names: tuple[str, str], cuts: tuple[float, float]) -> None:
    first, second = (honest(name) for name in names)
    value = first[: int(cuts[0] * len(first))] + second[int(cuts[1] * len(second)) :]
    for swarm in SWARMS.values():
        outcome(value, swarm)


@pytest.mark.parametrize("value", [None, "text", 5, [], {}, bytearray(b"a")])
def test_a_value_that_is_no_bytes_is_refused(value: object) -> None:
    for swarm in SWARMS.values():
        assert outcome(value, swarm) == Reason.WRONG_SHAPE  # type: ignore[arg-type]


def test_the_log_shows_a_strangers_text_escaped_and_short() -> None:
    assert shown("\x1b[2J\n‮" + "a" * 100) == r"'\x1b[2J\n\u202e" + "a" * 34 + "'..."
    with pytest.raises(Refused) as refused:
        read(b"\x81\xa1a\x91" + written(SWARMS["genrl-0.3"], [group(1)])[35:], SWARMS["genrl-0.3"])
    assert str(refused.value).isascii()
