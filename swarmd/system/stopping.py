"""Being asked to stop: SIGTERM and SIGINT, and what to do when the round in work takes too long for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

# systemd and people give a service some ten seconds; the rest is for the last checkpoint and the clean-up.
FINISH_SECONDS = 5.0
_RETRY_SECONDS = 0.1


class RoundAbandoned(Exception):
    """Raised in the main thread, wherever it is, when a round was not finished in time after a request to stop."""


class StopRequest:
    """Notes the first SIGTERM or SIGINT; some seconds later interrupts the main thread, if `interruptible()`.

    interruptible: whether what the main thread does now may be broken off and thrown away; asked again and again
    until it may.
    """

    def __init__(self, interruptible: Callable[[], bool], finish_seconds: float = FINISH_SECONDS) -> None:
        self._interruptible = interruptible
        self._finish_seconds = finish_seconds
        self._asked = threading.Event()
        self.signal_name = ""

    def install(self) -> None:
        """Takes over the signals; main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGALRM, self._expire)

    @property
    def asked(self) -> bool:
        return self._asked.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleeps at most `seconds`; True as soon as a stop is asked for."""
        return self._asked.wait(seconds)

    def cancel_timer(self) -> None:
        """No interruption from here on: what follows is the end."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self._asked.is_set():
            self.signal_name = signal.Signals(number).name
            self._asked.set()
            signal.setitimer(signal.ITIMER_REAL, self._finish_seconds)

    def _expire(self, number: int, frame: FrameType | None) -> None:
        if self._interruptible():
            raise RoundAbandoned(f"the round was not finished within {self._finish_seconds:g} s")
        signal.setitimer(signal.ITIMER_REAL, _RETRY_SECONDS)
