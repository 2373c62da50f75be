"""The watchdog: a thread that vouches for the node to the service manager while the phase in work gets on, and that
ends a node which hangs.

It needs nothing that a hung main thread may hold but the interpreter's own lock: no logging, no import, no lock of
ours. Where that lock is held for ever the thread stands still as well, no ping is sent, and WatchdogSec= decides.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Mapping

from swarmd.system.events import event
from swarmd.system.notify import Notifier
from swarmd.system.phases import BETWEEN, START, Phases

_LONGEST_TICK = 1.0
_TICKS_PER_DEADLINE = 8
_PINGS_PER_WATCHDOG = 4
# While the node starts: how often it asks for more time, and for how much; also what a slow machine needs between two.
_EXTEND_EVERY = 5.0
_EXTEND_SECONDS = 60.0
# The last words may not keep the node from its end: the hang may be in the writing of a line.
_LAST_WORDS_SECONDS = 2.0
# A service manager that does not watch (no WatchdogSec=) may not know the request either.
_ANSWER_SECONDS = 5.0


class Watchdog:
    """Watches `phases` against `deadlines`.

    deadlines: seconds without a beat, by phase, with START and BETWEEN (which holds for a phase that has none); may be
    replaced at any time.
    abort(): ends the process with SIGABRT, on which faulthandler prints all stacks.
    """

    def __init__(
        self, phases: Phases, deadlines: Mapping[str, float], notifier: Notifier, abort: Callable[[], None] = os.abort
    ) -> None:
        self.deadlines = deadlines
        self._phases = phases
        self._notifier = notifier
        self._abort = abort
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._beats = -1
        self._silent = 0.0

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """The node has come to its end, nothing is left to watch."""
        self._ended.set()
        self._thread.join(_LONGEST_TICK)

    def _watch(self) -> None:
        said, looked, tick = -math.inf, time.monotonic(), 0.0
        while not self._ended.wait(tick):
            now = time.monotonic()
            # The name first: a phase that begins in between has beaten, and its silence is none.
            phase = self._phases.name
            # A whole process that was stopped (SIGSTOP, a frozen control group) did not hang: count what this thread
            # saw for itself.
            self._count(min(now - looked, 2 * tick))
            looked = now
            deadline = self.deadlines.get(phase, self.deadlines[BETWEEN])
            if self._silent > deadline:
                self._give_up(phase)
                return
            tick, every = self._pace(deadline)
            if now - said >= every:
                said = now
                if self._phases.begun:
                    self._notifier.ping()
                else:
                    self._notifier.extend(_EXTEND_SECONDS)

    def _count(self, seconds: float) -> None:
        beats = self._phases.beats
        self._silent = self._silent + seconds if beats == self._beats else 0.0
        self._beats = beats

    def _pace(self, deadline: float) -> tuple[float, float]:
        """Seconds until the next look, and between two messages."""
        tick = min(_LONGEST_TICK, deadline / _TICKS_PER_DEADLINE)
        if not self._phases.begun:
            return tick, _EXTEND_EVERY
        if self._notifier.watchdog_seconds is None:
            return tick, math.inf
        ping = self._notifier.watchdog_seconds / _PINGS_PER_WATCHDOG
        # Due at the look before the one that would be late.
        return min(tick, ping / 2), ping / 2

    def _give_up(self, phase: str) -> None:
        where = {START: "in the start", BETWEEN: "between two phases"}.get(phase, f"in phase {phase}")
        of_round = "" if self._phases.round is None else f" of round {self._phases.round}"
        told = f"hung {where}{of_round}: {self._silent:.0f} s without progress"
        fields = {"phase": phase, "round": self._phases.round, "seconds": round(self._silent, 1)}
        words = threading.Thread(target=_last_words, args=(told, fields), name="last words", daemon=True)
        try:
            words.start()
            words.join(_LAST_WORDS_SECONDS)
        except RuntimeError:
            pass  # no thread can be made any more; the service manager logs the status that goes with the request
        if self._notifier.connected:
            self._notifier.trigger(told)
            if self._notifier.watchdog_seconds is not None:
                return
            time.sleep(_ANSWER_SECONDS)
        self._abort()


def _last_words(told: str, fields: dict[str, object]) -> None:
    event("hung", f"{told}; all stacks follow", priority=2, **fields)
