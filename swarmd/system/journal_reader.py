"""Reading the systemd journal: what the service manager and the node itself recorded on the starts and stops of a unit.

Only commands that a person runs read the journal; the node must not be able to (see the unit). What the service
manager writes is told from what others write by fields that journald adds itself (systemd.journal-fields(7), those
that begin with "_").
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from swarmd.system.restart_records import MANAGER_MESSAGES, OUR_MESSAGES

Record = dict[str, Any]

_PLACES = (Path("/var/log/journal"), Path("/run/log/journal"))


class JournalUnreadable(Exception):
    """The journal cannot be read; the message says why and what to do."""


class Journal:
    """The journal of this machine, or the files of another one's. Raises JournalUnreadable."""

    def __init__(self, directory: Path | None = None) -> None:
        """directory: journal files from elsewhere, by default those of this machine."""
        try:
            from systemd import journal
        except ImportError:
            raise JournalUnreadable(
                "the journal cannot be read: the Python module systemd-python is not installed here; use the swarmd "
                "of the Debian package, or install systemd-python"
            ) from None
        if directory is None:
            _check_access()
        self._journal = journal
        self._directory = directory

    def records(self, unit: str) -> Iterator[Record]:
        """The records on starts and stops of `unit` ("swarmd.service"), oldest first.

        Each has its fields as texts, and `time` (seconds since 1970) and `clock` (seconds since the boot `_BOOT_ID`)
        as numbers.
        """
        with self._open() as reader:
            reader.add_match(_PID="1", UNIT=unit)
            for message in MANAGER_MESSAGES:
                reader.add_match(MESSAGE_ID=message)
            reader.add_disjunction()
            reader.add_match(_SYSTEMD_UNIT=unit)
            for message in OUR_MESSAGES:
                reader.add_match(MESSAGE_ID=message)
            for entry in reader:
                yield _record(entry)

    def begins(self) -> float | None:
        """When the oldest record that is still there was written, in seconds since 1970; None where there is none."""
        with self._open() as reader:
            first = reader.get_next()
        return _record(first)["time"] if first else None

    def last_sign(self, boot_id: str) -> tuple[float, float] | None:
        """When the last record of a boot was written: seconds since 1970, and since the boot."""
        with self._open() as reader:
            reader.add_match(_BOOT_ID=boot_id)
            reader.seek_tail()
            last = reader.get_previous()
        if not last:
            return None
        record = _record(last)
        return record["time"], record["clock"]

    def _open(self) -> Any:
        try:
            if self._directory is None:
                reader = self._journal.Reader(flags=self._journal.SYSTEM_ONLY)
            else:
                reader = self._journal.Reader(path=str(self._directory))
        except OSError as error:
            raise JournalUnreadable(f"the journal cannot be opened: {error.strerror}") from error
        # Its others cost time and turn fields into what a dump of the journal does not show.
        converters = self._journal.DEFAULT_CONVERTERS
        reader.converters = {name: call for name, call in converters.items() if name.startswith("__")}
        return reader


def _check_access() -> None:
    """Raises JournalUnreadable where this user may not read the system's journal: sd_journal_open(3) would not, it
    would give an empty one."""
    hidden = False
    for place in _PLACES:
        try:
            machines = [folder for folder in place.iterdir() if folder.is_dir()]
        except FileNotFoundError:
            continue
        except PermissionError:
            hidden = True
            continue
        for machine in machines:
            if not os.access(machine, os.R_OK | os.X_OK):
                hidden = True
                continue
            for file in machine.glob("system*.journal*"):
                if os.access(file, os.R_OK):
                    return
                hidden = True
    if hidden:
        raise JournalUnreadable("this user may not read the system's journal; run it with sudo, or join its group "
                                "once: sudo adduser $USER systemd-journal, and log in anew")
    raise JournalUnreadable(f"there is no journal on this machine: {' and '.join(map(str, _PLACES))} hold none "
                            "(systemd-journald.service(8), and Storage= in journald.conf(5))")


def _record(entry: Mapping[str, Any]) -> Record:
    record = {name: _text(value) for name, value in entry.items() if not name.startswith("__")}
    return record | {
        "time": entry["__REALTIME_TIMESTAMP"].timestamp(),
        "clock": entry["__MONOTONIC_TIMESTAMP"].timestamp.total_seconds(),
    }


def _text(value: Any) -> str:
    # A field that a record has twice comes as a list.
    first = value[0] if isinstance(value, list) and value else value
    return first.decode(errors="backslashreplace") if isinstance(first, bytes) else str(first)
