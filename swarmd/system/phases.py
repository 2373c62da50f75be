"""The phases of a round: which one is in work, whether it gets on, and how long each took.

Everything that watches the node looks here: the status file, the journal's round line, the watchdog, and what is to
be said when the node stops or hangs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

START = "start"
"""What the time before the first phase is called where it needs a name: loading, fetching, restoring."""

BETWEEN = "between"
"""What the time between two phases is called there."""


class Phases:
    """Announces phases to `observer` and adds up their seconds until `take_seconds`.

    observer(phase): called at the beginning of each phase, and with "" at its end.

    current: the phase in work, "" between two.
    round: the round in work, None before the first; set by who plays it.
    beats: how often something has got done so far. Who watches compares two readings of it.
    """

    def __init__(self, observer: Callable[[str], None]) -> None:
        self._observer = observer
        self._seconds: dict[str, float] = {}
        self._begun = False
        self._entered = 0
        self.current = ""
        self.round: int | None = None
        self.beats = 0

    def beat(self) -> None:
        """Says that the work gets on: a token sampled, a micro-batch done. Costs less than a tenth of a microsecond.

        For the thread that plays the game; no lock is taken, so that none can be missing when it hangs.
        """
        self.beats += 1

    @property
    def begun(self) -> bool:
        """Whether there has been a phase: the start is over."""
        return self._begun

    @property
    def name(self) -> str:
        """What is in work, between two phases too: a phase, START or BETWEEN."""
        return self.current or (BETWEEN if self._begun else START)

    @contextmanager
    def enter(self, phase: str) -> Iterator[None]:
        """Runs the block as `phase`. Phases do not nest: RuntimeError where one is already in work."""
        if self.current:
            raise RuntimeError(f"phase {phase} begins inside phase {self.current}")
        self.beats += 1
        self._entered += 1
        this = self._entered
        self.current = phase
        begun = time.monotonic()
        try:
            self._observer(phase)
            self._begun = True
            yield
        finally:
            # One that was abandoned before its block began ends when it is collected, perhaps inside another.
            if this == self._entered:
                self._seconds[phase] = self._seconds.get(phase, 0.0) + time.monotonic() - begun
                self.beats += 1
                self.current = ""
                self._observer("")

    def abandon(self) -> None:
        """No phase is in work any more: what a signal handler raised may have come between the announcement of a
        phase and its block, and then nobody has taken it back."""
        self._entered += 1
        if self.current:
            self.current = ""
            self._observer("")

    def take_seconds(self) -> dict[str, float]:
        """Seconds by phase since the last call, in the order in which the phases first came."""
        seconds, self._seconds = self._seconds, {}
        return seconds
