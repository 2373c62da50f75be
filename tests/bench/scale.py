"""What a round's exchange costs a node as the swarm grows: swarmd's sharded keys beside GenRL's one key on stock nodes.

    python -m tests.bench.scale --nodes 10 40 80 160 --rounds 5 --out docs/benchmarks/scale.md

Every node is real: a DHT node with a p2pd of its own, several of them in a Python process. Run as root: it moves into
network and process namespaces of its own, so that what loopback carries is theirs alone, and all ends with it. What
does not fit into memory beside the rest can be measured by itself: --json keeps it, --merge puts it into the report,
where swarms of one scheme and size are taken together.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

from swarmd.system.startup import prepare_process

prepare_process()

from tests.bench.scale_measured import Measured, Plan, pooled, read  # noqa: E402  (the environment comes first)
from tests.bench.scale_memory import available_gib, first_of_all_to_go, needed_gib  # noqa: E402
from tests.bench.scale_report import report  # noqa: E402
from tests.bench.scale_settings import NODES_PER_PROCESS  # noqa: E402
from tests.bench.scale_swarm import measure, say  # noqa: E402
from tests.bench.scale_wire import wire_table  # noqa: E402

_INSIDE = "SWARMD_BENCH_INSIDE"


def main() -> int:
    options = _options()
    if _INSIDE not in os.environ:
        _enter()
    first_of_all_to_go()
    results = [read(entry) for path in options.merge for entry in json.loads(path.read_text())]
    for nodes in options.nodes:
        for scheme in options.schemes:
            free = available_gib()
            needed = needed_gib(scheme, nodes, options.nodes_per_process, options.gogc)
            if free < needed:
                say(f"{scheme}, {nodes} nodes, left out: {free:.1f} GiB of memory are free, {needed:.1f} are needed")
                continue
            results.append(measure(scheme, nodes, _plan(options)))
            if options.json:
                options.json.write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=1))
            _write(options, results)
    _write(options, results, wire_table(options.wire) if options.wire else "")
    return int(any(result.error for result in results))


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        rounds=options.rounds, warm_up=options.warm_up, spread=options.spread, patience=options.patience,
        round_seconds=options.round_seconds, idle_seconds=options.idle_seconds, per_process=options.nodes_per_process,
        gogc=options.gogc,
    )  # fmt: skip


def _write(options: argparse.Namespace, results: list[Measured], wire: str = "") -> None:
    """After each swarm: a run that is broken off has told what it found."""
    text = report(pooled(results), _shown(options), options.note, wire)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)
    else:
        print(text, flush=True)


def _shown(options: argparse.Namespace) -> str:
    """The options that matter to who reads the report."""
    names = ("rounds", "warm_up", "spread", "round_seconds", "idle_seconds", "patience")
    return " ".join(f"--{name.replace('_', '-')} {getattr(options, name):g}" for name in names)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="*", default=[10, 40, 80, 160])
    parser.add_argument("--rounds", type=int, default=5, help="that are counted, of each number of nodes")
    parser.add_argument("--warm-up", type=int, default=1, metavar="N", help="not counted, before those (default: 1)")
    parser.add_argument("--note", default="", help="a sentence for the head of the report")
    parser.add_argument(
        "--spread", type=float, default=0.0, metavar="SECONDS",
        help="for each node, of the time within which all publish, and all read; a second at least (default: 0). More "
        "of it keeps a machine with few cores from being what is measured",
    )  # fmt: skip
    parser.add_argument(
        "--round-seconds", type=float, default=0.0, metavar="SECONDS",
        help="the length of every round, whatever the number of nodes, so that their costs in a round can be compared "
        "as they are (default: as long as it takes)",
    )  # fmt: skip
    parser.add_argument(
        "--idle-seconds", type=float, default=120.0, metavar="SECONDS",
        help="to count what nodes do without a round, half before the counted rounds and half behind (default: 120)",
    )  # fmt: skip
    parser.add_argument(
        "--nodes-per-process", type=int, default=NODES_PER_PROCESS, metavar="N",
        help=f"more take less memory, most of all stock nodes (default: {NODES_PER_PROCESS})",
    )  # fmt: skip
    parser.add_argument(
        "--gogc", type=int, default=0, metavar="PERCENT",
        help="GOGC of stock's p2pd, for swarms that do not fit otherwise: 40 takes less memory and more CPU than its "
        "default of 100; the report tells it, and compares them with none that had another",
    )  # fmt: skip
    parser.add_argument(
        "--patience", type=float, default=1.0, metavar="FACTOR",
        help="multiplies the time limits of both schemes, where other work takes the machine (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--schemes", nargs="+", choices=("swarmd", "default", "stock"), default=["swarmd", "stock"],
        help="those to measure; default: swarmd as it reads unless told otherwise (default: swarmd and stock)",
    )  # fmt: skip
    parser.add_argument(
        "--wire", type=int, nargs="*", default=[40, 80, 160, 320], help="messages alone, for these numbers"
    )
    parser.add_argument("--out", type=Path, help="write the report there")
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="put results of earlier --json files beside")
    parser.add_argument("--json", type=Path, help="write every single figure there")
    options = parser.parse_args()
    if options.idle_seconds <= 0:
        parser.error(f"--idle-seconds {options.idle_seconds:g}: more than 0")
    least = max((_plan(options).least_round(nodes) for nodes in options.nodes), default=0.0)
    if 0 < options.round_seconds < least:
        parser.error(
            f"--round-seconds {options.round_seconds:g}: with --spread {options.spread:g} a round of "
            f"{max(options.nodes)} nodes needs {least:.0f}"
        )
    return options


def _enter() -> None:
    """Starts over in namespaces of its own (unshare(1)): with the first process in them, all others end too."""
    inside = [sys.executable, "-m", "tests.bench.scale", *sys.argv[1:]]
    os.environ[_INSIDE] = "1"
    os.execvp(
        "unshare",
        ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
         "sh", "-c", 'ip link set lo up && "$@"', "sh", *inside],
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
