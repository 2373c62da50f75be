"""Memory: what this process uses, and the tightest limit above it."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarmd.system.memory import MemoryLimit, memory_limit, rss_bytes

GIB = 1 << 30
MEMINFO = "MemTotal:       16777216 kB\nMemFree:         1000000 kB\nMemAvailable:    9000000 kB\n"
V1_UNLIMITED = "9223372036854771712\n"


def machine(root: Path, groups: str, **files: str) -> Path:
    """A directory that looks like / of a machine with 16 GiB; files: below /sys/fs/cgroup."""
    contents = {"proc/meminfo": MEMINFO, "proc/self/cgroup": groups}
    contents.update({f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_control_groups_it_is_the_ram(tmp_path: Path) -> None:
    machine(tmp_path, "")
    (tmp_path / "proc/self/cgroup").unlink()
    assert memory_limit(tmp_path) == MemoryLimit(16 * GIB, "RAM")


def test_v2_the_units_own_limit(tmp_path: Path) -> None:
    unit = "system.slice/swarmd.service"
    limits = {f"{unit}/memory.max": f"{2 * GIB}\n", "system.slice/memory.max": "max\n"}
    root = machine(tmp_path, f"0::/{unit}\n", **limits)
    assert memory_limit(root) == MemoryLimit(2 * GIB, f"memory.max of control group /{unit}")


def test_v2_a_tighter_limit_further_up_counts(tmp_path: Path) -> None:
    user = "user.slice/user-1000.slice"
    limits = {
        f"{user}/session.scope/memory.max": f"{8 * GIB}\n",
        f"{user}/memory.max": f"{3 * GIB}\n",
        "user.slice/memory.max": "max\n",
    }
    root = machine(tmp_path, f"0::/{user}/session.scope\n", **limits)
    assert memory_limit(root) == MemoryLimit(3 * GIB, f"memory.max of control group /{user}")


def test_v2_no_limit_anywhere_is_the_ram(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/a.slice\n", **{"a.slice/memory.max": "max\n"})
    assert memory_limit(root) == MemoryLimit(16 * GIB, "RAM")


def test_a_limit_above_the_ram_does_not_count(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/a.slice\n", **{"a.slice/memory.max": f"{64 * GIB}\n"})
    assert memory_limit(root) == MemoryLimit(16 * GIB, "RAM")


def test_v2_in_a_container_the_limit_stands_at_the_root(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/\n", **{"memory.max": f"{1 * GIB}\n"})
    assert memory_limit(root) == MemoryLimit(1 * GIB, "memory.max of control group /")


@pytest.mark.parametrize("path", ["/docker/0123abc", "/../../docker/0123abc"])
def test_v1_in_a_container_the_path_of_the_host_is_not_there(tmp_path: Path, path: str) -> None:
    root = machine(
        tmp_path, f"12:cpu,cpuacct:{path}\n4:memory:{path}\n", **{"memory/memory.limit_in_bytes": f"{GIB}\n"}
    )
    assert memory_limit(root) == MemoryLimit(GIB, "memory.limit_in_bytes of control group /")


def test_v1_the_greatest_number_means_no_limit(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        "4:memory:/a/b\n0::/\n",
        **{
            "memory/a/b/memory.limit_in_bytes": V1_UNLIMITED,
            "memory/a/memory.limit_in_bytes": f"{5 * GIB}\n",
            "memory/memory.limit_in_bytes": V1_UNLIMITED,
        },
    )
    assert memory_limit(root) == MemoryLimit(5 * GIB, "memory.limit_in_bytes of control group /a")


def test_hybrid_both_hierarchies_count(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        "4:memory:/a\n1:name=systemd:/a\n0::/a\n",
        **{"memory/a/memory.limit_in_bytes": f"{6 * GIB}\n", "unified/a/memory.max": f"{4 * GIB}\n"},
    )
    assert memory_limit(root).bytes == 4 * GIB


def test_this_machine_has_a_limit_that_this_process_keeps() -> None:
    limit = memory_limit()
    assert rss_bytes() < limit.bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_memory_that_is_touched_is_resident() -> None:
    before = rss_bytes()
    with mmap.mmap(-1, 64 << 20) as block:
        for offset in range(0, len(block), mmap.PAGESIZE):
            block[offset] = 1
        assert rss_bytes() - before > 48 << 20


def test_another_process_can_be_looked_at_and_one_that_is_gone_says_so() -> None:
    command = [sys.executable, "-c", "print(1, flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert rss_bytes(child.pid) > 1 << 20
        child.communicate(b"\n")
    with pytest.raises(ProcessLookupError, match=str(child.pid)):
        rss_bytes(child.pid)
