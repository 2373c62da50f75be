"""The most memory this process has held since a moment (proc_pid_status(5), VmHWM)."""

from __future__ import annotations

import gc
from pathlib import Path

from swarmd.system.memory import rss_bytes

_RESET_PEAK = "5"  # proc(5), /proc/pid/clear_refs


def begin() -> int:
    """Resident bytes now, after which `peak_bytes` counts anew. OSError where the kernel does not let it."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    return rss_bytes()


def peak_bytes() -> int:
    """Most resident bytes since `begin`. OSError where the kernel does not tell."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM line")
