"""What the game asks of every coordinator."""

from __future__ import annotations

from abc import ABC, abstractmethod


class StopAsked(Exception):
    """The node was asked to stop while it waited for a round."""


class Coordinator(ABC):
    """Says which round it is. Rounds never repeat and never go back, whatever clocks and contracts do."""

    @abstractmethod
    def next_round(self, last_done: int | None) -> int:
        """Blocks until a round later than `last_done` has begun and returns it; None: no round is done yet.

        Raises StopAsked when the node is to stop instead.
        """

    def resume(self, last_done: int | None) -> None:
        """Called once, before the first round: the rounds up to this one are done, None: none is."""
        return  # who counts for itself has nothing to prepare

    def shared(self, round: int) -> int:
        """The number by which the node's peers know this round."""
        return round

    @abstractmethod
    def deadline(self, round: int) -> float:
        """When the round ends, in the coordinator's time (seconds); infinity where it has all the time."""
