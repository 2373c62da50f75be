"""A process with several DHT nodes in it, told what to do and asked for what came of it (see scale_worker)."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.bench.scale_costs import children
from tests.bench.scale_memory import check_memory

_ROOT = Path(__file__).resolve().parents[2]
_LOOK_SECONDS = 1.0
_END_SECONDS = 30.0
# Stock hivemind hands its whole environment to p2pd: nothing but --gogc is to change how Go runs it.
_GO = ("GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG")


class Process:
    """A worker. Its first answer comes when its nodes are up. gogc: of their p2pd; 0: its own default."""

    def __init__(
        self, scheme: str, identities: Sequence[Path], state: Path, peers: Sequence[str], patience: float, gogc: int
    ) -> None:
        self.count = len(identities)
        self.daemons: list[int] = []
        self.address = ""
        env = {name: value for name, value in os.environ.items() if name not in _GO}
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.scale_worker", scheme],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT, text=True,
            env={**env, "HIVEMIND_LOGLEVEL": "ERROR", **({"GOGC": str(gogc)} if gogc else {})},
        )  # fmt: skip
        names = list(map(str, identities))
        self.tell({"identities": names, "state": str(state), "peers": list(peers), "patience": patience})

    def started(self) -> None:
        """Returns when its nodes are up."""
        first = self.answer()
        self.daemons, self.address = first["daemons"], first["address"]

    @property
    def pid(self) -> int:
        return self._popen.pid

    def tell(self, message: dict[str, Any]) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(message) + "\n")
        self._popen.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """RuntimeError where the worker ended instead, OutOfMemory where memory became short meanwhile."""
        assert self._popen.stdout is not None
        check_memory()
        # An answer is one line: nothing of the next lies in the buffer.
        while not select.select([self._popen.stdout], [], [], _LOOK_SECONDS)[0]:
            check_memory()
        line = self._popen.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with code {self._popen.wait()}; its stderr is above")
        return dict(json.loads(line))

    def ask_to_end(self) -> None:
        # One that has ended already reads no more.
        with suppress(BrokenPipeError):
            self.tell({"do": "end"})

    def end(self) -> None:
        """Waits for its end; kills what does not come to one, or left p2pd processes behind."""
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(_END_SECONDS)
        if self._popen.poll() != 0:
            self.kill()

    def kill(self) -> None:
        """At once, with its p2pd processes: those of stock hivemind would outlive it."""
        daemons = {*self.daemons, *children(self.pid)}
        self._popen.kill()
        for pid in daemons:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._popen.wait()
