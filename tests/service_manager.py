"""A service manager for tests: the other end of $NOTIFY_SOCKET, as systemd holds it, and what it does on a request."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

PATIENCE = 600.0
_LARGEST = 65536


@dataclass(frozen=True)
class Message:
    """One datagram. time: monotonic, the same in all processes; fields: by name, as sd_notify(3) has them."""

    time: float
    fields: dict[str, str]


class ServiceManager:
    """Listens at `address` until closed. A context manager."""

    def __init__(self, address: Path | str, watchdog_seconds: float | None = None) -> None:
        self.address = str(address)
        self.watchdog_seconds = watchdog_seconds
        self.messages: list[Message] = []
        self.abort: int | None = None
        """The process that gets SIGABRT when it asks for it (WATCHDOG=trigger), as systemd sends it."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{self.address[1:]}" if self.address.startswith("@") else self.address)
        self._socket.settimeout(0.1)
        self._closed = False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def __enter__(self) -> ServiceManager:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._thread.join()
        self._socket.close()

    @property
    def variables(self) -> dict[str, str]:
        """What it puts into the environment of a service."""
        usec = {"WATCHDOG_USEC": str(int(self.watchdog_seconds * 1e6))} if self.watchdog_seconds else {}
        return {"NOTIFY_SOCKET": self.address, **usec}

    def of(self, name: str) -> list[Message]:
        """The messages so far that have this field."""
        return [message for message in list(self.messages) if name in message.fields]

    def statuses(self) -> list[str]:
        return [message.fields["STATUS"] for message in self.of("STATUS")]

    def wait(self, which: Callable[[Message], bool], *, after: int = 0, seconds: float = PATIENCE) -> Message:
        """The first message, from number `after` on, of which this is true; the test fails where none comes."""
        end = time.monotonic() + seconds
        while True:
            for message in list(self.messages)[after:]:
                if which(message):
                    return message
            if time.monotonic() > end:
                pytest.fail(f"no such message within {seconds:g} s; there were {self.messages}")
            time.sleep(0.01)

    def field(self, name: str, value: str | None = None, **more: float) -> Message:
        """Waits for a message with this field, and value if one is given."""
        return self.wait(lambda m: name in m.fields and value in (None, m.fields[name]), **more)  # type: ignore[arg-type]

    def status(self, part: str, **more: float) -> Message:
        """Waits for a status that contains `part`."""
        return self.wait(lambda m: part in m.fields.get("STATUS", ""), **more)  # type: ignore[arg-type]

    def _listen(self) -> None:
        while not self._closed:
            try:
                received = self._socket.recv(_LARGEST)
            except TimeoutError:
                continue
            lines = received.decode("utf-8").split("\n")
            message = Message(time.monotonic(), dict(line.partition("=")[::2] for line in lines))
            self.messages.append(message)
            if self.abort is not None and message.fields.get("WATCHDOG") == "trigger":
                os.kill(self.abort, signal.SIGABRT)
