"""Structured records for the systemd journal (journald's native protocol, through systemd-python).

Used where the service manager has connected stderr with the journal and systemd-python is installed; elsewhere the
node writes lines. journald may be away for a while (restarting, stuck, its queue full): then records wait here,
bounded, and the node goes on; what did not fit is counted and said.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from swarmd.system.message_ids import MESSAGE_IDS

IDENTIFIER = "swarmd"
JOURNAL_SOCKET = "/run/systemd/journal/socket"

_PATIENCE_SECONDS = 0.25
_LAST_PATIENCE_SECONDS = 1.0
_MOST_WAITING_BYTES = 4 * 1024 * 1024
_LONGEST_NAME = 64  # of a field, systemd.journal-fields(7)
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (25, 5), (logging.INFO, 6))
_NOT_IN_NAMES = re.compile(r"[^A-Z0-9_]")


def stderr_is_journal() -> bool:
    """Whether descriptor 2 is the stream to the journal that $JOURNAL_STREAM names (systemd.exec(5))."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    if not (device.isdigit() and inode.isdigit()):
        return False
    try:
        status = os.fstat(2)
    except OSError:
        return False  # closed
    return (status.st_dev, status.st_ino) == (int(device), int(inode))


def journal_handler(context: Callable[[], Mapping[str, object]]) -> JournalHandler | None:
    """A handler that writes to the journal; None where stderr is not the journal or systemd-python is missing.

    context: gives the fields that every record carries besides its own.
    """
    if not stderr_is_journal():
        return None
    try:
        from systemd.journal import sendv
    except ImportError:
        return None
    return JournalHandler(context, lambda fields: sendv(*fields))


class JournalHandler(logging.Handler):
    """Writes log records to the journal, each with its event's fields; never blocks for long, never raises."""

    def __init__(
        self,
        context: Callable[[], Mapping[str, object]],
        send: Callable[[Iterable[bytes]], object],
        address: str = JOURNAL_SOCKET,
    ) -> None:
        """send: writes one record, given as NAME=value fields, to the journal that listens at `address`."""
        super().__init__()
        self._context = context
        self._send = send
        self._address = address
        self._waiting: deque[list[bytes]] = deque()
        self._waiting_bytes = 0
        self._lost = 0
        self._away = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._enqueue(list(_fields(record, self._context())))
            self._drain(0.0 if self._away else _PATIENCE_SECONDS)
        except Exception:
            # As every handler of the standard library: a record that cannot be written must not end who logs it.
            self.handleError(record)

    def flush(self) -> None:
        """Waits up to a second for a journal that was away."""
        self.acquire()
        try:
            self._drain(_LAST_PATIENCE_SECONDS)
        finally:
            self.release()

    def _enqueue(self, fields: list[bytes]) -> None:
        self._waiting.append(fields)
        self._waiting_bytes += sum(map(len, fields))
        while self._waiting_bytes > _MOST_WAITING_BYTES and len(self._waiting) > 1:
            self._waiting_bytes -= sum(map(len, self._waiting.popleft()))
            self._lost += 1

    def _drain(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        while self._waiting:
            # libsystemd's own socket blocks for as long as journald does not read: look first.
            if not _listens(self._address, max(0.0, deadline - time.monotonic())):
                self._away = True
                return
            # Taken out first: a signal handler that logs comes through here in the middle.
            fields = self._waiting.popleft()
            try:
                self._send(fields)
            except (ConnectionError, FileNotFoundError, BlockingIOError):
                self._waiting.appendleft(fields)
                self._away = True
                return
            except OSError:
                self._lost += 1  # this one it does not take (too large, no memory); the next it may
            self._waiting_bytes -= sum(map(len, fields))
        self._away = False
        if self._lost and _listens(self._address, 0.0):
            lost, self._lost = self._lost, 0
            text = f"{lost} lines are missing here: the journal did not take them"
            try:
                self._send(list(_named({"MESSAGE": text, "PRIORITY": 4, "SYSLOG_IDENTIFIER": IDENTIFIER})))
            except OSError:
                self._lost += lost  # told when it takes one again


def _listens(address: str, patience: float) -> bool:
    """Whether somebody reads datagrams at this address and has room for one, within `patience` seconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address)
        except OSError:
            return False
        poll = select.poll()
        poll.register(probe, select.POLLOUT)
        return any(events & select.POLLOUT for _, events in poll.poll(1000 * patience))


def _fields(record: logging.LogRecord, context: Mapping[str, object]) -> Iterable[bytes]:
    message = record.getMessage()
    details = [text for text in (record.exc_text, record.stack_info) if text]
    kind = getattr(record, "event_kind", None)
    yield from _named(
        {
            "MESSAGE": "\n".join([message, *details]),
            "MESSAGE_ID": MESSAGE_IDS.get(kind) if kind else None,
            "PRIORITY": _priority(record),
            "SYSLOG_IDENTIFIER": IDENTIFIER,
            "CODE_FILE": record.pathname,
            "CODE_LINE": record.lineno,
            "CODE_FUNC": record.funcName,
        }
    )
    own = {"event": kind, "source": getattr(record, "event_source", None), **getattr(record, "event_fields", {})}
    for name, value in {**context, **own}.items():
        cleaned = _NOT_IN_NAMES.sub("_", f"SWARMD_{name.upper()}")[:_LONGEST_NAME]
        yield from _named({cleaned: value})


def _named(values: Mapping[str, object]) -> Iterable[bytes]:
    for name, value in values.items():
        if value is not None:
            yield f"{name}={_text(value)}".encode(errors="backslashreplace")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _priority(record: logging.LogRecord) -> int:
    priority = getattr(record, "event_priority", None)
    if priority is not None:
        return int(priority)
    return next((priority for level, priority in _PRIORITIES if record.levelno >= level), 7)
