"""An environment whose tasks are swarmd's own and whose process fails on command; runs inside nodes under test.

Copied into a test machine and named by `tasks.environment: faults:factory`, with PYTHONPATH set for the unit (see
service.py). A command is a line in the file `fault` in the state directory; it is removed when it is taken, so that
the next start is sound:

    hang PHASE    the next time the node is in this phase, its main thread waits for a lock that nobody releases
    seize PHASE   there, after two seconds, the main thread keeps the interpreter's lock and all signals, as a loop of a
                  library in C may do
    raise PHASE   there RuntimeError is raised
    kill SIGNAL   at once; a name such as SEGV
    hold MIB      at once; takes so much memory, in place of what was held or leaked before, and keeps it
    leak MIB      at once; takes so much every second, on and on
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swarmd.system.phases import Phases
    from swarmd.tasks.environment import Environment, EnvironmentContext

COMMAND_FILE = "fault"
SLOW_SECONDS = 65.0
_IN_A_PHASE = ("hang", "seize", "raise")
_LOOK_EVERY = 0.1
# Until then the status tells of the phase; afterwards nothing in the process can.
_BEFORE_SEIZING = 2.0


class Faults:
    """Takes commands from a file, and carries them out at once or in the phase they name."""

    def __init__(self, commands: Path) -> None:
        self._commands = commands
        self._pending: dict[str, str] = {}
        self._held: list[bytearray] = []

    def watch(self) -> None:
        """For ever; in a thread of its own."""
        leak = 0
        while True:
            name, _, argument = self._take().partition(" ")
            if name in _IN_A_PHASE:
                self._pending[argument] = name
            elif name == "kill":
                os.kill(os.getpid(), signal.Signals[f"SIG{argument}"])
            elif name == "hold":
                leak = 0
                self._held = [_memory(int(argument))]
            elif name == "leak":
                leak = int(argument)
            elif name:
                raise ValueError(f"{self._commands}: {name!r} is no fault")
            if leak:
                self._held.append(_memory(leak))
            time.sleep(1.0 if leak else _LOOK_EVERY)

    def strike(self, phase: str) -> None:
        """What is commanded for this phase, in the thread that is in it."""
        match self._pending.pop(phase, None):
            case "hang":
                _hang()
            case "seize":
                _seize()
            case "raise":
                raise RuntimeError(f"a fault in phase {phase}, as commanded")

    def _take(self) -> str:
        try:
            command = self._commands.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""
        self._commands.unlink()
        return command


def factory(settings: Any, context: EnvironmentContext) -> Environment:
    """The environment `reasoning_gym`, and what breaks the process around it."""
    from swarmd.system.phases import Phases
    from swarmd.tasks.reasoning import reasoning_environment

    faults = Faults(Path(os.environ["STATE_DIRECTORY"]) / COMMAND_FILE)
    threading.Thread(target=faults.watch, name="faults", daemon=True).start()
    Phases.enter = _striking(Phases.enter, faults)  # type: ignore[method-assign,assignment]
    return reasoning_environment(settings, context)


def slow_factory(settings: Any, context: EnvironmentContext) -> Environment:
    """The same, after a while."""
    time.sleep(SLOW_SECONDS)
    return factory(settings, context)


def _striking(
    enter: Callable[[Phases, str], AbstractContextManager[None]], faults: Faults
) -> Callable[[Phases, str], AbstractContextManager[None]]:
    @contextmanager
    def entered(self: Phases, phase: str) -> Iterator[None]:
        with enter(self, phase):
            faults.strike(phase)
            yield

    return entered


def _hang() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def _seize() -> None:
    time.sleep(_BEFORE_SEIZING)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    # PyDLL calls C without letting go of the interpreter's lock.
    ctypes.PyDLL(None).sleep(2**31 - 1)


def _memory(mib: int) -> bytearray:
    # Not zeros: those would be pages that the kernel has promised and not given.
    return bytearray(b"\x01") * (mib << 20)
