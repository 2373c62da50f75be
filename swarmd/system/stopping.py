"""Being asked to stop: SIGTERM and SIGINT, and what to do when the round in work takes too long for it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from types import FrameType

from swarmd.system.exits import EXIT_OK
from swarmd.system.reloading import ReloadRequest

# systemd and people give a service some ten seconds; the rest is for the last checkpoint and the clean-up.
FINISH_SECONDS = 5.0
_RETRY_SECONDS = 0.1
_AGAIN_SECONDS = 1.0


class RoundAbandoned(BaseException):
    """Raised in the main thread, wherever it is, when a round was not finished in time after a request to stop.

    Like KeyboardInterrupt no Exception: it must not end in a library's `except Exception`.
    """


def leave_at_once_when_asked(first: Callable[[], None] = lambda: None) -> None:
    """SIGTERM and SIGINT end the process with exit code 0, wherever it is, SIGHUP only where it tells that the
    terminal is gone; main thread only.

    For the imports, which take seconds and hold nothing that could be lost; `StopRequest.install` ends it.
    first: called in the signal handler before the end; it must take no lock that is not the main thread's.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        for again in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(again, signal.SIG_IGN)
        first()
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(2, f"swarmd: stopped: on {signal.Signals(number).name}, before the start was complete\n".encode())
        os._exit(EXIT_OK)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    ReloadRequest.note_early(lambda: leave(signal.SIGHUP, None))


class StopRequest:
    """Notes the first SIGTERM or SIGINT; some seconds later interrupts the main thread, if `interruptible()`.

    interruptible: whether what the main thread does now may be broken off and thrown away; asked again and again
    until it may.
    told(name): called once, in the signal handler, with the name of the signal; it must take no lock.
    asked: whether a stop was asked for.
    """

    def __init__(
        self,
        interruptible: Callable[[], bool],
        told: Callable[[str], None],
        finish_seconds: float = FINISH_SECONDS,
    ) -> None:
        self._interruptible = interruptible
        self._told = told
        self._finish_seconds = finish_seconds
        self.asked = False
        # A pipe wakes the sleeper: an Event's lock, taken in the handler and in what it interrupts, would hang both.
        self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._over = False
        self.signal_name = ""

    def install(self) -> None:
        """Takes over the signals; main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGALRM, self._expire)

    def wait(self, seconds: float) -> bool:
        """Sleeps at most `seconds`; True as soon as a stop is asked for."""
        if not self.asked:
            select.select([self._wake_reader], [], [], seconds)
        return self.asked

    def cancel_timer(self) -> None:
        """No interruption from here on: what follows is the end."""
        self._over = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def ask(self, number: signal.Signals) -> None:
        """As if this signal had come; main thread only."""
        if not self.asked:
            self.signal_name = number.name
            self.asked = True
            os.write(self._wake_writer, b"!")
            if not self._over:
                signal.setitimer(signal.ITIMER_REAL, self._finish_seconds)
            self._told(self.signal_name)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.ask(signal.Signals(number))

    def _expire(self, number: int, frame: FrameType | None) -> None:
        if self._over:
            return
        if self._interruptible():
            # Once more if this one gets lost: Python drops what is raised inside a finalizer or a library's callback.
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
            raise RoundAbandoned(f"what was in work was not finished within {self._finish_seconds:g} s")
        signal.setitimer(signal.ITIMER_REAL, _RETRY_SECONDS)
