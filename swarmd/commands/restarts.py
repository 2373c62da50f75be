"""`swarmd restarts`: every start and stop of the node with its cause, from the journal and the ledger."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from swarmd.system.journal_reader import Journal, JournalUnreadable
from swarmd.system.ledger import POWER_LOSS, this_boot
from swarmd.system.ledger_file import Ledger, LedgerUnreadable, read
from swarmd.system.restart_history import Ended, History, history
from swarmd.system.restart_records import RunRecord, runs, with_last_signs

STATE, RUNTIME = Path("/var/lib/swarmd"), Path("/run/swarmd")
"""The directories that the units name (StateDirectory=, RuntimeDirectory=); an instance has its own in them."""

_AGO = re.compile(r"(\d{1,6})\s*(s|min|h|d|w)(?:\s+ago)?")
_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class HistoryUnreadable(Exception):
    """Neither journal nor ledger can be read; the message says why and what to do."""


def restarts(unit: str, state: Path | None, since: datetime | None) -> History:
    """The starts and stops of a unit ("swarmd.service", "swarmd@NAME.service").

    state: its state directory, None to do without the ledger; since: leaves out what ended before (with a time zone).
    Raises HistoryUnreadable where neither the journal nor the ledger can be read.
    """
    notes = []
    ledger, trouble = _ledger(state, _runtime_directory(unit, state))
    try:
        journal = Journal()
        told, begins = _told(journal, unit), journal.begins()
    except JournalUnreadable as error:
        if not ledger.starts and not ledger.totals:
            raise HistoryUnreadable(str(error)) from None
        told, begins = [], None
        notes.append(f"{error}; what follows is from the ledger in {state} alone")
    if trouble:
        begun = f" which begins on {_local(datetime.fromtimestamp(begins, UTC))}" if begins else ""
        notes.append(f"{trouble}; stops from before the journal,{begun or ' as it is kept,'} are missing")
    return history(told, ledger, datetime.now(UTC), since, notes)


def _told(journal: Journal, unit: str) -> list[RunRecord]:
    told = runs(journal.records(unit), this_boot())
    cut_off = {run.boot_id for run in told if run.cause == POWER_LOSS}
    signs = {boot: sign for boot in cut_off if (sign := journal.last_sign(boot)) is not None}
    return with_last_signs(told, signs)


def _runtime_directory(unit: str, state: Path | None) -> Path | None:
    """Where the unit's node lets its account go on while the disk is full, if `state` is the unit's own."""
    instance = unit.removesuffix(".service").partition("@")[2]
    return RUNTIME / instance if state == STATE / instance else None


def _ledger(state: Path | None, runtime: Path | None) -> tuple[Ledger, str]:
    """The ledger, and what hinders reading it."""
    if state is None:
        return Ledger(), ""
    try:
        return read(state, runtime), ""
    except (LedgerUnreadable, ValueError) as error:
        return Ledger(), str(error)


def moment(text: str, now: datetime) -> datetime:
    """The point in time that --since names: "2026-01-31", "2026-01-31 12:00", "today", "7d", "12h", "30min".

    Without a time zone it is the machine's. Raises ValueError naming what is understood.
    """
    local = now.astimezone()
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    words = text.strip().lower()
    if named := {"now": local, "today": midnight, "yesterday": midnight - timedelta(days=1)}.get(words):
        return named
    try:
        if match := _AGO.fullmatch(words):
            return local - timedelta(**{_UNITS[match[2]]: int(match[1])})
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is no point in time; write 2026-01-31, \"2026-01-31 12:00\", today, yesterday, or how long ago: "
            "7d, 12h, 30min"
        ) from None


def restart_json(told: History) -> dict[str, Any]:
    """The history for programs: times in ISO 8601 UTC, durations in seconds, signals by name without SIG."""
    return {
        "events": [
            {
                "time": _utc(event.time),
                "cause": event.cause,
                "uptime_s": event.uptime_s,
                "phase": event.phase,
                "round": event.round,
                "exit_code": event.exit_code,
                "signal": event.signal,
                "started": _utc(event.started),
                "invocation_id": event.invocation,
            }
            for event in told.events
        ],
        "totals": dict(told.totals),
        "mtbf_s": told.mtbf_s,
        "running": told.running and {"started": _utc(told.running.started), "uptime_s": told.running.uptime_s},
        "since": _utc(told.since),
        "notes": list(told.notes),
    }


def restart_lines(told: History) -> Iterator[str]:
    """The history for people, times in the machine's zone."""
    if told.events or told.running:
        yield f"{'started':19}  {'ended':19}  {'uptime':>12}  {'cause':10}  {'how':14}  {'phase':10}  round"
    for event in told.events:
        yield (
            f"{_local(event.started):19}  {_local(event.time):19}  {_duration(event.uptime_s):>12}  {event.cause:10}  "
            f"{_how(event):14}  {event.phase or '-':10}  {'-' if event.round is None else event.round}"
        ).rstrip()
    if told.running:
        yield f"{_local(told.running.started):19}  {'':19}  {_duration(told.running.uptime_s):>12}  running"
    if not told.events and not told.running:
        yield "no start or stop is known" + (f" since {_local(told.since)}" if told.since else "")
    elif not told.events:
        yield "no stop is known" + (f" since {_local(told.since)}" if told.since else "")
    else:
        yield ""
        yield "totals: " + ", ".join(f"{cause} {count}" for cause, count in told.totals.items())
        yield "mean time between failures: " + ("no failure" if told.mtbf_s is None else _duration(told.mtbf_s))
    for note in told.notes:
        yield f"note: {note}"


def _how(event: Ended) -> str:
    if event.signal is not None:
        return f"signal {event.signal}"
    return "-" if event.exit_code is None else f"exit code {event.exit_code}"


def _utc(time: datetime | None) -> str | None:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if time else None


def _local(time: datetime | None) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else "-"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
