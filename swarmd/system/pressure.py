"""How near the node is to the end of its memory, and the watch over it.

What counts as use is what the kernel cannot take back: of a control group's charge (cgroup-v2.rst: memory.current;
cgroup-v1/memory.rst: memory.usage_in_bytes) the page cache is taken off, but not shared memory, which the kernel
counts among the files and can only swap.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from swarmd.system.memory import LimitedGroup, MemoryLimit, limited_groups

# Of the limit. The rest is for what comes between two looks, and between a look and the next safe point.
NEAR = 0.90
# Above this share, and with all tasks of the group waiting for memory this share of the time, it is just as near: the
# kernel then throws out and reads back the program's own code (Documentation/accounting/psi.rst).
_FAIRLY_NEAR = 0.80
_STALLED = 0.10


@dataclass(frozen=True)
class Reading:
    """One look. use, limit: bytes; source: whose limit, in words; stalled: share of the last ten seconds in which
    everything waited for memory, 0 where the kernel does not say."""

    use: int
    limit: int
    source: str
    stalled: float = 0.0

    @property
    def share(self) -> float:
        return self.use / self.limit

    @property
    def near(self) -> bool:
        """Whether less has to do from now on."""
        return self.share >= NEAR or (self.share >= _FAIRLY_NEAR and self.stalled >= _STALLED)


class UnitMemory:
    """The memory of this process and its children, beside what they may use.

    limit: the node's, as the plan has it; every control group with a limit on the way up is looked at besides, since
    each of them can end the node. root: where /proc and /sys are looked for.
    """

    def __init__(self, limit: MemoryLimit, root: Path = Path("/")) -> None:
        self._limit = limit
        self._root = root

    def read(self) -> Reading:
        """The tightest of all readings. Limits that were changed meanwhile (`systemctl set-property`) count."""
        own = Reading(tree_bytes(self._root), self._limit.bytes, self._limit.source)
        groups = [reading for group in limited_groups(self._root) if (reading := group_reading(group)) is not None]
        if groups and "control group" in self._limit.source:
            # The kernel counts the same processes better than their sum does.
            return max(groups, key=_tightness)
        return max([own, *groups], key=_tightness)


def _tightness(reading: Reading) -> tuple[bool, float]:
    return reading.near, reading.share


def group_reading(group: LimitedGroup) -> Reading | None:
    """What a control group uses; None where it does not say (it is gone, or it is the root of the machine)."""
    v2 = group.file == "memory.max"
    try:
        charged = int((group.directory / ("memory.current" if v2 else "memory.usage_in_bytes")).read_text())
        counts = _pairs((group.directory / "memory.stat").read_text())
    except (OSError, ValueError):
        return None
    # v1 has a group's own numbers and, with this prefix, those of it and all below it, as the charge is.
    prefix = "" if v2 else "total_"
    cache = counts.get(f"{prefix}active_file", 0) + counts.get(f"{prefix}inactive_file", 0)
    # The kernel adds up the one and the other at different times.
    use = max(0, charged - cache)
    return Reading(use, group.limit, f"control group {group.name}", _stalled(group.directory / "memory.pressure"))


def _pairs(text: str) -> dict[str, int]:
    return {name: int(value) for name, _, value in (line.partition(" ") for line in text.splitlines())}


def _stalled(path: Path) -> float:
    """`full avg10` of a pressure file as a share, 0 where there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:  # v1, psi=0 on the kernel's command line, or a kernel without it
        return 0.0
    for line in lines:
        kind, *fields = line.split()
        if kind == "full":
            values = dict(field.split("=", 1) for field in fields)
            return float(values.get("avg10", 0.0)) / 100
    return 0.0


def tree_bytes(root: Path = Path("/")) -> int:
    """Resident memory of this process and what its descendants have to themselves, in bytes.

    Forked workers show their parent's pages as their own, and everybody the same libraries: descendants count
    with their anonymous and shared memory only.
    """
    proc = root / "proc"
    own = _status(proc / "self")
    return own.get("VmRSS", 0) + sum(
        status.get("RssAnon", 0) + status.get("RssShmem", 0)
        for status in (_status(proc / pid) for pid in _descendants(proc, "self"))
    )


def _descendants(proc: Path, pid: str) -> Iterator[str]:
    try:
        files = sorted((proc / pid / "task").glob("*/children"))
    except OSError:  # the process has ended meanwhile
        return
    for children in files:
        try:
            found = children.read_text().split()
        except OSError:  # that thread has ended
            continue
        for child in found:
            yield child
            yield from _descendants(proc, child)


def _status(process: Path) -> dict[str, int]:
    """The sizes in proc_pid_status(5), in bytes; nothing for a process that has ended."""
    try:
        lines = (process / "status").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.startswith(("VmRSS:", "RssAnon:", "RssShmem:")))
    return {name.rstrip(":"): int(size) * 1024 for name, size, _ in fields}


class MemoryGuard:
    """Looks at the memory from a thread of its own, and keeps the look in which the end came near.

    The thread changes nothing: who works takes the reading when nothing is half done, and does with less.
    """

    def __init__(
        self,
        measure: Callable[[], Reading],
        interval: float = 0.5,
        cool_down: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """interval: seconds between two looks; cool_down: seconds after `take` in which no reading is kept, so that
        what was given up can have its effect, and one crossing costs one step."""
        self._measure = measure
        self._interval = interval
        self._cool_down = cool_down
        self._clock = clock
        self._quiet_until = clock()
        self._kept: Reading | None = None
        self._keeping = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def close(self) -> None:
        """Looks no more."""
        self._ended.set()

    @property
    def near(self) -> bool:
        """Whether there is a reading to take. Costs nothing."""
        return self._kept is not None

    def look(self) -> None:
        """One look; what the thread does every `interval`."""
        reading = self._measure()
        if not reading.near:
            # A reading that is kept stays so: the use will rise to there again, next time perhaps higher.
            return
        with self._keeping:
            if self._kept is None and self._clock() >= self._quiet_until:
                self._kept = reading

    def take(self) -> Reading | None:
        """The reading in which the end came near, once; the cool-down begins. For the thread that works."""
        if (reading := self._kept) is None:
            return None
        self.rest()
        return reading

    def rest(self) -> None:
        """Begins the cool-down: less is done for another reason."""
        with self._keeping:
            self._quiet_until = self._clock() + self._cool_down
            self._kept = None

    def _watch(self) -> None:
        while not self._ended.wait(self._interval):
            try:
                self.look()
            except (OSError, ValueError):
                continue  # a process or a group went away in the middle: one look less


def trim_heap() -> None:
    """Gives the C library's free memory back to the system (malloc_trim(3)); elsewhere than glibc, nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
