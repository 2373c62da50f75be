"""How near the node is to its memory's end, from files like the kernel's, and the watch over it."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from swarmd.system.memory import MemoryLimit, killed_together, limited_groups, memory_limit
from swarmd.system.pressure import MemoryGuard, Reading, UnitMemory, group_reading, tree_bytes

MIB = 1 << 20
GIB = 1 << 30
UNIT = "system.slice/swarmd.service"
MEMINFO = "MemTotal:       16777216 kB\n"


def machine(root: Path, groups: str, files: dict[str, str], rss: int = 10 * MIB) -> Path:
    """A directory that looks like / of a machine with 16 GiB; files: below /sys/fs/cgroup."""
    contents = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": groups,
        "proc/self/status": f"Name:\tswarmd\nVmRSS:\t{rss >> 10} kB\nRssAnon:\t100 kB\nRssShmem:\t0 kB\n",
    }
    contents.update({f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v2(current: int, limit: int, cache: int = 0, pressure: str | None = None) -> dict[str, str]:
    stat = f"anon {current - cache}\nfile {cache + 7 * MIB}\nshmem {7 * MIB}\n"
    files = {
        f"{UNIT}/memory.max": f"{limit}\n",
        f"{UNIT}/memory.current": f"{current}\n",
        f"{UNIT}/memory.stat": f"{stat}inactive_file {cache // 2}\nactive_file {cache - cache // 2}\n",
    }
    if pressure is not None:
        files[f"{UNIT}/memory.pressure"] = f"some avg10=99.00 avg60=0.00 avg300=0.00 total=1\n{pressure}\n"
    return files


def read(root: Path) -> Reading:
    return UnitMemory(memory_limit(root), root).read()


def test_v2_page_cache_is_no_use_and_shared_memory_is(tmp_path: Path) -> None:
    root = machine(tmp_path, f"0::/{UNIT}\n", v2(1900 * MIB, 2 * GIB, cache=600 * MIB))
    reading = read(root)
    assert (reading.use, reading.limit) == (1300 * MIB, 2 * GIB)
    assert reading.source == f"control group /{UNIT}"
    assert not reading.near


def test_v2_nine_tenths_of_the_limit_are_near(tmp_path: Path) -> None:
    assert read(machine(tmp_path, f"0::/{UNIT}\n", v2(1850 * MIB, 2 * GIB))).near
    assert not read(machine(tmp_path, f"0::/{UNIT}\n", v2(1800 * MIB, 2 * GIB))).near


@pytest.mark.parametrize(
    ("use", "full", "near"), [(1700, "12.50", True), (1700, "3.00", False), (1500, "60.00", False)]
)
def test_v2_a_group_that_waits_for_memory_is_near_sooner(tmp_path: Path, use: int, full: str, near: bool) -> None:
    pressure = f"full avg10={full} avg60=0.00 avg300=0.00 total=5"
    reading = read(machine(tmp_path, f"0::/{UNIT}\n", v2(use * MIB, 2 * GIB, pressure=pressure)))
    assert reading.stalled == pytest.approx(float(full) / 100)
    assert reading.near is near


def test_v1_the_group_and_all_below_it_count(tmp_path: Path) -> None:
    files = {
        "memory/a/memory.limit_in_bytes": f"{GIB}\n",
        "memory/a/memory.usage_in_bytes": f"{900 * MIB}\n",
        "memory/a/memory.stat": f"active_file 1\ninactive_file 1\ntotal_inactive_file {200 * MIB}\n"
        f"total_active_file {100 * MIB}\ntotal_shmem {50 * MIB}\n",
    }
    reading = read(machine(tmp_path, "4:memory:/a\n0::/\n", files))
    assert (reading.use, reading.limit, reading.stalled) == (600 * MIB, GIB, 0.0)


def test_a_fuller_group_further_up_is_the_one_that_counts(tmp_path: Path) -> None:
    files = v2(100 * MIB, GIB)
    files |= {
        "system.slice/memory.max": f"{4 * GIB}\n",
        "system.slice/memory.current": f"{3900 * MIB}\n",
        "system.slice/memory.stat": "inactive_file 0\nactive_file 0\n",
    }
    reading = read(machine(tmp_path, f"0::/{UNIT}\n", files))
    assert (reading.source, reading.near) == ("control group /system.slice", True)


def test_a_limit_that_is_changed_while_it_runs_counts_at_the_next_look(tmp_path: Path) -> None:
    root = machine(tmp_path, f"0::/{UNIT}\n", v2(900 * MIB, 2 * GIB))
    memory = UnitMemory(memory_limit(root), root)
    assert not memory.read().near
    (root / "sys/fs/cgroup" / UNIT / "memory.max").write_text(f"{GIB - 50 * MIB}\n")
    assert memory.read().near


def test_without_a_group_it_is_the_nodes_own_memory_against_the_limit(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/\n", {}, rss=15 * GIB)
    assert read(root) == Reading(15 * GIB, 16 * GIB, "RAM")
    assert read(root).near
    own = UnitMemory(MemoryLimit(20 * GIB, "memory.limit"), root).read()
    assert own == Reading(15 * GIB, 20 * GIB, "memory.limit")


def test_children_count_with_what_they_have_to_themselves(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/\n", {}, rss=100 * MIB)
    for pid, children in (("self/task/1", "7 "), ("7/task/7", "8 "), ("8/task/8", "")):
        (root / "proc" / pid).mkdir(parents=True)
        (root / "proc" / pid / "children").write_text(children)
    for pid in ("7", "8"):
        (root / "proc" / pid / "status").write_text("VmRSS:\t90000 kB\nRssAnon:\t1024 kB\nRssShmem:\t2048 kB\n")
    assert tree_bytes(root) == 106 * MIB


def test_a_group_that_is_gone_or_odd_gives_no_reading(tmp_path: Path) -> None:
    root = machine(tmp_path, f"0::/{UNIT}\n", v2(GIB, 2 * GIB))
    (group,) = limited_groups(root)
    (group.directory / "memory.stat").write_text("inactive_file many\n")
    assert group_reading(group) is None
    (group.directory / "memory.current").unlink()
    assert group_reading(group) is None
    assert read(root).source.startswith("memory.max of control group")


@pytest.mark.parametrize(("group", "together"), [("1", True), ("0", False), (None, False)])
def test_whether_the_kernel_kills_the_unit_as_a_whole(tmp_path: Path, group: str | None, together: bool) -> None:
    files = {f"{UNIT}/memory.oom.group": f"{group}\n"} if group else {}
    assert killed_together(machine(tmp_path, f"0::/{UNIT}/inner\n", files)) is together


def test_real_memory_of_a_child_is_seen() -> None:
    command = [sys.executable, "-c", "block = bytearray(b'x') * (80 << 20); print(1, flush=True); input()"]
    before = tree_bytes()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert tree_bytes() - before > 70 * MIB
        child.communicate(b"\n")


def near(use: int = 95) -> Reading:
    return Reading(use, 100, "test")


def test_one_crossing_is_told_once_and_the_next_after_the_cool_down() -> None:
    now, use = [0.0], [50]
    guard = MemoryGuard(lambda: near(use[0]), cool_down=15, clock=lambda: now[0])
    guard.look()
    assert not guard.near
    assert guard.take() is None
    use[0] = 95
    guard.look()
    use[0] = 50
    guard.look()
    assert guard.near  # though it fell by itself
    assert guard.take() == near()
    use[0] = 99
    now[0] = 14.9
    guard.look()
    assert not guard.near
    now[0] = 15.0
    guard.look()
    assert guard.take() == near(99)
    guard.look()
    guard.rest()
    assert guard.take() is None


def test_the_thread_sees_memory_that_fills_for_real() -> None:
    before, seen = tree_bytes(), threading.Event()

    def measure() -> Reading:
        # What comes on top of what the test's process has already.
        reading = Reading(tree_bytes() - before, 64 * MIB, "test")
        if reading.near:
            seen.set()
        return reading

    guard = MemoryGuard(measure, interval=0.01)
    guard.start()
    with mmap.mmap(-1, 80 * MIB) as block:
        for offset in range(0, len(block), mmap.PAGESIZE):
            block[offset] = 1
        assert seen.wait(10)
        taken = guard.take()
    guard.close()
    assert taken is not None
    assert taken.near


@pytest.mark.parametrize("fault", [ProcessLookupError(3, "No such process"), ValueError("not enough values to unpack")])
def test_the_thread_looks_on_after_a_look_in_which_a_process_vanished(fault: Exception) -> None:
    looks = iter([fault, fault])

    def measure() -> Reading:
        if (error := next(looks, None)) is not None:
            raise error  # as reading a file in /proc does whose process ends at that moment
        return near()

    guard = MemoryGuard(measure, interval=0.001, cool_down=0.0)
    guard.start()
    end = time.monotonic() + 60
    while not guard.near and time.monotonic() < end:
        time.sleep(0.001)
    guard.close()
    assert guard.take() == near()


def test_processes_that_come_and_go_while_the_memory_is_read_are_no_fault() -> None:
    ended, faults = threading.Event(), []

    def read_on() -> None:
        while not ended.is_set():
            try:
                assert tree_bytes() > 0
            except Exception as error:  # whatever it is: the test tells it
                faults.append(error)
                return

    thread = threading.Thread(target=read_on)
    thread.start()
    for _ in range(100):
        if (pid := os.fork()) == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    ended.set()
    thread.join()
    assert not faults
