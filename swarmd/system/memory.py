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


def rss_bytes_if_any(pid: int) -> int:
    """The same of a child, which may end at any time: 0 for one that is gone."""
    try:
        return rss_bytes(pid)
    except ProcessLookupError:
        return 0


@dataclass(frozen=True)
class LimitedGroup:
    """A control group above this process that has a limit.

    directory: where the kernel shows it; file: the one in it with the limit; limit: bytes; name: as users know it.
    """

    directory: Path
    file: str
    limit: int
    name: str


def memory_limit(root: Path = Path("/")) -> MemoryLimit:
    """The memory this process may use. `root` is where /proc and /sys are looked for.

    Raises OSError where /proc/meminfo, which every Linux has, cannot be read.
    """
    groups = [MemoryLimit(group.limit, f"{group.file} of control group {group.name}") for group in limited_groups(root)]
    return min([MemoryLimit(_total_ram(root), "RAM"), *groups], key=lambda limit: limit.bytes)


def limited_groups(root: Path = Path("/")) -> list[LimitedGroup]:
    """Every control group with a memory limit that this process is in, its own first, then those around it."""
    found = []
    for mount, path, file in _hierarchies(root):
        for directory, name in _upwards(mount, path):
            text = _read(directory / file)
            if text.isdigit() and int(text) < _UNLIMITED:
                found.append(LimitedGroup(directory, file, int(text), name))
    return found


def killed_together(root: Path = Path("/")) -> bool:
    """Whether the kernel, where it kills one process of this unit for want of memory, kills them all with it.

    That is what `OOMPolicy=kill` asks for (systemd.service(5)): memory.oom.group, cgroup-v2.rst.
    """
    for mount, path, file in _hierarchies(root):
        if file == "memory.max" and any(
            _read(directory / "memory.oom.group") == "1" for directory, _ in _upwards(mount, path)
        ):
            return True
    return False


def _total_ram(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{root / 'proc/meminfo'} has no MemTotal line")


def _hierarchies(root: Path) -> Iterator[tuple[Path, str, str]]:
    """(mount, this process's group in it, name of the file with the limit) of every hierarchy that counts memory."""
    for line in _read(root / "proc/self/cgroup").splitlines():  # nothing: a kernel without control groups
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0":
            # The unified hierarchy, alone or beside v1 ("hybrid").
            for mount in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
                yield root / mount, path, "memory.max"
        elif "memory" in controllers.split(","):
            yield root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes"


def _upwards(mount: Path, path: str) -> Iterator[tuple[Path, str]]:
    """(directory, name) of each group from that at `path` up to the mount's root.

    In a container the path may be one of the host's, which the container does not see (or begins with "/..");
    the groups that do exist there, the mount's root at least, are the container's.
    """
    inside = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for depth in range(len(inside), -1, -1):
        yield mount.joinpath(*inside[:depth]), "/" + "/".join(inside[:depth])


def _read(path: Path) -> str:
    """The file's text, "" where there is none or it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
