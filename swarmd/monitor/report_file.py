"""Files by which a running node tells of itself: replaced in one step, and read as what anybody may have put there."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

_LARGEST = 4 * 1024 * 1024


def write_report(path: Path, document: Any) -> None:
    """Replaces the file by this document as JSON, readable by all. Raises OSError; ValueError for NaN."""
    text = json.dumps(document, allow_nan=False)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    # Not synced: after a power cut the node writes another, and nothing depends on this one.
    with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)  # the umask of the process is 077
        file.write(text)
    os.replace(temporary, path)


def read_report(path: Path) -> Any:
    """The document in a file of `write_report`.

    Root reads what the service's user has written: no link is followed, no pipe waited for, no more than 4 MiB read.
    Raises OSError (FileNotFoundError where there is none); ValueError or RecursionError for what is no JSON.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST} bytes")
    return json.loads(content)


def process_mark() -> dict[str, int | None]:
    """Stands for this process in what it writes; `lives` tells whether it still runs."""
    return {"pid": os.getpid(), "started_ticks": _started_ticks(os.getpid())}


def process_age() -> float:
    """Seconds since this process started."""
    ticks = _started_ticks(os.getpid())
    assert ticks is not None, "this process runs"
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def lives(mark: Any) -> bool:
    """Whether the process with this mark still runs; False for what is no mark."""
    if not isinstance(mark, dict):
        return False
    pid = mark.get("pid")
    # The start time tells the process from a later one that was given the same number.
    return type(pid) is int and _started_ticks(pid) == mark.get("started_ticks") is not None


def _started_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc_pid_stat(5)); None where it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold anything; what follows is the state and numbers.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])
