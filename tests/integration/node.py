"""Running nodes for tests: started, watched through what they write, signalled, and never left behind."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600.0
"""Seconds after which something that should have happened counts as failed, on a machine with much else to do."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """That of a process under test: nothing of the user's swarmd settings and directories."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("SWARMD_", "XDG_"))}
    for name in ("STATE_DIRECTORY", "CACHE_DIRECTORY", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY"):
        ours.pop(name, None)
    return {**ours, "PYTHONPATH": str(ROOT), **(extra or {})}


def until(what: Callable[[], Any], seconds: float = PATIENCE, *, every: float = 0.01, why: str = "") -> Any:
    """What `what` returns, as soon as that is true; the test fails when it isn't within `seconds`."""
    end = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:g} s: {why or what}")
        time.sleep(every)
    return found


class Preloaded:
    """The process that forks; see preloaded.py."""

    def __init__(self, module: str = "tests.integration.preloaded") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment(),
        )  # fmt: skip
        self._pids: queue.Queue[int] = queue.Queue()
        self._codes: dict[int, int] = {}
        self._asking = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "pid" in message:
                self._pids.put(message["pid"])
            elif "ended" in message:
                self._codes[message["ended"]] = message["code"]

    def start(self, arguments: Sequence[str], variables: Mapping[str, str], out: Path, err: Path) -> int:
        """The pid of a fork that runs `swarmd ARGUMENTS`."""
        assert self._process.stdin is not None
        request = {
            "arguments": list(arguments), "environment": dict(variables), "directory": str(ROOT),
            "out": str(out), "err": str(err),
        }  # fmt: skip
        with self._asking:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            return self._pids.get(timeout=PATIENCE)

    def code(self, pid: int) -> int | None:
        """The exit code of a fork that has ended."""
        return self._codes.get(pid)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)


class Node:
    """`swarmd run` on a state directory. A context manager, which kills it at the end if it still runs.

    preloaded: fork it from there; None: a new interpreter, `python -m swarmd`, perhaps with `before` in front.
    settings: the configuration, by section.
    """

    def __init__(
        self,
        state: Path,
        settings: Mapping[str, Any],
        *arguments: str,
        preloaded: Preloaded | None = None,
        before: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.state = state
        self._err = state.with_name(state.name + ".err")
        self._err.unlink(missing_ok=True)
        out = state.with_name(state.name + ".out")
        config = state.with_name(state.name + ".yaml")
        config.write_text(json.dumps(settings))
        command = ["run", "--state", str(state), "--config", str(config), *arguments]
        cache = {"XDG_CACHE_HOME": str(state.with_name("cache")), **(variables or {})}
        self._preloaded = preloaded
        self._process: subprocess.Popen[bytes] | None = None
        if preloaded is not None:
            self.pid = preloaded.start(command, environment(cache), out, self._err)
            return
        with open(out, "ab") as stdout, open(self._err, "ab") as stderr:
            self._process = subprocess.Popen(
                [*before, sys.executable, "-m", "swarmd", *command],
                stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, cwd=ROOT, env=environment(cache),
            )  # fmt: skip
        self.pid = self._process.pid

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        if self.code() is None:
            self.kill()

    def code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self._process is not None:
            return self._process.poll()
        assert self._preloaded is not None
        return self._preloaded.code(self.pid)

    def end(self, seconds: float = PATIENCE) -> int:
        """Waits for its end."""
        until(lambda: self.code() is not None, seconds, why=f"the node's end; it wrote:\n{self.text()}")
        code = self.code()
        assert code is not None
        return code

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def freeze(self) -> None:
        """SIGSTOP, and until it has stopped."""
        self.send(signal.SIGSTOP)
        until(lambda: _stat(self.pid)[:1] in (["T"], []), every=0.0005)

    def kill(self) -> None:
        """SIGKILL, and its end."""
        self.send(signal.SIGKILL)
        self.end()

    def text(self) -> str:
        """All that it has written to stderr."""
        return self._err.read_text(errors="replace") if self._err.exists() else ""

    def lines(self) -> list[str]:
        return self.text().splitlines()

    def line(self, pattern: str, seconds: float = PATIENCE) -> str:
        """The first line that the pattern is found in, as soon as there is one."""
        end = time.monotonic() + seconds
        while True:
            ended = self.code() is not None
            for line in self.lines():
                if re.search(pattern, line):
                    return line
            if ended or time.monotonic() > end:
                pytest.fail(f"no line {pattern!r}; exit code {self.code()}, it wrote:\n{self.text()}")
            time.sleep(0.02)

    def rounds(self) -> list[int]:
        """The rounds it has told of, each after its checkpoint."""
        return [int(number) for number in re.findall(r"^swarmd: round (\d+): ", self.text(), re.MULTILINE)]

    def after_round(self, number: int) -> None:
        """Waits until round `number` is told."""
        self.line(rf"^swarmd: round {number}: ")

    def descendants(self) -> dict[int, int]:
        """Its children and theirs: {pid: start time in clock ticks}."""
        return descendants(self.pid)


def descendants(ancestor: int) -> dict[int, int]:
    """All processes under `ancestor`: {pid: start time in clock ticks}."""
    parents: dict[int, tuple[int, int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))):
            parents[int(entry)] = int(fields[1]), int(fields[19])
    found: dict[int, int] = {}
    level = {ancestor}
    while level:
        level = {pid for pid, (parent, _) in parents.items() if parent in level} - found.keys()
        found.update((pid, parents[pid][1]) for pid in level)
    return found


def alive(processes: Mapping[int, int]) -> list[int]:
    """Those of the processes ({pid: start time}) that still run; a zombie does not."""
    return [pid for pid, begun in processes.items() if (fields := _stat(pid)) and int(fields[19]) == begun]


def _stat(pid: int) -> list[str]:
    """The fields of proc_pid_stat(5) from the state on; none for a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [] if fields[0] in ("Z", "X") else fields

