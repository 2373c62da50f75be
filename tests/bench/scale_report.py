"""The scale bench in tables (Markdown)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import astuple
from datetime import UTC, datetime

from swarmd.network.round_exchange import LOOKED_BACK
from tests.bench.scale_figures import (
    COMPARED,
    Measure,
    cpu,
    cpu_of_daemons,
    idle_in_a_minute,
    kilobytes,
    of_a_part,
    of_a_round,
    quantile,
    ratio,
    without_idle,
)
from tests.bench.scale_measured import Conditions, Measured
from tests.bench.scale_paper import on_paper
from tests.bench.scale_settings import BEAM_SIZE, DEFAULT_SAMPLE, NODES_PER_PROCESS, SAMPLE, SHARDS

_TITLES = {"swarmd": "swarmd", "default": "swarmd, default sample", "stock": "GenRL's scheme"}
_FEW, _MANY = 40, 160
_ROUNDS = 5
_ABOUT_RATIOS = """\
Ratios of figures under the same conditions only. "?": one of both cannot be told from nothing. "-": not measured,
or of rounds that did not last equally long."""
_ABOUT_SWARMS = """
- swarms: so many of that size, their rounds taken together."""
_ABOUT_GOGC = """
- GOGC: p2pd of these stock nodes was told to collect its garbage sooner than by default (100), since with it they did
  not fit into this machine: in their favour in memory, to their cost in CPU."""


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
and whatever else ran: load average {min(loads):.0f} to {max(loads):.0f}. Every node is a DHT node with a p2pd
of its own; {NODES_PER_PROCESS} of them share a Python process where a row says nothing else. Each round all nodes
publish a signed record of {sum(sizes) / max(1, len(sizes)) / 1e3:.1f} kB; when all have, all read; each begins at a
random time within `spread`; whatever is left of a round of a given length is quiet. Before them go rounds that are not
counted, {_warm_up(results)}, in which connections are made.{note}

- swarmd: {SHARDS} shards, read in random order until there are {SAMPLE} records: as many in swarms of all sizes.
- swarmd, default sample: as a node does unless told otherwise: {DEFAULT_SAMPLE} records, so that of fewer nodes all are
  read, and of the round before {LOOKED_BACK} once more, for records that came late.
- GenRL's scheme: one key a round on stock hivemind nodes (beam size {BEAM_SIZE}), the whole dictionary read by all; the
  same records. What GenRL adds for each node, a process with torch in it and a pipe, is left out in its favour.
- round: its length, the same for every number of nodes, so that it holds as much of what nodes do anyway; "any": as
  long as publishing and reading took, with the mean beside it.
- failed reads: that brought fewer records than the sample, or all nodes, the own one included. CPU: Python and
  p2pd; records are made by another process and not checked; what the nodes do anyway in that time is counted ("idle").
  bytes: over loopback with all headers, as many in as out. memory: Pss of p2pd and a share of Python's, in brackets
  p2pd's alone. connections: of a node, before and after the counted rounds. Seconds depend on the load: that all nodes
  share these cores makes them grow with their number, whatever each has to do; bytes do not, and CPU does the other
  way round: on a machine that idles each small piece of work wakes a core.
- ±: one standard error, from how the rounds differ, and the parts of the idle time; nothing where there is one
  only.{_ABOUT_SWARMS if any(one.swarms > 1 for one in results) else ""}\
{_ABOUT_GOGC if any(one.gogc for one in results) else ""}"""


def _warm_up(results: Sequence[Measured]) -> str:
    fewest, most = (found((one.warm_up for one in results), default=0) for found in (min, max))
    return str(fewest) if fewest == most else f"{fewest} to {most}"


