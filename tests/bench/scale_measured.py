"""How the scale bench measures, what it measured, and both as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.bench.scale_settings import DEFAULT_SAMPLE, NODES_PER_PROCESS, SAMPLE

_LEAST_WINDOW = 1.0
_LARGEST_SHARE = 0.8


@dataclass(frozen=True)
class Plan:
    """The same for all sizes of a run.

    rounds: that are counted. warm_up: rounds before them: connections are made and tables of contacts fill. spread:
    seconds for each node within which all publish, and all read. patience: what time limits are multiplied by.
    round_seconds: the length of every round, whatever the size; 0: as long as it takes, so that rounds of more nodes
    are longer and hold more of what nodes do anyway. idle_seconds: without a round, half of them before the counted
    rounds and half behind. per_process: nodes. gogc: of stock's p2pd (GOGC, pkg.go.dev/runtime); 0: its own default.
    """

    rounds: int
    warm_up: int
    spread: float
    patience: float
    round_seconds: float
    idle_seconds: float
    per_process: int
    gogc: int

    def window(self, nodes: int) -> float:
        """Seconds within which so many nodes begin to publish, and as many again to read."""
        return max(_LEAST_WINDOW, self.spread * nodes)

    def least_round(self, nodes: int) -> float:
        """Seconds that a round needs for both windows and some rest: those who begin last have to end in it."""
        return 2 * self.window(nodes) / _LARGEST_SHARE


@dataclass(frozen=True)
class Cost:
    """Of all nodes together, CPU in seconds. bytes: over loopback. daemons: p2pd's part of the CPU; 0.0: not known."""

    cpu: float
    bytes: int
    daemons: float = 0.0


@dataclass(frozen=True)
class Conditions:
    """What has to be the same for two figures to be compared. spread: seconds for each node."""

    round_seconds: float
    spread: float
    per_process: int
    gogc: int


@dataclass
class Measured:
    """One scheme with one number of nodes, of the counted rounds.

    spread: seconds within which all begin. warm_up: rounds before the counted. seconds: of all rounds. late: rounds
    that took longer than round_seconds. gathers: seconds of each. found: records that each of them read. stored:
    whether publishing succeeded, each time. publishing, gathering, resting: costs of each round's parts. idle: costs of
    idle_seconds without a round, each. connections: of a node, before and after the counted rounds. resident, daemons:
    MiB of a node, of its p2pd. swarms: whose figures these are (see `pooled`). The defaults are those of runs that did
    not have the field yet.
    """

    scheme: str
    nodes: int
    spread: float
    warm_up: int = 1
    rounds: int = 0
    seconds: float = 0.0
    gathers: list[float] = field(default_factory=list)
    found: list[int] = field(default_factory=list)
    stored: list[bool] = field(default_factory=list)
    publishing: list[Cost] = field(default_factory=list)
    gathering: list[Cost] = field(default_factory=list)
    idle: list[Cost] = field(default_factory=list)
    idle_seconds: float = 20.0
    resident: float = 0.0
    daemons: float = 0.0
    record_bytes: float = 0.0
    loads: list[float] = field(default_factory=list)
    error: str = ""
    round_seconds: float = 0.0
    late: int = 0
    resting: list[Cost] = field(default_factory=list)
    connections: list[float] = field(default_factory=list)
    per_process: int = NODES_PER_PROCESS
    gogc: int = 0
    swarms: int = 1

    @property
    def conditions(self) -> Conditions:
        # The least window is the same for all who have it.
        spread = 0.0 if self.spread <= _LEAST_WINDOW else round(self.spread / self.nodes, 3)
        return Conditions(self.round_seconds, spread, self.per_process, self.gogc)

    @property
    def failed_reads(self) -> int:
        wanted = min(DEFAULT_SAMPLE if self.scheme == "default" else SAMPLE, self.nodes)
        return sum(count < wanted for count in self.found)

    @property
    def share_read(self) -> float:
        """Records that a gather found, mean."""
        return sum(self.found) / max(1, len(self.found))


def planned(scheme: str, nodes: int, plan: Plan) -> Measured:
    """A result before anything was measured."""
    return Measured(
        scheme, nodes, plan.window(nodes), plan.warm_up, round_seconds=plan.round_seconds,
        per_process=plan.per_process, gogc=plan.gogc if scheme == "stock" else 0,
    )  # fmt: skip


def pooled(results: Sequence[Measured]) -> list[Measured]:
    """The results, with those of one scheme and size, measured alike and to the end, as one: their rounds together.

    Four swarms of 40 nodes at a time load a machine as one of 160 does, which one of 40 by itself does not.
    """
    alike: dict[Any, list[Measured]] = {}
    for one in results:
        whole = (one.scheme, one.nodes, one.conditions, one.warm_up, one.idle_seconds)
        alike.setdefault(id(one) if one.error or not one.gathers else whole, []).append(one)
    return [_together(swarms) if len(swarms) > 1 else swarms[0] for swarms in alike.values()]


def _together(swarms: Sequence[Measured]) -> Measured:
    summed = ("rounds", "seconds", "late", "swarms")
    meant = ("resident", "daemons", "record_bytes")
    joined = ("gathers", "found", "stored", "publishing", "gathering", "resting", "idle", "loads")
    return replace(
        swarms[0],
        connections=[statistics.fmean(counts) for counts in zip(*(one.connections for one in swarms), strict=True)],
        **{name: sum(getattr(one, name) for one in swarms) for name in summed},
        **{name: statistics.fmean(getattr(one, name) for one in swarms) for name in meant},
        **{name: [value for one in swarms for value in getattr(one, name)] for name in joined},
    )


def read(entry: dict[str, Any]) -> Measured:
    """A result from its JSON form, also of a run whose results had fewer fields."""
    names = ("publishing", "gathering", "resting", "idle")
    return Measured(**{**entry, **{name: [Cost(**one) for one in entry.get(name, ())] for name in names}})
