"""The phases of a round: which one is in work, and how long each took.

Everything that watches the node looks here: the status file, the journal's round line, and what is to be said when
the node stops or hangs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Phases:
    """Announces phases to `observer` and adds up their seconds until `take_seconds`.

    observer(phase): called at the beginning of each phase, and with "" at its end.
    """

    def __init__(self, observer: Callable[[str], None]) -> None:
        self._observer = observer
        self._seconds: dict[str, float] = {}
        self.current = ""

    @contextmanager
    def enter(self, phase: str) -> Iterator[None]:
        """Runs the block as `phase`. Phases do not nest: RuntimeError where one is already in work."""
        if self.current:
            raise RuntimeError(f"phase {phase} begins inside phase {self.current}")
        self.current = phase
        self._observer(phase)
        begun = time.monotonic()
        try:
            yield
        finally:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + time.monotonic() - begun
            self.current = ""
            self._observer("")

    def take_seconds(self) -> dict[str, float]:
        """Seconds by phase since the last call, in the order in which the phases first came."""
        seconds, self._seconds = self._seconds, {}
        return seconds
