"""What processes cost, read from the kernel, and what went over loopback."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

_ESTABLISHED = "01"


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes, ended threads counted, ended children not; to the nanosecond.

    From their CPU clocks (clock_getcpuclockid(3)): /proc/PID/stat counts in ticks of 10 ms, and the schedstat beside it
    only the first of p2pd's threads. ProcessLookupError for a process that has ended.
    """
    total = 0
    for pid in pids:
        try:
            # The clock's number as the kernel's posix-timers.h makes it: all threads of the process, as scheduled.
            total += time.clock_gettime_ns((~pid << 3) | 2)
        except OSError as error:
            raise ProcessLookupError(f"process {pid}, a node's Python or p2pd, has ended: {error.strerror}") from None
    return total / 1e9


def resident_mib(pids: Iterable[int]) -> float:
    """The sum of their proportional set sizes (Pss, proc(5)): what several share is divided among them."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def children(pid: int) -> list[int]:
    """Of all threads of the process; none for one that has ended."""
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        return found
    return found


def loopback_bytes() -> int:
    """Bytes that loopback carried in this network namespace, headers and TLS included; each packet once."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[0])
    raise LookupError("no lo in /proc/net/dev")


def connection_ends() -> int:
    """Ends of established TCP connections in this network namespace: a connection within it has two."""
    with Path("/proc/net/tcp").open() as lines:
        next(lines)
        return sum(line.split()[3] == _ESTABLISHED for line in lines)


def load_average() -> float:
    return os.getloadavg()[0]
