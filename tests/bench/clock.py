"""Watches calls from outside: how long each took, how many there were, and what they raised."""

from __future__ import annotations

import time
import traceback
from collections import Counter, defaultdict
from typing import Any


class Clock:
    """Seconds by phase, where a phase inside another counts for itself alone.

    Attributes:
        seconds: by phase, since the last `take`.
        calls: by phase, since the beginning.
        failures: the traceback of every exception that left a watched call: GenRL's loop drops them.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self.failures: list[str] = []
        self._inner = [0.0]  # for each watched call in work, seconds spent in watched calls inside it
        self._told: BaseException | None = None

    def watch(self, owner: Any, method: str, phase: str) -> None:
        """Puts the clock around a method of this object."""
        called = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            self._inner.append(0.0)
            try:
                return called(*args, **kwargs)
            except BaseException as error:
                # Also KeyboardInterrupt: GenRL's loop answers that one, too, by going on.
                self.failed(error)
                raise
            finally:
                spent = time.perf_counter() - begun
                self.seconds[phase] += spent - self._inner.pop()
                self.calls[phase] += 1
                self._inner[-1] += spent

        setattr(owner, method, timed)

    def failed(self, error: BaseException) -> None:
        """Notes an exception, once however many watched calls it passes."""
        if error is not self._told:
            self._told = error
            self.failures.append("".join(traceback.format_exception(error)))

    def take(self) -> dict[str, float]:
        """Seconds by phase since the last call."""
        seconds, self.seconds = dict(self.seconds), defaultdict(float)
        return seconds
