"""The account of restarts: what the journal tells, completed by the ledger where the journal has forgotten.

Pure: runs and a ledger in, a history out. The journal is rotated and may be lost with the machine's memory; the
ledger keeps the last 500 stops and the totals of all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from swarmd.system.ledger import CAUSES, FAILURES, UNKNOWN
from swarmd.system.ledger_file import Ledger, Stop
from swarmd.system.restart_records import RunRecord


@dataclass(frozen=True)
class Ended:
    """A run that has ended. time: of its end, or of the last sign of it; uptime_s: seconds; signal: without SIG."""

    time: datetime
    started: datetime | None
    cause: str
    uptime_s: float | None
    phase: str | None
    round: int | None
    exit_code: int | None
    signal: str | None
    invocation: str


@dataclass(frozen=True)
class Running:
    """The run that goes on."""

    started: datetime
    uptime_s: float


@dataclass(frozen=True)
class History:
    """events: the runs that have ended, oldest first; totals: all of them by cause, also of those that are too old to
    be listed; mtbf_s: uptime by failure, None without a failure; notes: what the account does not cover, and why."""

    events: tuple[Ended, ...]
    running: Running | None
    totals: Mapping[str, int]
    mtbf_s: float | None
    since: datetime | None = None
    notes: tuple[str, ...] = ()


def history(
    told: Iterable[RunRecord], ledger: Ledger, now: datetime, since: datetime | None, notes: Sequence[str] = ()
) -> History:
    """The account of the runs in the journal and in the ledger; since: without those that ended before.

    A run that both know is told as the journal has it, and what that leaves open as the ledger has it.
    """
    booked = {stop.invocation: stop for stop in ledger.stops}
    events: list[Ended] = []
    running = None
    for run in told:
        stop = booked.pop(run.invocation, None)
        if run.cause is None and stop is None:
            began = _moment(run.began if run.began is not None else run.last_seen)
            running = Running(began, max(0.0, (now - began).total_seconds()))
        else:
            events.append(_told(run, stop))
    remembered = [_remembered(stop) for stop in booked.values()]
    events = sorted([*events, *remembered], key=lambda event: event.time)
    notes = list(notes)
    if since is not None:
        kept = tuple(event for event in events if event.time >= since)
        totals, uptime = Counter(event.cause for event in kept), _uptime(kept)
    else:
        kept = tuple(events)
        unlisted = Counter(ledger.totals)
        unlisted.subtract(stop.cause for stop in ledger.stops)
        unlisted = +unlisted
        totals = Counter(event.cause for event in kept) + unlisted
        uptime = _uptime(kept) + max(0.0, ledger.uptime_s - sum(stop.uptime_s or 0.0 for stop in ledger.stops))
        if remembered:
            notes.append(f"{len(remembered)} of these stops are no longer in the journal; they are told from the "
                         "ledger in the state directory")
        if older := unlisted.total():
            notes.append(f"{older} older stops are in the totals only")
    failures = sum(count for cause, count in totals.items() if cause in FAILURES)
    uptime += running.uptime_s if running else 0.0
    return History(
        events=kept,
        running=running,
        totals={cause: totals[cause] for cause in CAUSES if totals[cause]},
        mtbf_s=round(uptime / failures, 1) if failures else None,
        since=since,
        notes=tuple(notes),
    )


def _told(run: RunRecord, stop: Stop | None) -> Ended:
    ended = _moment(run.last_seen if run.ended is None else run.ended)
    event = Ended(
        time=ended,
        started=None if run.began is None else _moment(run.began),
        cause=run.cause or UNKNOWN,
        uptime_s=run.uptime_s,
        phase=run.phase,
        round=run.round,
        exit_code=run.exit_code,
        signal=run.signal,
        invocation=run.invocation,
    )
    if stop is None:
        return event
    known = _remembered(stop)
    return replace(
        event,
        time=known.time if run.cause is None else event.time,
        # The journal breaks off, or the ledger knew what came after: what it says is more than "unknown".
        cause=known.cause if run.cause in (None, UNKNOWN) else event.cause,
        started=event.started or known.started,
        uptime_s=known.uptime_s if event.uptime_s is None else event.uptime_s,
        phase=event.phase or known.phase,
        round=known.round if event.round is None else event.round,
        exit_code=known.exit_code if event.exit_code is None and event.signal is None else event.exit_code,
        signal=known.signal if event.exit_code is None and event.signal is None else event.signal,
    )


def _remembered(stop: Stop) -> Ended:
    return Ended(
        time=datetime.fromisoformat(stop.time),
        started=datetime.fromisoformat(stop.started) if stop.started else None,
        cause=stop.cause,
        uptime_s=stop.uptime_s,
        phase=stop.phase,
        round=stop.round,
        exit_code=stop.exit_code,
        signal=stop.signal,
        invocation=stop.invocation,
    )


def _uptime(events: Iterable[Ended]) -> float:
    return sum(event.uptime_s or 0.0 for event in events)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
