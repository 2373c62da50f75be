"""What a round's exchange costs a node as the swarm grows: swarmd's sharded keys beside GenRL's one key on stock nodes.

    python -m tests.bench.scale --nodes 10 40 80 160 --rounds 5 --out docs/benchmarks/scale.md

Every node is real: a DHT node with a p2pd of its own, several of them in a Python process. Run as root: it moves into
network and process namespaces of its own, so that what loopback carries is theirs alone, and all ends with it.
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

from tests.bench.scale_costs import available_gib  # noqa: E402  (the environment comes first)
from tests.bench.scale_report import report  # noqa: E402
from tests.bench.scale_settings import MIB_PER_NODE  # noqa: E402
from tests.bench.scale_swarm import Measured, measure, read, say  # noqa: E402
from tests.bench.scale_wire import wire_table  # noqa: E402

_INSIDE = "SWARMD_BENCH_INSIDE"
_SPARE_GIB = 2.0


def main() -> int:
    options = _options()
    if _INSIDE not in os.environ:
        _enter()
    results = [read(entry) for path in options.merge for entry in json.loads(path.read_text())]
    for nodes in options.nodes:
        for scheme in options.schemes:
            free, needed = available_gib(), nodes * MIB_PER_NODE[scheme] / 1024 + _SPARE_GIB
            if free < needed:
                say(f"{scheme}, {nodes} nodes, left out: {free:.1f} GiB of memory are free, {needed:.1f} are needed")
                continue
            results.append(measure(scheme, nodes, options.rounds, options.spread, options.patience, options.warm_up))
        if options.json:
            options.json.write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=1))
        _write(options, results)
    _write(options, results, wire_table(options.wire) if options.wire else "")
    return int(any(result.error for result in results))


def _write(options: argparse.Namespace, results: list[Measured], wire: str = "") -> None:
    """After each number of nodes: a run that is broken off has told what it found."""
    text = report(results, _shown(options), options.note, wire)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)
    else:
        print(text, flush=True)


def _shown(options: argparse.Namespace) -> str:
    """The options that matter to who reads the report."""
    names = ("rounds", "warm_up", "spread", "patience")
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
        "--patience", type=float, default=1.0, metavar="FACTOR",
        help="multiplies the time limits of both schemes, where other work takes the machine (default: 1)",
    )  # fmt: skip
    parser.add_argument("--schemes", nargs="+", choices=("swarmd", "stock"), default=["swarmd", "stock"])
    parser.add_argument(
        "--wire", type=int, nargs="*", default=[40, 80, 160, 320], help="messages alone, for these numbers"
    )
    parser.add_argument("--out", type=Path, help="write the report there")
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="put results of earlier --json files beside")
    parser.add_argument("--json", type=Path, help="write every single figure there")
    return parser.parse_args()


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