def _table(results: Sequence[Measured]) -> str:
    lines = ["| nodes | scheme | " + " | ".join(_COLUMNS) + " |", "|---|---" + "|---" * len(_COLUMNS) + "|"]
    for one in sorted(results, key=lambda one: (one.nodes, list(_TITLES).index(one.scheme), astuple(one.conditions))):
        if one.gathers:
            cells = (column(one) for column in _COLUMNS.values())
            lines.append(f"| {one.nodes} | {_title(one)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "In brackets: publishing + reading + the rest of a round that lasts longer."])


def _title(one: Measured) -> str:
    """The scheme, and what was not as it is elsewhere."""
    gogc = f", GOGC={one.gogc}" if one.gogc else ""
    shared = f", {one.per_process} a process" if one.per_process != NODES_PER_PROCESS else ""
    swarms = f", {one.swarms} swarms" if one.swarms > 1 else ""
    return _TITLES[one.scheme] + gogc + shared + swarms


def _ratios(results: Sequence[Measured]) -> str:
    """How the figures change from the fewest (but 40, if there are as many) to the most nodes, and between schemes.

    Only between results under the same conditions.
    """
    lines = []
    for alike in _alike(results):
        for scheme in _TITLES:
            of_it = sorted((one for one in alike if one.scheme == scheme), key=lambda one: one.nodes)
            sizes = [one for one in of_it if one.nodes >= _FEW]
            if len({one.nodes for one in sizes}) > 1:
                few, many = sizes[0], sizes[-1]
                lines.append(_ratio(f"{_title(many)}, {few.nodes} to {many.nodes} nodes", many, few))
    for alike in _alike(results):
        stock = {one.nodes: one for one in alike if one.scheme == "stock"}
        for one in sorted(alike, key=lambda one: (one.scheme != "swarmd", one.nodes)):
            if one.scheme != "stock" and one.nodes in stock:
                title = f"{_title(stock[one.nodes])} ÷ {_TITLES[one.scheme]}, {one.nodes} nodes"
                lines.append(_ratio(title, stock[one.nodes], one))
    if not lines:
        return ""
    head = ["| ratio | round (s) | " + " | ".join(COMPARED) + " |", "|---|---" + "|---" * len(COMPARED) + "|"]
    return "\n".join([*head, *lines, "", _ABOUT_RATIOS])


def _alike(results: Sequence[Measured]) -> list[list[Measured]]:
    """Those that can be compared with each other, together."""
    groups: dict[Conditions, list[Measured]] = {}
    for one in results:
        if one.gathers:
            groups.setdefault(one.conditions, []).append(one)
    return [groups[conditions] for conditions in sorted(groups, key=astuple)]


def _ratio(title: str, above: Measured, below: Measured) -> str:
    cells = [_round_length(above), *(ratio(name, above, below) for name in COMPARED)]
    return f"| {title} | " + " | ".join(cells) + " |"


def _round_length(one: Measured) -> str:
    return f"{one.round_seconds:g}" if one.round_seconds else "any"


def _missing(results: Sequence[Measured]) -> str:
    """What the goal speaks of and this run did not measure."""
    whole = [one for one in results if one.gathers and not one.error]
    lines = []
    for scheme, title in _TITLES.items():
        of_it = [one for one in whole if one.scheme == scheme]
        if scheme == "default" and not of_it:
            lines.append(f"- {title} was not measured.")
            continue
        absent = [nodes for nodes in (_FEW, _MANY) if nodes not in {one.nodes for one in of_it}]
        lines += [
            f"- {title} was not measured with {nodes} real nodes: how its costs grow from {_FEW} to {_MANY} is open."
            for nodes in absent
        ]
        if not absent and not any({_FEW, _MANY} <= {one.nodes for one in alike} for alike in _alike(of_it)):
            lines.append(
                f"- {title} was measured with {_FEW} and with {_MANY} nodes under different conditions only (length of "
                "rounds, spread, nodes of a process, GOGC): how its costs grow is open."
            )
    for one in results:
        length = f"rounds of {one.round_seconds:g} s" if one.round_seconds else "rounds of any length"
        name = f"- {one.nodes} nodes of {_title(one)}, {length}"
        if one.gathers and one.rounds < _ROUNDS:
            lines.append(f"{name}: {one.rounds} rounds only; the figures are rough.")
        if one.late:
            lines.append(f"{name}: {one.late} of them took longer than that; their CPU is not compared.")
    return "\n".join(["## What this run does not show", "", *lines]) if lines else ""


def _errors(results: Sequence[Measured]) -> str:
    return "\n".join(
        f"- {_TITLES[one.scheme]}, {one.nodes} nodes, ended after {one.rounds} counted rounds: {one.error}"
        for one in results if one.error
    )  # fmt: skip


def _parts(one: Measured, measure: Measure, digits: int) -> str:
    parts = (of_a_part(one, costs, measure) for costs in (one.publishing, one.gathering, one.resting) if costs)
    return f"{of_a_round(one, measure).shown(digits)} ({' + '.join(f'{part:.{digits}f}' for part in parts)})"


def _without_idle(one: Measured, measure: Measure, digits: int) -> str:
    figure = without_idle(one, measure)
    return "-" if figure is None else figure.shown(digits)


def _idle(one: Measured) -> str:
    if not one.idle:
        return "-"
    return f"{idle_in_a_minute(one, cpu).shown(3)}, {idle_in_a_minute(one, kilobytes).shown(0)}"


def _of_daemons(one: Measured) -> str:
    """Shares of the CPU, in a round and idle."""
    found = [figure(one, cpu_of_daemons).value for figure in (of_a_round, idle_in_a_minute)]
    if not all(found):
        return "-"
    return f"{found[0] / of_a_round(one, cpu).value:.0%}, {found[1] / idle_in_a_minute(one, cpu).value:.0%}"


_COLUMNS: dict[str, Callable[[Measured], str]] = {
    "round (s)": lambda one: _round_length(one) if one.round_seconds else f"any, {one.seconds / one.rounds:.0f}",
    "spread (s)": lambda one: f"{one.spread:.0f}",
    "gathers": lambda one: str(len(one.gathers)),
    "gather p50, p95 (s)": lambda one: f"{quantile(one.gathers, 0.5):.2f}, {quantile(one.gathers, 0.95):.2f}",
    "records read": lambda one: f"{one.share_read:.1f}",
    "failed reads": lambda one: str(one.failed_reads),
    "failed stores": lambda one: str(one.stored.count(False)),
    "CPU-s a node and round": lambda one: _parts(one, cpu, 3),
    "without idle": lambda one: _without_idle(one, cpu, 3),
    "kB a node and round": lambda one: _parts(one, kilobytes, 0),
    "kB without idle": lambda one: _without_idle(one, kilobytes, 0),
    "MiB a node": lambda one: f"{one.resident:.0f} ({one.daemons:.0f})",
    "idle: CPU-s, kB a node and minute": _idle,
    "p2pd's part of CPU, of idle CPU": _of_daemons,
    "connections": lambda one: " to ".join(f"{count:.0f}" for count in one.connections) or "-",
    "load average": lambda one: f"{min(one.loads):.0f} to {max(one.loads):.0f}",
}
