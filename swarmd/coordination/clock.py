"""Rounds by the clock: all nodes that agree on the time agree on the round, and no server is needed."""

from __future__ import annotations

import math
from collections.abc import Callable

from swarmd.coordination.coordinator import Coordinator, StopAsked

# The longest sleep: a clock that is set forward while the node waits is noticed within it.
_SLICE = 1.0
# The shortest: between a clock's tick and its rounding the remaining time may come out as zero.
_TICK = 0.001


class ClockCoordinator(Coordinator):
    """Round n lasts from epoch + n * round_seconds to the beginning of round n + 1.

    epoch, now(): seconds since the same instant (the swarm's agreed time); now() may jump either way.
    wait(seconds): sleeps at most that long and returns True when the node is to stop
    (`threading.Event().wait` does).
    """

    def __init__(
        self, epoch: float, round_seconds: float, now: Callable[[], float], wait: Callable[[float], bool]
    ) -> None:
        if not (math.isfinite(epoch) and 0 < round_seconds < math.inf):
            raise ValueError(f"no clock has epoch {epoch} and rounds of {round_seconds} s")
        self._epoch = epoch
        self._round_seconds = round_seconds
        self._now = now
        self._wait = wait

    def current(self) -> int:
        """The round of this moment, 0 before the epoch."""
        return max(0, self._round_at(self._now()))

    def begin(self, round: int) -> float:
        """When the round begins."""
        return self._epoch + round * self._round_seconds

    def deadline(self, round: int) -> float:
        return self.begin(round + 1)

    def next_round(self, last_done: int | None) -> int:
        """The round of this moment, after the rounds that passed; waits when that one is done already.

        A clock that was set back shows a round that is done: the node waits until the clock has caught up,
        rather than train and publish a round twice.
        """
        earliest = 0 if last_done is None else last_done + 1
        while True:
            now = self._now()
            current = self._round_at(now)
            if current >= earliest:
                return current
            remaining = self.begin(earliest) - now
            if self._wait(min(max(remaining, _TICK), _SLICE)):
                raise StopAsked

    def _round_at(self, now: float) -> int:
        round = math.floor((now - self._epoch) / self._round_seconds)
        # The division rounds: make it agree with begin(), so that no deadline lies in the past.
        if now >= self.begin(round + 1):
            return round + 1
        return round - 1 if now < self.begin(round) else round
