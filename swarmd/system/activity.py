"""Whether a process that does not answer hangs, or had no time to: what /proc tells of its work (proc_pid_stat(5))."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12


@dataclass(frozen=True)
class Activity:
    """A process at some moment. pid: its own or that of one that is gone; spent: seconds of CPU so far."""

    pid: int
    spent: float

    @classmethod
    def of(cls, pid: int) -> Activity:
        """As it is now."""
        fields = _fields(Path(f"/proc/{pid}/stat"))
        return cls(pid, (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS_PER_SECOND if fields else 0.0)

    def idle_since(self, most: float = 0.0) -> bool:
        """Whether it has computed for no more than `most` seconds since then, and waits neither for a processor nor
        for a disk: so does a process that was stopped, or whose threads wait for each other, and one that is gone."""
        return Activity.of(self.pid).spent - self.spent <= most and not _waits(self.pid)

    @property
    def stopped(self) -> bool:
        """Whether it does nothing now whatever time it is given: by a signal or a debugger, or because it is gone."""
        return _fields(Path(f"/proc/{self.pid}/stat"))[:1] in ([], ["T"], ["t"], ["Z"], ["X"])


def _waits(pid: int) -> bool:
    """Whether one of its threads could go on but for the machine: runnable (R), or in an uninterruptible sleep (D)."""
    tasks = Path(f"/proc/{pid}/task")
    try:
        threads = os.listdir(tasks)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(_fields(tasks / thread / "stat")[:1] in (["R"], ["D"]) for thread in threads)


def _fields(stat: Path) -> list[str]:
    """From the state on: the name before it, in parentheses, may hold anything. Empty for what is gone."""
    try:
        return stat.read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
