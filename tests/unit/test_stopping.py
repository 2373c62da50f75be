"""A request to stop: the round in work gets some time, is then broken off, and only where that leaves no trace."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from swarmd.system.stopping import RoundAbandoned, StopRequest

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
AGES = 30.0  # what should have been interrupted was not


@pytest.fixture(autouse=True)
def _signals_of_the_test_runner() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    for number, handler in before.items():
        signal.signal(number, handler)


told: list[str] = []


def request(interruptible: bool = True, finish_seconds: float = 0.05) -> StopRequest:
    stop = StopRequest(lambda: interruptible, told.append, finish_seconds)
    stop.install()
    return stop


def ask(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def work() -> None:
    end = time.monotonic() + AGES
    while time.monotonic() < end:
        time.sleep(0.001)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted_and_its_name_kept(number: signal.Signals) -> None:
    told.clear()
    stop = request(finish_seconds=3600.0)
    assert not stop.asked
    ask(number)
    ask(signal.SIGINT)
    assert stop.asked
    assert stop.signal_name == number.name
    assert told == [number.name]


def test_who_waits_is_woken_and_afterwards_nobody_waits() -> None:
    stop = request(finish_seconds=3600.0)
    assert stop.wait(0.01) is False
    threading.Timer(0.05, ask).start()
    assert stop.wait(AGES) is True
    assert stop.wait(AGES) is True


def test_work_that_may_be_broken_off_is_after_its_time() -> None:
    request()
    ask()
    with pytest.raises(RoundAbandoned, match="was not finished within 0.05 s"):
        work()


def test_a_library_that_catches_every_exception_does_not_catch_this_one() -> None:
    request()
    ask()
    with pytest.raises(RoundAbandoned):
        try:
            work()
        except Exception:  # what such a library does
            pytest.fail("it was caught")


def test_what_may_not_be_broken_off_is_as_soon_as_it_may() -> None:
    half_a_step = True
    stop = StopRequest(lambda: not half_a_step, told.append, 0.05)
    stop.install()
    ask()
    time.sleep(0.3)  # some tries
    half_a_step = False
    with pytest.raises(RoundAbandoned):
        work()


def test_one_that_gets_lost_comes_again() -> None:
    request()
    ask()
    for _lost in range(2):
        with pytest.raises(RoundAbandoned):
            work()


def test_a_second_signal_gives_no_more_time() -> None:
    request(finish_seconds=20.0)
    ask()
    time.sleep(0.05)
    left = signal.getitimer(signal.ITIMER_REAL)[0]
    ask()
    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= left


def test_after_the_end_nothing_is_broken_off() -> None:
    stop = request()
    ask()
    stop.cancel_timer()
    signal.raise_signal(signal.SIGALRM)  # one that was on its way
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0


def test_a_request_that_comes_at_the_end_does_not_interrupt_it() -> None:
    stop = request()
    stop.cancel_timer()
    ask()
    assert stop.asked
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0
