"""Whether a swarm's nodes fit into this machine's memory: before they start, and while they run.

Without swap the kernel ends a process where memory is short, and not always the one that took it.
"""

from __future__ import annotations

import time
from pathlib import Path

KEPT_GIB = 1.5
"""For everything else: a swarm that leaves less is ended."""

# At most, in runs of 10 to 160 nodes while they read, and for p2pd some to spare; "default" is what it was with p2pd's
# relay service, less what that took. Stock hivemind loads torch, into every process.
_PYTHON_MIB = {"swarmd": (33.0, 1.5), "default": (33.0, 2.5), "stock": (170.0, 8.0)}  # a process, and each node in it
_P2PD_MIB = {"swarmd": 60.0, "default": 70.0, "stock": 115.0, "stock, GOGC": 90.0}
_LOOK_SECONDS = 1.0


class OutOfMemory(RuntimeError):
    """Less is available than is kept for others; the message names both and what helps."""


def needed_gib(scheme: str, nodes: int, per_process: int, gogc: int) -> float:
    """What such a swarm takes at most, with what it has to leave; an estimate. gogc: of stock's p2pd, or 0."""
    base, each = _PYTHON_MIB[scheme]
    daemon = _P2PD_MIB["stock, GOGC" if gogc and scheme == "stock" else scheme]
    return (nodes * (daemon + each) + (nodes / per_process + 1) * base) / 1024 + KEPT_GIB


def available_gib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 2**20
    raise LookupError("no MemAvailable in /proc/meminfo")


def check_memory() -> None:
    """OutOfMemory where too little is left."""
    if (free := available_gib()) < KEPT_GIB:
        raise OutOfMemory(
            f"{free:.1f} GiB of memory are left and {KEPT_GIB:.1f} are kept for others: end what else runs, put more "
            "nodes into a process (--nodes-per-process), or let stock's p2pd collect its garbage sooner (--gogc 40)"
        )


def sleep_until(end: float) -> None:
    """Until time.monotonic() says `end`. OutOfMemory as soon as memory is short."""
    while (left := end - time.monotonic()) > 0:
        check_memory()
        time.sleep(min(left, _LOOK_SECONDS))


def first_of_all_to_go() -> None:
    """This process and those that it starts are ended before any other (proc_pid_oom_score_adj(5))."""
    Path("/proc/self/oom_score_adj").write_text("900")
