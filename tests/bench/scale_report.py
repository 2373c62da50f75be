"""The scale bench in tables (Markdown)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from tests.bench.scale_paper import on_paper
from tests.bench.scale_settings import BEAM_SIZE, NODES_PER_PROCESS, PEERS_PER_ROUND, SHARDS, WARM_UP_ROUNDS
from tests.bench.scale_swarm import Cost, Measured

_TITLES = {"swarmd": "swarmd", "stock": "GenRL's scheme"}
_FEW, _MANY = 40, 160
_KB = 1e3


def report(results: Sequence[Measured], arguments: str) -> str:
    """Everything that was measured, and what follows for larger swarms."""
    parts = [_heading(results, arguments), _table(results), _ratios(results), _errors(results), on_paper()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(results: Sequence[Measured], arguments: str) -> str:
    loads = [load for result in results for load in result.loads] or [0.0]
    sizes = [result.record_bytes for result in results if result.record_bytes]
    return f"""# What a round costs a node as the swarm grows

`python -m tests.bench.scale {arguments}`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPU cores shared by all nodes
and, meanwhile, by other work: load average {min(loads):.0f} to {max(loads):.0f}. Every node is a DHT node with a p2pd
of its own; {NODES_PER_PROCESS} of them share a Python process. Each round all nodes publish a signed record of
{sum(sizes) / max(1, len(sizes)) / _KB:.1f} kB; when all have, all read; each begins at a random time within `spread`.
{WARM_UP_ROUNDS} rounds are not counted: there connections are made.

- swarmd: {SHARDS} shards, read in random order until there are {PEERS_PER_ROUND} records.
- GenRL's scheme: one key a round on stock hivemind nodes (beam size {BEAM_SIZE}), the whole dictionary read by all; the
  same records. What GenRL adds for each node, a process with torch in it and a pipe, is left out in its favour.
- failed reads: that brought fewer than min({PEERS_PER_ROUND}, nodes) records, the own one included. CPU: Python and
  p2pd; making and checking records not counted; what the nodes do anyway in that time (last column) is counted.
  bytes: over loopback with all headers, as many in as out. memory: Pss of p2pd and a share of Python's, in brackets
  p2pd's alone. Seconds depend on the load: that all nodes share these cores makes them grow with their number,
  whatever each has to do; CPU and bytes do not."""


def _table(results: Sequence[Measured]) -> str:
    lines = [
        "| nodes | scheme | spread (s) | gathers | gather p50, p95 (s) | records read | failed reads | failed stores "
        "| CPU-s a node and round | without idle | kB a node and round | without idle | MiB a node | idle: CPU-s, kB a node and minute |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in sorted(results, key=lambda one: (one.nodes, one.scheme != "swarmd")):
        if not result.gathers:
            continue
        lines.append(
            f"| {result.nodes} | {_TITLES[result.scheme]} | {result.spread:.0f} | {len(result.gathers)} "
            f"| {_quantile(result.gathers, 0.5):.2f}, {_quantile(result.gathers, 0.95):.2f} | {result.share_read:.1f} "
            f"| {result.failed_reads} | {result.stored.count(False)} "
            f"| {cpu(result):.3f} ({_cpu(result, result.publishing):.3f} + {_cpu(result, result.gathering):.3f}) "
            f"| {cpu(result) - _idle_cpu(result):.3f} "
            f"| {kilobytes(result):.0f} "
            f"({_kilobytes(result, result.publishing):.0f} + {_kilobytes(result, result.gathering):.0f}) "
            f"| {kilobytes(result) - _idle_kilobytes(result):.0f} "
            f"| {result.resident:.0f} ({result.daemons:.0f}) | {_idle(result)} |"
        )
    return "\n".join([*lines, "", "In brackets: publishing + reading."])


def _ratios(results: Sequence[Measured]) -> str:
    found = {(one.scheme, one.nodes): one for one in results if one.gathers}
    lines = list(_ratio_lines(found))
    if not lines:
        return ""
    head = f"| from {_FEW} to {_MANY} nodes | CPU, without idle | bytes, without idle | gather p50 | memory |\n|---|---|---|---|---|"
    return "\n".join([head, *lines])


def _ratio_lines(found: dict[tuple[str, int], Measured]) -> Iterator[str]:
    figures: list[Callable[[Measured], float]] = [
        lambda one: cpu(one) - _idle_cpu(one), lambda one: kilobytes(one) - _idle_kilobytes(one), lambda one: _quantile(one.gathers, 0.5), lambda one: one.resident
    ]  # fmt: skip
    for scheme, title in _TITLES.items():
        few, many = found.get((scheme, _FEW)), found.get((scheme, _MANY))
        if few and many:
            ratios = (figure(many) / max(figure(few), 1e-9) for figure in figures)
            yield f"| {title} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |"
    few, many = found.get(("stock", _MANY)), found.get(("swarmd", _MANY))
    if few and many:
        ratios = (figure(few) / max(figure(many), 1e-9) for figure in figures)
        yield f"| GenRL's scheme ÷ swarmd at {_MANY} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |"


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
