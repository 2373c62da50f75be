"""The file of the ledger: replaced in one step, set aside when damaged, kept in memory when the disk is full."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

LEDGER_FILE = "restarts.json"
_FORMAT = 1
_LARGEST = 4 * 1024 * 1024
# The disk has no room, or takes nothing at all; then the runtime directory, which lies in memory, may.
_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)

_log = logging.getLogger("swarmd")


@dataclass(frozen=True)
class End:
    """How a run ended, as far as who reports it knows. cause: one of CAUSES; signal: its name without SIG."""

    cause: str
    phase: str | None = None
    round: int | None = None
    exit_code: int | None = None
    signal: str | None = None
    invocation: str | None = None


@dataclass(frozen=True)
class Run:
    """A run that has begun. started: ISO 8601 UTC; started_clock: CLOCK_BOOTTIME, seconds; backoff_s: what it waited
    before it began to work."""

    invocation: str
    boot_id: str
    version: str
    started: str | None
    started_clock: float
    backoff_s: float


@dataclass(frozen=True)
class Stop:
    """A run that has ended. time, started: ISO 8601 UTC; uptime_s: seconds, None where nobody saw the end."""

    time: str
    started: str | None
    cause: str
    uptime_s: float | None
    phase: str | None
    round: int | None
    exit_code: int | None
    signal: str | None
    invocation: str
    boot_id: str
    version: str
    backoff_s: float = 0.0


@dataclass(frozen=True)
class Ledger:
    """run: the one in progress; totals: stops by cause; uptime_s: seconds of all runs together; stops: the last ones,
    oldest first; serial: counts the writings, so that the newer of two copies is known."""

    serial: int = 0
    starts: int = 0
    totals: Mapping[str, int] = field(default_factory=dict)
    uptime_s: float = 0.0
    run: Run | None = None
    stops: tuple[Stop, ...] = ()


class LedgerUnreadable(Exception):
    """The ledger is there, but this user may not read it, or the disk does not give it back."""


def read(state: Path, runtime: Path | None = None) -> Ledger:
    """The ledger of a state directory, an empty one where there is none. Changes nothing.

    runtime: the runtime directory, where a full disk may have sent it; by default $RUNTIME_DIRECTORY.
    Raises LedgerUnreadable (not allowed, input/output error) and ValueError (damaged).
    """
    copies = _copies(state) if runtime is None else [state / LEDGER_FILE, runtime / LEDGER_FILE]
    found = [copy for path in copies if (copy := _read(path)) is not None]
    return max(found, key=lambda ledger: ledger.serial, default=Ledger())


def load(state: Path) -> Ledger:
    """The ledger, for who writes it next: a damaged file is set aside with a warning and the account begins anew."""
    found = []
    for path in _copies(state):
        try:
            copy = _read(path)
        except (LedgerUnreadable, ValueError) as error:
            _set_aside(path, error)
        else:
            found += [copy] if copy else []
    return max(found, key=lambda ledger: ledger.serial, default=Ledger())


def save(state: Path, ledger: Ledger) -> None:
    """Replaces the file in one step; on a full disk a copy in $RUNTIME_DIRECTORY; else a warning."""
    document = {"format": _FORMAT, **asdict(ledger), "serial": ledger.serial + 1}
    text = json.dumps(document, indent=1, allow_nan=False)
    home, *spare = _copies(state)
    try:
        _replace(home, text)
        for path in spare:
            path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in _REFUSES and spare:
            try:
                _replace(spare[0], text)
                return
            except OSError as second:
                error = second
        _log.warning("the account of restarts cannot be written: %s: %s", home, error.strerror)


def _copies(state: Path) -> list[Path]:
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return [state / LEDGER_FILE, *([Path(runtime, LEDGER_FILE)] if runtime else [])]


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o640)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the new name and none of the content
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _read(path: Path) -> Ledger | None:
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LedgerUnreadable(f"{path} cannot be read: {error.strerror}") from error
    try:
        return _parsed(json.loads(content, parse_constant=_refuse_constant))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ArithmeticError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error


def _parsed(document: dict[str, Any]) -> Ledger:
    if document["format"] != _FORMAT:
        raise ValueError(f"format {document['format']!r} is not known to this version")
    run = document["run"]
    ledger = Ledger(
        serial=int(document["serial"]),
        starts=int(document["starts"]),
        totals={str(cause): int(count) for cause, count in document["totals"].items()},
        uptime_s=float(document["uptime_s"]),
        run=None if run is None else Run(**run),
        stops=tuple(Stop(**stop) for stop in document["stops"]),
    )
    if not _are_numbers((ledger.uptime_s,)):
        raise ValueError(f"{ledger.uptime_s} is no time in seconds")
    for stop in ledger.stops:
        words = (stop.time, stop.cause, stop.invocation, stop.boot_id, stop.version)
        numbers = (stop.uptime_s or 0.0, stop.backoff_s, stop.round or 0)
        if not all(isinstance(word, str) for word in words) or not _are_numbers(numbers):
            raise ValueError(f"{stop} is no stop")
    if ledger.run is not None and not _are_numbers((ledger.run.started_clock, ledger.run.backoff_s)):
        raise ValueError(f"{ledger.run} is no run")
    return ledger


def _are_numbers(values: Sequence[object]) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _set_aside(path: Path, error: Exception) -> None:
    aside = path.with_name(f"{path.name}.damaged")
    try:
        os.replace(path, aside)
    except OSError as second:
        _log.warning("%s; it stays where it is (%s), and the account of restarts begins anew", error, second.strerror)
    else:
        _log.warning("%s; it is now called %s, and the account of restarts begins anew", error, aside.name)
