"""What processes cost, read from /proc (proc(5)), and what went over loopback."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes, their ended children not counted. FileNotFoundError for a dead one."""
    total = 0
    for pid in pids:
        # The name, in brackets, may hold blanks; utime and stime are the 12th and 13th field behind it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def resident_mib(pids: Iterable[int]) -> float:
    """The sum of their proportional set sizes (Pss): what several share is divided among them."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def loopback_bytes() -> int:
    """Bytes that loopback carried in this network namespace, headers and TLS included; each packet once."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[0])
    raise LookupError("no lo in /proc/net/dev")


def available_gib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 2**20
    raise LookupError("no MemAvailable in /proc/meminfo")


def load_average() -> float:
    return os.getloadavg()[0]
