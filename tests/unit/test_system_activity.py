"""A process that was stopped is told from one that computes, or could if the machine had time."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swarmd.system.activity import Activity

SLEEPS = "import time\nprint(flush=True)\ntime.sleep(600)"
COMPUTES = "print(flush=True)\nwhile True: pass"
COMPUTES_IN_A_THREAD = f"""
import threading, time
def work():
    {COMPUTES.replace(chr(10), chr(10) + "    ")}
threading.Thread(target=work).start()
time.sleep(600)
"""


@contextmanager
def running(program: str) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


def wait_until_idle(pid: int) -> None:
    """The interpreter's last steps towards its sleep take a moment."""
    while not Activity.of(pid).idle_since():
        time.sleep(0.05)


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    while any((thread / "stat").read_text().rpartition(")")[2].split()[0] != "T" for thread in threads):
        time.sleep(0.01)


def test_who_sleeps_or_was_stopped_is_idle() -> None:
    with running(SLEEPS) as pid:
        wait_until_idle(pid)
        assert Activity.of(pid).idle_since()
        assert not Activity.of(pid).stopped
    with running(COMPUTES_IN_A_THREAD) as pid:
        assert not Activity.of(pid).stopped
        stop(pid)
        assert Activity.of(pid).idle_since() and Activity.of(pid).stopped


def test_who_computes_in_any_thread_is_not_idle_and_what_it_computed_counts_when_it_rests() -> None:
    for program in (COMPUTES, COMPUTES_IN_A_THREAD):
        with running(program) as pid:
            then = Activity.of(pid)
            assert not then.idle_since(3600.0), "it could go on at any time"
            while Activity.of(pid).spent - then.spent < 0.3:
                time.sleep(0.05)
            stop(pid)
            assert not then.idle_since(0.2) and then.idle_since(3600.0)


def test_who_is_gone_is_idle() -> None:
    with running(SLEEPS) as pid:
        wait_until_idle(pid)
        then = Activity.of(pid)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert then.idle_since(0.1) and then.stopped, "its end is work, too, but little"
    assert then.idle_since() and then.stopped and Activity.of(pid).spent == 0.0
