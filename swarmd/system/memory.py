"""How much memory this process uses, and how much it may use.

The limit is the least of what every control group on the way up allows (cgroup v2: `memory.max`, v1:
`memory.limit_in_bytes`; Linux Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst) and the
machine's RAM: a process is killed at the tightest of them, wherever in the tree that stands.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# cgroup v1 writes "no limit" as the greatest page-aligned 63-bit number; no machine has an exbibyte.
_UNLIMITED = 1 << 60
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class MemoryLimit:
    """bytes: what may be used at most; source: who says so, in words for the plan and the messages."""

    bytes: int
    source: str


def rss_bytes(pid: int | None = None) -> int:
    """Resident memory of a process in bytes (this one by default). ProcessLookupError when there is none."""
    who = "self" if pid is None else str(pid)
    try:
        fields = Path(f"/proc/{who}/statm").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"no process {who}") from None
    return int(fields[1]) * _PAGE


def memory_limit(root: Path = Path("/")) -> MemoryLimit:
    """The memory this process may use. `root` is where /proc and /sys are looked for.

    Raises OSError where /proc/meminfo, which every Linux has, cannot be read.
    """
    limits = [MemoryLimit(_total_ram(root), "RAM"), *_group_limits(root)]
    return min(limits, key=lambda limit: limit.bytes)


def _total_ram(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{root / 'proc/meminfo'} has no MemTotal line")


def _group_limits(root: Path) -> Iterator[MemoryLimit]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return  # a kernel without control groups
    for line in lines:
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0":
            # The unified hierarchy, alone or beside v1 ("hybrid").
            for mount in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
                yield from _walk_up(root / mount, path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _walk_up(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")


def _walk_up(mount: Path, path: str, name: str) -> Iterator[MemoryLimit]:
    """Every limit from the group at `path` up to the mount's root.

    In a container the path may be one of the host's, which the container does not see (or begins with "/..");
    the groups that do exist there, the mount's root at least, are the container's.
    """
    inside = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for depth in range(len(inside), -1, -1):
        group = "/" + "/".join(inside[:depth])
        try:
            text = mount.joinpath(*inside[:depth], name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < _UNLIMITED:
            yield MemoryLimit(int(text), f"{name} of control group {group}")
