"""The scale bench in tables (Markdown)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from tests.bench.scale_paper import on_paper
from tests.bench.scale_settings import BEAM_SIZE, NODES_PER_PROCESS, PEERS_PER_ROUND, SHARDS
from tests.bench.scale_swarm import Cost, Measured

_TITLES = {"swarmd": "swarmd", "stock": "GenRL's scheme"}
_FEW, _MANY = 40, 160
_KB = 1e3
_ROUNDS = 5


def report(results: Sequence[Measured], arguments: str, note: str = "", wire: str = "") -> str:
    """Everything that was measured, and what follows for larger swarms. note: what a reader should know of the run."""
    parts = [
        _heading(results, arguments, note and f"\n{note}"),
        _table(results),
        _ratios(results),
        _errors(results),
        _missing(results),
        wire,
        on_paper(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(results: Sequence[Measured], arguments: str, note: str) -> str:
    loads = [load for result in results for load in result.loads] or [0.0]
    sizes = [result.record_bytes for result in results if result.record_bytes]
    return f"""# What a round costs a node as the swarm grows

`python -m tests.bench.scale {arguments}`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPU cores shared by all nodes
and, meanwhile, by other work: load average {min(loads):.0f} to {max(loads):.0f}. Every node is a DHT node with a p2pd
of its own; {NODES_PER_PROCESS} of them share a Python process. Each round all nodes publish a signed record of
{sum(sizes) / max(1, len(sizes)) / _KB:.1f} kB; when all have, all read; each begins at a random time within `spread`.
Before them go rounds that are not counted, {_warm_up(results)}, in which connections are made.{note}

- swarmd: {SHARDS} shards, read in random order until there are {PEERS_PER_ROUND} records.
- GenRL's scheme: one key a round on stock hivemind nodes (beam size {BEAM_SIZE}), the whole dictionary read by all; the
  same records. What GenRL adds for each node, a process with torch in it and a pipe, is left out in its favour.
- failed reads: that brought fewer than min({PEERS_PER_ROUND}, nodes) records, the own one included. CPU: Python and
  p2pd; making and checking records not counted; what the nodes do anyway in that time (last column) is counted.
  bytes: over loopback with all headers, as many in as out. memory: Pss of p2pd and a share of Python's, in brackets
  p2pd's alone. Seconds depend on the load: that all nodes share these cores makes them grow with their number,
  whatever each has to do; CPU and bytes do not."""


def _warm_up(results: Sequence[Measured]) -> str:
    fewest, most = min(one.warm_up for one in results), max(one.warm_up for one in results)
    return str(fewest) if fewest == most else f"{fewest} to {most}"


def _table(results: Sequence[Measured]) -> str:
    lines = ["| nodes | scheme | " + " | ".join(_COLUMNS) + " |", "|---|---" + "|---" * len(_COLUMNS) + "|"]
    for one in sorted(results, key=lambda one: (one.nodes, one.scheme != "swarmd")):
        if one.gathers:
            cells = (column(one) for column in _COLUMNS.values())
            lines.append(f"| {one.nodes} | {_TITLES[one.scheme]} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "In brackets: publishing + reading."])


def _ratios(results: Sequence[Measured]) -> str:
    """How the figures change from the fewest (but 40, if there are as many) to the most nodes."""
    lines = []
    for scheme, title in _TITLES.items():
        found = {one.nodes: one for one in results if one.scheme == scheme and one.gathers}
        nodes = sorted(number for number in found if number >= _FEW)
        if len(nodes) > 1:
            few, many = found[nodes[0]], found[nodes[-1]]
            ratios = (f"{figure(many) / max(figure(few), 1e-9):.2f}" for figure in _FIGURES.values())
            lines.append(f"| {title}, {nodes[0]} to {nodes[-1]} nodes | " + " | ".join(ratios) + " |")
    both = {one.nodes for one in results if one.scheme == "stock" and one.gathers}
    for nodes in sorted(both & {one.nodes for one in results if one.scheme == "swarmd" and one.gathers}):
        stock, ours = (next(o for o in results if (o.scheme, o.nodes) == (s, nodes)) for s in ("stock", "swarmd"))
        ratios = (f"{figure(stock) / max(figure(ours), 1e-9):.2f}" for figure in _FIGURES.values())
        lines.append(f"| GenRL's scheme ÷ swarmd, {nodes} nodes | " + " | ".join(ratios) + " |")
    if not lines:
        return ""
    return "\n".join(["| ratio | " + " | ".join(_FIGURES) + " |", "|---" + "|---" * len(_FIGURES) + "|", *lines])


def _missing(results: Sequence[Measured]) -> str:
    """What the goal speaks of and this run did not measure."""
    done = {(one.scheme, one.nodes) for one in results if one.gathers and not one.error}
    lines = [
        f"- {title} was not measured with {nodes} real nodes: how its costs grow from {_FEW} to {_MANY} is open."
        for scheme, title in _TITLES.items() for nodes in (_FEW, _MANY) if (scheme, nodes) not in done
    ]  # fmt: skip
    lines += [
        f"- {one.nodes} nodes of {_TITLES[one.scheme]}: {one.rounds} rounds only; the figures are rough."
        for one in results if one.gathers and one.rounds < _ROUNDS
    ]  # fmt: skip
    return "\n".join(["## What this run does not show", "", *lines]) if lines else ""


def _errors(results: Sequence[Measured]) -> str:
    return "\n".join(
        f"- {_TITLES[one.scheme]}, {one.nodes} nodes, ended after {one.rounds} counted rounds: {one.error}"
        for one in results if one.error
    )  # fmt: skip


def cpu(result: Measured) -> float:
    """CPU-seconds of a node in a round."""
    return _cpu(result, [*result.publishing, *result.gathering])


def kilobytes(result: Measured) -> float:
    """Kilobytes that a node takes in, and gives out, in a round."""
    return _kilobytes(result, [*result.publishing, *result.gathering])


def _cpu(result: Measured, costs: Sequence[Cost]) -> float:
    return sum(cost.cpu for cost in costs) / result.nodes / max(1, result.rounds)


def _kilobytes(result: Measured, costs: Sequence[Cost]) -> float:
    return sum(cost.bytes for cost in costs) / _KB / result.nodes / max(1, result.rounds)


def _idle_cpu(result: Measured) -> float:
    """What a node costs anyway in a round's time; CPU-seconds."""
    return _idle_share(result) * sum(cost.cpu for cost in result.idle)


