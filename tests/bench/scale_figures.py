"""What follows from the scale bench's measurements: figures of a node and round, and how far each can be trusted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.scale_measured import Cost, Measured

_KB = 1e3


@dataclass(frozen=True)
class Figure:
    """error: one standard error, from how much the rounds, or the parts of the idle time, differ; None: not known."""

    value: float
    error: float | None = None

    def __sub__(self, other: Figure) -> Figure:
        return Figure(self.value - other.value, _together(self.error, other.error))

    def __truediv__(self, other: Figure) -> Figure:
        """ZeroDivisionError where the other cannot be told from nothing: the ratio would mean as little."""
        if other.value <= (other.error or 0.0):
            raise ZeroDivisionError(f"{other.value} with an error of {other.error}")
        ratio = self.value / other.value
        error = _together(self.error, other.error and other.error * ratio)
        return Figure(ratio, error if error is None else error / other.value)

    def times(self, factor: float) -> Figure:
        return Figure(self.value * factor, self.error and self.error * factor)

    def shown(self, digits: int) -> str:
        return f"{self.value:.{digits}f}" + ("" if self.error is None else f" ± {self.error:.{digits}f}")


def _together(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else math.hypot(one, other)


def _mean(values: Sequence[float]) -> Figure:
    if not values:
        return Figure(0.0)
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Figure(statistics.fmean(values), error)


def cpu(cost: Cost) -> float:
    return cost.cpu


def cpu_of_daemons(cost: Cost) -> float:
    return cost.daemons


def kilobytes(cost: Cost) -> float:
    return cost.bytes / _KB


Measure = Callable[[Cost], float]


def of_a_round(one: Measured, measure: Measure) -> Figure:
    """Of a node: all that it did from a round's begin to its end."""
    parts = [part for part in (one.publishing, one.gathering, one.resting) if part]
    return _mean([sum(map(measure, costs)) / one.nodes for costs in zip(*parts, strict=True)])


def of_a_part(one: Measured, costs: Sequence[Cost], measure: Measure) -> float:
    """Of a node in a round: publishing, reading, or the rest."""
    return _mean([measure(cost) / one.nodes for cost in costs]).value


def idle_in_a_minute(one: Measured, measure: Measure) -> Figure:
    """Of a node that neither publishes nor reads."""
    return _mean([measure(cost) / one.nodes / one.idle_seconds * 60 for cost in one.idle])


def without_idle(one: Measured, measure: Measure) -> Figure | None:
    """Of a node in a round, less what it costs in as much time without one. None where that was not measured."""
    if not (one.idle and one.seconds and one.rounds):
        return None
    return of_a_round(one, measure) - idle_in_a_minute(one, measure).times(one.seconds / one.rounds / 60)


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


COMPARED: dict[str, Callable[[Measured], Figure | None]] = {
    "CPU": lambda one: of_a_round(one, cpu),
    "CPU without idle": lambda one: without_idle(one, cpu),
    "bytes": lambda one: of_a_round(one, kilobytes),
    "bytes without idle": lambda one: without_idle(one, kilobytes),
    "gather p50": lambda one: Figure(quantile(one.gathers, 0.5)),
    "memory": lambda one: Figure(one.resident),
}
"""What ratios are told of."""

_WITH_IDLE = ("CPU", "bytes")


def ratio(name: str, above: Measured, below: Measured) -> str:
    """Of COMPARED's figure; "-" where it would mean nothing.

    ValueError for two that were measured under different conditions.
    """
    if above.conditions != below.conditions:
        raise ValueError(f"{above.conditions} is not {below.conditions}")
    # Rounds that last as long as they take are longer with more nodes, and hold more of what those do anyway.
    if name in _WITH_IDLE and above.nodes != below.nodes and not above.round_seconds:
        return "-"
    if name.startswith("CPU") and (above.late or below.late):
        return "-"
    figures = COMPARED[name](above), COMPARED[name](below)
    if figures[0] is None or figures[1] is None:
        return "-"
    if figures[0].value <= 0:
        return "?"
    try:
        return (figures[0] / figures[1]).shown(2)
    except ZeroDivisionError:
        return "?"
