"""What is printed past the log: the lines of child processes, and of libraries that print where they should log.

All of it goes to DEBUG with its source named. Faults go further: the last lines of a child that crashed are a warning,
an exception that nobody caught is an error. A child of ours that writes a log says of each line how much it matters, in
the way of sd-daemon(3); strangers may be the cause of such lines, so there are only so many a minute.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from types import TracebackType

from swarmd.system.events import NOTICE, crashed
from swarmd.system.redaction import LineRedactor

_LONGEST_LINE = 8000  # with the name of its source it still fits into a message
_LAST_LINES = 60
_LEVELS = {"<3>": logging.ERROR, "<4>": logging.WARNING, "<5>": NOTICE, "<6>": logging.INFO, "<7>": logging.DEBUG}
_LEVELED_A_MINUTE = 20

_log = logging.getLogger("swarmd")


class LineReader:
    """Reads what a child prints, line by line, in a thread of its own, until the child and its children are gone."""

    def __init__(self, source: str, descriptor: int, *, leveled: bool = False) -> None:
        """descriptor: the end of a pipe; it is closed when there is nothing more to read. leveled: lines begin with
        their priority."""
        self._source = source
        self._leveled = leveled
        self._minute, self._told = 0.0, 0
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        # A daemon: a grandchild that lives on holds the pipe open, and must not hold this process.
        self._thread = threading.Thread(target=self._read, args=(descriptor,), name=f"lines-{source}", daemon=True)
        self._thread.start()

    def last_lines(self, patience: float) -> list[str]:
        """The last 60 lines, with a crash dump if there was one; waits `patience` seconds for the end of the lines."""
        self._thread.join(patience)
        return list(self._last)

    def _read(self, descriptor: int) -> None:
        redactor = LineRedactor()
        with open(descriptor, encoding="utf-8", errors="backslashreplace", newline=None) as lines:
            # By pieces: a line without an end must not fill the memory.
            while line := lines.readline(_LONGEST_LINE):
                if text := redactor.line(line.rstrip()):
                    level, text = self._level(text)
                    self._last.append(text)
                    tell(self._source, text, level)

    def _level(self, text: str) -> tuple[int, str]:
        """How much a line matters, and the line without the mark that says so."""
        if not self._leveled or text[:3] not in _LEVELS:
            return logging.DEBUG, text
        if time.monotonic() - self._minute > 60.0:
            self._minute, self._told = time.monotonic(), 0
        self._told += 1
        return _LEVELS[text[:3]] if self._told <= _LEVELED_A_MINUTE else logging.DEBUG, text[3:]


def tell(source: str, text: str, level: int = logging.DEBUG) -> None:
    """One line that `source` printed."""
    _log.log(level, "%s", f"{source}: {text}", extra={"event_source": source})


def tell_crash(source: str, status: int, lines: list[str]) -> None:
    """A warning that a child died of itself (status as subprocess gives it), with its last lines."""
    how = f"signal {_signal_name(-status)}" if status < 0 else f"exit status {status}"
    _log.warning(
        "%s",
        f"the {source} process died with {how}" + (", its last lines:" if lines else ", without a word"),
        extra={"event_source": source, "event_details": "\n".join(lines)},
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)  # a real-time signal


class LineStream(io.TextIOBase):
    """In place of sys.stdout or sys.stderr: each line that is printed goes to the log at DEBUG.

    What is written to the descriptor itself (by C libraries, by faulthandler) does not come through here.
    """

    def __init__(self, source: str, descriptor: int) -> None:
        self._source = source
        self._descriptor = descriptor
        self._begun = ""
        self._redactor = LineRedactor()
        self._inside = threading.local()

    def write(self, text: str) -> int:
        if getattr(self._inside, "logging", False):
            # The log itself complains that it cannot write: past it, not in a circle.
            os.write(self._descriptor, text.encode(errors="backslashreplace"))
            return len(text)
        # A progress bar returns to the beginning of its line again and again.
        *lines, begun = (self._begun + text).replace("\r", "\n").split("\n")
        self._begun = begun[-_LONGEST_LINE:]
        self._inside.logging = True
        try:
            for line in lines:
                if line.strip() and (shown := self._redactor.line(line.rstrip())):
                    tell(self._source, shown)
        finally:
            self._inside.logging = False
        return len(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor


def adopt_streams() -> None:
    """Has what this process prints from now on go to the log, and exceptions that nobody catches too.

    For the service: on a terminal, and with a debugger, prints belong where they are. Call it after configure_logging.
    """
    if sys.stdout is not None:
        sys.stdout.flush()
    sys.stdout = LineStream("stdout", 1)
    sys.stderr = LineStream("stderr", 2)


def report_uncaught() -> None:
    """Writes exceptions that nobody caught to the log, whose redaction they would otherwise miss."""
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        crashed(error)


def _uncaught_in_thread(uncaught: threading.ExceptHookArgs) -> None:
    name = uncaught.thread.name if uncaught.thread else "unknown"
    if uncaught.exc_value is not None and not isinstance(uncaught.exc_value, SystemExit):
        _log.error("the thread %s ended: %r", name, uncaught.exc_value, exc_info=uncaught.exc_value)


def _unraisable(ignored: sys.UnraisableHookArgs) -> None:
    # Errors in finalizers: libraries have many at the end of a process, and nothing follows from them.
    _log.debug("ignored in %r: %r", ignored.object, ignored.exc_value, exc_info=ignored.exc_value)
