"""What the node tells the service manager (sd_notify(3), systemd 252), and how often it wants to hear from the node.

Outside systemd, where $NOTIFY_SOCKET is not set, all of it does nothing.
"""

from __future__ import annotations

import functools
import logging
import os
import time

from sdnotify import SystemdNotifier

from swarmd.system.redaction import one_line, redact

_LONGEST_STATUS = 512
# A service manager that does not read for so long is itself in trouble; the node does not wait for it.
_PATIENCE_SECONDS = 1.0
_ENVIRONMENT = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

_log = logging.getLogger("swarmd")


class Notifier:
    """Messages to the service manager. For every thread and for signal handlers: but for `ready` and `status`, which
    may write a line to the log, nothing takes a lock.

    connected: whether there is a service manager that listens.
    watchdog_seconds: the time after which it takes a silent node for dead (WatchdogSec=), None where it does not.
    """

    def __init__(self) -> None:
        """Reads $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID and takes them out of the environment: no child
        may speak for the node."""
        address, usec, pid = (os.environ.get(name, "") for name in _ENVIRONMENT)
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._owed: list[str] = []
        self._fault: OSError | None = None
        self._warned = False
        self._systemd: SystemdNotifier | None = None
        self.watchdog_seconds: float | None = None
        if address:
            # debug: it would otherwise swallow whatever is raised while it sends, and a request to stop is raised.
            try:
                self._systemd = SystemdNotifier(debug=True)
                self._systemd.socket.settimeout(_PATIENCE_SECONDS)
            except OSError as error:
                self._fault = error
                self._warn()
        if self._systemd is not None and usec.isdigit() and int(usec) > 0 and pid in ("", str(os.getpid())):
            self.watchdog_seconds = int(usec) / 1e6
        for name in _ENVIRONMENT:
            os.environ.pop(name, None)

    @property
    def connected(self) -> bool:
        return self._systemd is not None

    def ready(self, text: str) -> None:
        """The start, or a reload, is complete."""
        self._send(["READY=1"], [_status(text)])
        self._warn()

    def status(self, text: str) -> None:
        """What the node does, in a line for people (`systemctl status`)."""
        self._send([], [_status(text)])
        self._warn()

    def ping(self) -> None:
        """All is well: another WatchdogSec= of patience."""
        self._send([], ["WATCHDOG=1"])

    def trigger(self, text: str) -> None:
        """The node has found itself hung: systemd sends SIGABRT at once, as if the pings had ceased long ago
        (result `watchdog`); `text` is the status that it logs with it."""
        self._send([], [_status(text), "WATCHDOG=trigger"])

    def extend(self, seconds: float) -> None:
        """The start may take `seconds` more from now, whatever TimeoutStartSec= says."""
        self._send([], [f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}"])

    def reloading(self) -> None:
        """The configuration is read anew; `ready` ends it."""
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(["RELOADING=1", f"MONOTONIC_USEC={usec}"], [_status("reading the configuration anew")])

    def stopping(self, text: str) -> None:
        """The node was asked to stop; `text` says what it waits for."""
        self._send(["STOPPING=1"], [_status(text)])

    def failed(self, text: str, number: int) -> None:
        """The node ends because of a fault: a line for people and an errno."""
        # The service manager takes the escaped end of a line for an "n".
        in_one = "; ".join(line.strip() for line in text.splitlines()).replace(":; ", ": ")
        self._send([], [_status(in_one), f"ERRNO={number}"])

    def _send(self, lasting: list[str], lines: list[str]) -> None:
        """lasting: what must arrive. Where it does not, it goes along with the next message."""
        if self._systemd is None:
            return
        owed, self._owed = self._owed, []
        message = "\n".join([*owed, *lasting, *lines])
        # The library encodes as Latin-1, and systemd takes only UTF-8: hand it the bytes, each as a character.
        encoded = message.encode("utf-8", "replace").decode("latin-1")
        try:
            self._reach(self._systemd, encoded)
        except OSError as error:
            self._owed = [*owed, *lasting]
            self._fault = error

    def _reach(self, systemd: SystemdNotifier, message: str) -> None:
        try:
            systemd.notify(message)
        except TimeoutError:
            raise
        except OSError:
            # A service manager that was replaced has a new socket in the old place.
            systemd.socket.connect(self._address)
            systemd.notify(message)

    def _warn(self) -> None:
        if self._fault is not None and not self._warned:
            self._warned = True
            _log.warning(
                "the service manager cannot be told anything: %s ($NOTIFY_SOCKET %s)", self._fault, self._address
            )


@functools.cache
def notifier() -> Notifier:
    """The process's notifier; made, and the environment cleared, by the first call."""
    return Notifier()


def _status(text: str) -> str:
    return f"STATUS={one_line(redact(text))[:_LONGEST_STATUS]}"