def _idle_kilobytes(result: Measured) -> float:
    return _idle_share(result) * sum(cost.bytes for cost in result.idle) / _KB


def _idle_share(result: Measured) -> float:
    """The length of a round in idle times, divided by the nodes."""
    idle = result.idle_seconds * len(result.idle)
    return result.seconds / max(1, result.rounds) / idle / result.nodes if idle else 0.0


def _idle(result: Measured) -> str:
    if not result.idle:
        return "-"
    minutes = result.nodes * result.idle_seconds / 60 * len(result.idle)
    return (
        f"{sum(cost.cpu for cost in result.idle) / minutes:.2f}, "
        f"{sum(cost.bytes for cost in result.idle) / _KB / minutes:.0f}"
    )


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


_FIGURES: dict[str, Callable[[Measured], float]] = {
    "CPU": cpu,
    "CPU without idle": lambda one: cpu(one) - _idle_cpu(one),
    "bytes": kilobytes,
    "bytes without idle": lambda one: kilobytes(one) - _idle_kilobytes(one),
    "gather p50": lambda one: _quantile(one.gathers, 0.5),
    "memory": lambda one: one.resident,
}
_COLUMNS: dict[str, Callable[[Measured], str]] = {
    "spread (s)": lambda one: f"{one.spread:.0f}",
    "gathers": lambda one: str(len(one.gathers)),
    "gather p50, p95 (s)": lambda one: f"{_quantile(one.gathers, 0.5):.2f}, {_quantile(one.gathers, 0.95):.2f}",
    "records read": lambda one: f"{one.share_read:.1f}",
    "failed reads": lambda one: str(one.failed_reads),
    "failed stores": lambda one: str(one.stored.count(False)),
    "CPU-s a node and round": lambda one: (
        f"{cpu(one):.3f} ({_cpu(one, one.publishing):.3f} + {_cpu(one, one.gathering):.3f})"
    ),
    "without idle": lambda one: f"{cpu(one) - _idle_cpu(one):.3f}" if one.seconds else "-",
    "kB a node and round": lambda one: (
        f"{kilobytes(one):.0f} ({_kilobytes(one, one.publishing):.0f} + {_kilobytes(one, one.gathering):.0f})"
    ),
    "kB without idle": lambda one: f"{kilobytes(one) - _idle_kilobytes(one):.0f}" if one.seconds else "-",
    "MiB a node": lambda one: f"{one.resident:.0f} ({one.daemons:.0f})",
    "idle: CPU-s, kB a node and minute": _idle,
    "load average": lambda one: f"{min(one.loads):.0f} to {max(one.loads):.0f}",
}
