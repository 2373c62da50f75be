"""Rounds of a swarm for a node that has played before: its own count goes on, whatever the swarm's is.

Checkpoints, curves and the journal count the rounds of this node, which never go back. A swarm counts its own, by which
its tasks are drawn and its records found. Whoever has trained alone for a day has thousands of rounds behind him when
he joins a swarm that is in its tenth, and must not wait until that has as many.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from swarmd.coordination.clock import ClockCoordinator
from swarmd.coordination.coordinator import Coordinator


class Continued(Coordinator):
    """The clock's rounds, each with a number of this node's: the swarm's and an offset that lasts as long as the node
    stays in that swarm.

    swarm: tells one count from another (the swarm's id, epoch and length of rounds). remembered(), remember(text): what
    was kept of the last count, None before the first.
    """

    def __init__(
        self, clock: ClockCoordinator, swarm: str, remembered: Callable[[], str | None], remember: Callable[[str], None]
    ) -> None:
        self._clock = clock
        self._swarm = swarm
        self._remembered = remembered
        self._remember = remember
        self._offset = 0

    def resume(self, last_done: int | None) -> None:
        swarm, offset = _read(self._remembered())
        if swarm == self._swarm:
            # Of the same swarm the offset stays: a clock that was set back must not have a round played twice.
            self._offset = offset
            return
        ahead = 0 if last_done is None else last_done + 1 - self._clock.current()
        self._offset = max(0, ahead)
        self._remember(json.dumps([self._swarm, self._offset]))

    def shared(self, round: int) -> int:
        return round - self._offset

    def next_round(self, last_done: int | None) -> int:
        done = None if last_done is None else last_done - self._offset
        return self._clock.next_round(done if done is None or done >= 0 else None) + self._offset

    def deadline(self, round: int) -> float:
        return self._clock.deadline(round - self._offset)


def _read(text: str | None) -> tuple[str, int]:
    """Nothing, where what was kept is damaged."""
    try:
        swarm, offset = json.loads(text or "")
        return (str(swarm), int(offset)) if int(offset) >= 0 else ("", 0)
    except (ValueError, TypeError):
        return "", 0
