"""Rounds never repeat and never go back, whatever the clock does."""

import math
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.coordination.clock import ClockCoordinator
from swarmd.coordination.coordinator import StopAsked
from swarmd.coordination.solo import SoloCoordinator


class Clock:
    """A clock that stands still but while somebody sleeps; jumps: what to add at the nth sleep."""

    def __init__(self, now: float, jumps: dict[int, float] | None = None) -> None:
        self.time = now
        self.sleeps: list[float] = []
        self._jumps = jumps or {}

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> bool:
        self.time += seconds + self._jumps.get(len(self.sleeps), 0.0)
        self.sleeps.append(seconds)
        return False


def on(clock: Clock, epoch: float = 1000.0, round_seconds: float = 60.0) -> ClockCoordinator:
    return ClockCoordinator(epoch, round_seconds, clock.now, clock.sleep)


def test_alone_the_next_round_follows_at_once() -> None:
    solo = SoloCoordinator()
    assert solo.next_round(None) == 0
    assert solo.next_round(0) == 1
    assert solo.next_round(41) == 42
    assert solo.deadline(41) == math.inf


def test_the_round_of_this_moment_begins_at_once() -> None:
    clock = Clock(1000 + 5 * 60 + 59)
    assert on(clock).next_round(None) == 5
    assert on(clock).next_round(4) == 5
    assert clock.sleeps == []


def test_a_finished_round_is_not_repeated() -> None:
    clock = Clock(1000 + 5 * 60 + 10)
    assert on(clock).next_round(5) == 6
    assert clock.time == pytest.approx(1000 + 6 * 60, abs=0.01)


def test_rounds_that_passed_are_skipped() -> None:
    assert on(Clock(1000 + 90 * 60)).next_round(5) == 90


def test_before_the_epoch_the_first_round_is_awaited() -> None:
    clock = Clock(970)
    assert on(clock).next_round(None) == 0
    assert clock.time == pytest.approx(1000, abs=0.01)


def test_a_clock_that_jumps_back_is_waited_for() -> None:
    clock = Clock(1000 + 10 * 60, jumps={3: -300.0})
    assert on(clock).next_round(10) == 11
    assert clock.time >= 1000 + 11 * 60


def test_a_clock_that_jumps_forward_is_noticed_at_once() -> None:
    clock = Clock(1000, jumps={2: 3600.0})
    assert on(clock, round_seconds=600.0).next_round(0) == 6
    assert len(clock.sleeps) == 3


def test_the_deadline_is_the_beginning_of_the_next_round() -> None:
    coordinator = on(Clock(0))
    assert coordinator.deadline(3) == coordinator.begin(4) == 1240.0


@pytest.mark.parametrize(
    ("epoch", "seconds", "now"),
    [(1000.0, 26.7, 16551528.999999998), (0.0, 89.4, 51135995.4), (1.7e9, 0.1, 1.7e9 + 123456 * 0.1)],
)
def test_where_the_division_rounds_the_moment_still_lies_in_its_round(
    epoch: float, seconds: float, now: float
) -> None:
    coordinator = on(Clock(now), epoch, seconds)
    round = coordinator.next_round(None)
    assert coordinator.begin(round) <= now < coordinator.deadline(round)


def test_asked_to_stop_it_stops_waiting() -> None:
    stop = threading.Event()
    coordinator = ClockCoordinator(time.time() + 3600, 60.0, time.time, stop.wait)
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(StopAsked):
        coordinator.next_round(None)


def test_two_nodes_on_one_clock_agree() -> None:
    epoch = time.time() - 100
    nodes = [ClockCoordinator(epoch, 0.05, time.time, threading.Event().wait) for _ in range(2)]
    seen: list[list[int]] = [[], []]

    def run(node: int) -> None:
        done = None
        for _ in range(5):
            done = nodes[node].next_round(done)
            assert nodes[node].deadline(done) > time.time() - 5
            seen[node].append(done)

    threads = [threading.Thread(target=run, args=(node,)) for node in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rounds in seen:
        assert len(rounds) == 5
        assert all(a < b for a, b in zip(rounds, rounds[1:], strict=False))
        assert all(1999 <= r <= 2000 + 20 * 60 for r in rounds)


@pytest.mark.parametrize(
    ("epoch", "seconds"), [(0.0, 0.0), (0.0, -1.0), (math.nan, 1.0), (0.0, math.inf), (0.0, math.nan)]
)
def test_a_clock_that_cannot_be_is_refused(epoch: float, seconds: float) -> None:
    with pytest.raises(ValueError, match="no clock has epoch"):
        ClockCoordinator(epoch, seconds, time.time, threading.Event().wait)


@given(
    epoch=st.floats(0, 2e9),
    seconds=st.floats(0.1, 86_400),
    ahead=st.floats(-100, 1e6),
    behind=st.one_of(st.none(), st.integers(-5, 5)),
    jumps=st.dictionaries(st.integers(0, 20), st.floats(-50, 50), max_size=5),
)
def test_every_round_is_later_than_the_last_and_not_over(
    epoch: float, seconds: float, ahead: float, behind: int | None, jumps: dict[int, float]
) -> None:
    clock = Clock(epoch + min(ahead, 1000 * seconds), jumps)
    current = max(0, math.floor((clock.time - epoch) / seconds))
    last_done = None if behind is None else min(current, max(0, current + behind))

    def sleep_long(pause: float) -> bool:
        return clock.sleep(max(pause, seconds / 8))

    coordinator = ClockCoordinator(epoch, seconds, clock.now, sleep_long)
    round = coordinator.next_round(last_done)
    assert round >= 0
    assert last_done is None or round > last_done
    assert coordinator.begin(round) <= clock.time < coordinator.deadline(round)
