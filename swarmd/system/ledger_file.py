"""The file of the ledger: replaced in one step, set aside when damaged, kept in memory when the disk is full."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

LEDGER_FILE = "restarts.json"
_FORMAT = 1
_LARGEST = 4 * 1024 * 1024
_LONGEST_TEXT = 200
_MOST = 10**12  # of anything that is counted, and of seconds
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
        # Without waiting: in place of the file there may be a pipe into which nobody ever writes.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)) as file:
            content = file.read(_LARGEST)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LedgerUnreadable(f"{path} cannot be read: {error.strerror}") from error
    try:
        return _parsed(json.loads(content, parse_constant=_refuse_constant))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ArithmeticError) as error:
        # Not its repr, in which a UnicodeDecodeError has the whole file.
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {str(error)[:_LONGEST_TEXT]}") from error


def _parsed(document: dict[str, Any]) -> Ledger:
    if document["format"] != _FORMAT:
        raise ValueError("its format is not known to this version")
    run = document["run"]
    ledger = Ledger(
        serial=document["serial"],
        starts=document["starts"],
        totals=dict(document["totals"].items()),
        uptime_s=document["uptime_s"],
        run=None if run is None else Run(**run),
        stops=tuple(Stop(**stop) for stop in document["stops"]),
    )
    _check("its head", {"serial": ledger.serial, "starts": ledger.starts, "uptime_s": ledger.uptime_s}, _HEAD)
    for cause, count in ledger.totals.items():
        _check("the totals", {"cause": cause, "count": count}, _TOTAL)
    for place, stop in enumerate(ledger.stops):
        _check(f"stop {place}", vars(stop), _STOP)
    if ledger.run is not None:
        _check("the run", vars(ledger.run), _RUN)
    return ledger


def storable(end: End) -> End:
    """The end without what no ledger can hold: phase and round come from a file that the node wrote."""
    odd: dict[str, Any] = {
        name: None for name in ("phase", "round", "exit_code", "signal") if not _STOP[name](getattr(end, name))
    }
    return replace(end, **odd)


def _check(where: str, values: Mapping[str, object], kinds: Mapping[str, Callable[[object], bool]]) -> None:
    for name, is_good in kinds.items():
        if not is_good(values[name]):
            # Without the value: it may be a megabyte long, and what stands there is not ours to show.
            raise ValueError(f"{name} of {where} is no {is_good.__name__.removeprefix('_is_').replace('_', ' ')}")


def _is_text(value: object) -> bool:
    """Short, and such that it can be written: JSON can name halves of characters, which UTF-8 has no bytes for."""
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT and value == value.encode(errors="ignore").decode()


def _is_whole_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MOST


def _is_number_of_seconds(value: object) -> bool:
    """Of a size that any number of them can be added up; neither NaN nor an infinity is below the bound."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST


def _is_time(value: object) -> bool:
    """ISO 8601 with a zone, and far enough from the ends of the calendar to be told in every other."""
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        return False
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return False
    return moment.tzinfo is not None and 1970 <= moment.year < 9999


def _is_text_or_null(value: object) -> bool:
    return value is None or _is_text(value)


def _is_whole_number_or_null(value: object) -> bool:
    return value is None or _is_whole_number(value)


def _is_number_of_seconds_or_null(value: object) -> bool:
    return value is None or _is_number_of_seconds(value)


def _is_time_or_null(value: object) -> bool:
    return value is None or _is_time(value)


_HEAD = {"serial": _is_whole_number, "starts": _is_whole_number, "uptime_s": _is_number_of_seconds}
_TOTAL = {"cause": _is_text, "count": _is_whole_number}
_RUN = {
    "invocation": _is_text, "boot_id": _is_text, "version": _is_text, "started": _is_time_or_null,
    "started_clock": _is_number_of_seconds, "backoff_s": _is_number_of_seconds,
}  # fmt: skip
_STOP = {
    "time": _is_time, "started": _is_time_or_null, "cause": _is_text, "uptime_s": _is_number_of_seconds_or_null,
    "phase": _is_text_or_null, "round": _is_whole_number_or_null, "exit_code": _is_whole_number_or_null,
    "signal": _is_text_or_null, "invocation": _is_text, "boot_id": _is_text, "version": _is_text,
    "backoff_s": _is_number_of_seconds,
}  # fmt: skip


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
