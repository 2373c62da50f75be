"""The worker: a forked copy of the scorer process that scores one batch inside the sandbox, and reports on a pipe.

Nothing here runs code that stands in an answer: the datasets whose scorers do have scorers of our own. The sandbox is
for the rest: hangs, memory, and what nobody has thought of yet.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from swarmd.system.child import die_with
from swarmd.system.sandbox import enter_worker_sandbox, prepare_worker_sandbox
from swarmd.tasks.packing import unpack_task
from swarmd.tasks.verdicts import CRASH, ERROR, MEMORY, TIMEOUT, Report, ScoreLimits

ScoringFunction = Callable[[str, dict[str, Any]], Any]

_REPORT_DESCRIPTOR = 3
_WRITABLE = (1, 2, _REPORT_DESCRIPTOR)
# Of many answers each may take its time: the kernel's own limit only ends a worker that nobody watches any more.
_CPU_SECONDS = 120


@dataclass(frozen=True)
class Item:
    """One answer to score: the function that does it, the packed task (fresh for each, since scorers write into
    their entry), and the answer."""

    score: ScoringFunction
    task: bytes
    answer: str


def prepare_workers() -> None:
    """Does beforehand what a worker would have to do, or could not do any more, after it was forked."""
    prepare_worker_sandbox(_WRITABLE)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.close(nowhere)


class Worker:
    """A forked worker that scores `items` from index `first` on, one after the other."""

    def __init__(self, items: Sequence[Item], first: int, limits: ScoreLimits) -> None:
        """Raises OSError where no process can be forked."""
        self._limits = limits
        self._reports = bytearray()
        self._next = first
        self._pipe, write_end = os.pipe()
        zygote = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _work(items, first, limits, write_end, zygote)
        os.close(write_end)
        # The clock of another process's CPU time, as clock_getcpuclockid(3) names it.
        self._clock = (~self._pid << 3) | 2
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        self._restart_clocks()

    def report(self, patience: float) -> Report | None:
        """The next report, waiting at most `patience` seconds; None when there is none by then.

        A worker that is over its limits, dead, or writes what is no report of the answer in work gets a report that
        says so, and `close` must follow.
        """
        while len(self._reports) < Report.SIZE:
            left = max(0.0, self._time_left())
            if not self._poll.poll(1000 * min(patience, left)):
                if self._time_left() <= 0:
                    return Report(self._next, 0.0, TIMEOUT)
                if patience <= left:
                    return None
                continue
            received = os.read(self._pipe, 64 * 1024)
            if not received:
                return Report(self._next, 0.0, CRASH)
            self._reports += received
            self._restart_clocks()
        try:
            report = Report.from_bytes(bytes(self._reports[: Report.SIZE]))
        except ValueError:
            return Report(self._next, 0.0, CRASH)
        del self._reports[: Report.SIZE]
        if report.index != self._next:
            return Report(self._next, 0.0, CRASH)
        self._next += 1
        return report

    def _time_left(self) -> float:
        """Seconds until the answer in work can have used up its CPU or its wall time."""
        wall = self._limits.wall_s - (time.monotonic() - self._since)
        return min(wall, self._limits.cpu_s - (self._cpu() - self._cpu_since))

    def _restart_clocks(self) -> None:
        self._since = time.monotonic()
        self._cpu_since = self._cpu()

    def _cpu(self) -> float:
        return time.clock_gettime(self._clock)

    def close(self) -> None:
        """Ends the worker, whatever it does, and reaps it."""
        os.close(self._pipe)
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _work(items: Sequence[Item], first: int, limits: ScoreLimits, pipe: int, zygote: int) -> NoReturn:
    """In the forked process. Never returns: whatever happens ends the process."""
    try:
        die_with(zygote)
        os.dup2(pipe, _REPORT_DESCRIPTOR)
        for descriptor in (1, 2):  # what a scorer prints has no place in the log
            os.dup2(0, descriptor)
        os.closerange(_REPORT_DESCRIPTOR + 1, 128)
        enter_worker_sandbox(_WRITABLE, limits.memory_bytes, _CPU_SECONDS)
        for index in range(first, len(items)):
            report = score_item(index, items[index])
            os.write(_REPORT_DESCRIPTOR, report.to_bytes())
            if report.reason == MEMORY:
                break  # what the answer left behind may be the next one's lack
    finally:
        os._exit(0)


def score_item(index: int, item: Item) -> Report:
    """The report on one answer."""
    try:
        return Report.of(index, item.score(item.answer, unpack_task(item.task)))
    except MemoryError:
        return Report(index, 0.0, MEMORY)
    except Exception:
        # The one place where any exception is caught: 72 of the scorers let some escape (ValueError, KeyError,
        # OverflowError, StopIteration, ...) on text that no honest answer has, and one even on wrong ones.
        return Report(index, 0.0, ERROR)
