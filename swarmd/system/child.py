"""Starting, ending and replacing swarmd's child processes.

A child is `python -m MODULE` in a session of its own, with one end of a Link, an environment that holds nothing of
its parent's secrets, and a standard input that is empty. What it prints goes to the parent's log, line by line, with
its name. It dies with its parent (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from swarmd.system.events import event
from swarmd.system.link import Link, LinkError
from swarmd.system.streams import LineReader, tell_crash

_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29
_KILL_SECONDS = 10.0
_LAST_WORDS_SECONDS = 0.5

# What a child gets of its parent's environment: where programs and the home are, and nothing that could be secret.
# (MPLCONFIGDIR: reasoning-gym imports matplotlib, which looks for a directory to write to.)
_CARRIED = ("PATH", "HOME", "TZ", "LD_LIBRARY_PATH", "MPLCONFIGDIR")

_log = logging.getLogger("swarmd")

_LONGEST_DELAY = 30.0
_HEALTHY_SECONDS = 300.0


class Child:
    """A running child process and the link to it."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], link: Link, printed: LineReader) -> None:
        self._name = name
        self._process = process
        self._printed = printed
        self.link = link

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> int:
        """Ends the child at once and reaps it; returns its exit status (negative: the signal it died of).

        If it had died of itself, its last lines are a warning.
        """
        if self._has_hung_up():
            # It is ending just now: its own status says more than that of our signal.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST_WORDS_SECONDS)
        dead_before = self._process.poll() is not None
        self.link.close()
        self._process.kill()
        try:
            status = self._process.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired:
            # It waits for a disk or a driver inside the kernel; it dies when that answers, and is of no use till then.
            _log.warning("the %s process (pid %d) does not end", self._name, self.pid)
            return -signal.SIGKILL
        if (dead_before and status != 0) or status not in (0, -signal.SIGKILL):
            tell_crash(self._name, status, self._printed.last_lines(_LAST_WORDS_SECONDS))
        return status

    def ask_to_end(self, message: Any, seconds: float) -> None:
        """Sends its last message and waits at most `seconds` until it has ended by itself."""
        with contextlib.suppress(LinkError, subprocess.TimeoutExpired):
            self.link.send(message, seconds)
            self._process.wait(seconds)

    def _has_hung_up(self) -> bool:
        if self.link.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(self.link.fileno(), 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))


def start_child(
    name: str, module: str, environment: Mapping[str, str] | None = None, *, leveled: bool = False
) -> Child:
    """Starts `python -m module`, which begins with `adopt_parent()`.

    name: for the log; environment: what it needs besides PATH, HOME, TZ, LANG and the module search path of this
    process; leveled: its lines begin with their priority (sd-daemon(3)). To be called by a thread that lives as long as
    the child shall: the kernel ends a child with the *thread* that started it. Raises OSError where no process can be
    made.
    """
    variables = {name: os.environ[name] for name in _CARRIED if name in os.environ}
    # The child imports what the parent would, and nothing from the directory it happens to be started in (-P).
    variables["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
    variables.update(LANG="C.UTF-8", PYTHONDONTWRITEBYTECODE="1")
    variables.update(environment or {})
    ours, theirs = Link.pair()
    read_end, write_end = os.pipe()
    arguments = [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(os.getpid())]
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=write_end,
            stderr=write_end,
            pass_fds=(theirs.fileno(),),
            env=variables,
            # Ctrl-C on the terminal asks the node to finish its round; the children must live until then.
            start_new_session=True,
        )
    except OSError:
        ours.close()
        os.close(read_end)
        raise
    finally:
        theirs.close()
        os.close(write_end)
    return Child(name, process, ours, LineReader(name, read_end, leveled=leveled))


def adopt_parent() -> Link:
    """In the child, first of all: ties its life to the parent's and returns the link to it.

    Raises ProcessLookupError where the parent has already gone.
    """
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    die_with(parent)
    return Link(socket.socket(fileno=descriptor))


def die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent `parent` ends. Raises ProcessLookupError if it has."""
    _prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, signal.SIGKILL)
    # A parent that died before the call sends no signal any more.
    if os.getppid() != parent:
        raise ProcessLookupError(f"the parent process {parent} is gone")


def sleep_loosely(seconds: float) -> None:
    """Lets the kernel wake this thread, and all threads and processes that it starts, so much later than their timers
    say, and so for several at once (prctl(2), PR_SET_TIMERSLACK). What arrives wakes them at once.
    """
    _prctl("PR_SET_TIMERSLACK", _PR_SET_TIMERSLACK, int(seconds * 1e9))


def _prctl(name: str, option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({name}): {os.strerror(number)}")


class ChildKeeper:
    """Keeps one child of a kind: starts it when it is asked for, and replaces it after it was discarded.

    Replacements that follow each other within five minutes wait, each about twice as long as the one before
    (0.25 to 30 s after the last start, with jitter, so that the nodes of a machine do not move in step).
    """

    def __init__(self, name: str, start: Callable[[], Child]) -> None:
        """start: makes a child that is ready to work, or raises."""
        self._name = name
        self._start = start
        self._child: Child | None = None
        self._starts = 0
        self._last_start = 0.0
        self._not_before = 0.0
        self._reason = ""
        self.restarts = 0
        """How often a child was discarded and another one took its place."""

    @property
    def pid(self) -> int | None:
        """The process id of the running child, None between two of them."""
        child = self._child  # read once: other threads ask as well
        return child.pid if child else None

    def get(self) -> Child:
        """The child; where there is none, a new one, after the delay that is due. Raises what `start` raises."""
        if self._child is None:
            time.sleep(max(0.0, self._not_before - time.monotonic()))
            self._last_start = time.monotonic()
            delay = min(_LONGEST_DELAY, 0.25 * 2 ** min(self._starts, 8))
            self._not_before = self._last_start + delay * random.uniform(0.5, 1.5)
            self._starts += 1
            self._child = self._start()
            if self._reason:
                self.restarts += 1
                event(
                    "child_replaced",
                    f"the {self._name} process was replaced: {self._reason} (replacement {self.restarts})",
                    priority=4,
                    child=self._name,
                    reason=self._reason,
                    restarts=self.restarts,
                    pid=self._child.pid,
                )
                self._reason = ""
        return self._child

    def discard(self, reason: str) -> None:
        """Kills the child, for `reason` (a few words for the log); the next `get` starts another one."""
        if self._child is None:
            return
        child, self._child = self._child, None
        status = child.kill()
        self._reason = f"{reason}, exit status {status}" if status != -signal.SIGKILL else reason
        if time.monotonic() - self._last_start > _HEALTHY_SECONDS:
            self._starts, self._not_before = 0, 0.0

    def close(self, last: Any = None, seconds: float = 0.0) -> None:
        """Ends the child for good. last: a message on which it ends by itself, for which it has so many seconds."""
        if self._child is not None:
            child, self._child = self._child, None
            if last is not None:
                child.ask_to_end(last, seconds)
            child.kill()
