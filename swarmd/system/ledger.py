"""The account of starts and stops in the state directory: totals by cause since the first start, and the last stops.

The journal tells more and forgets sooner; systemd's own counter NRestarts is reset by upgrades and by hand-made
restarts. Three write here, one after the other: the node when it starts (`note_start`) and when it ends by itself
(`note_end`), and `swarmd.stopped`, which the service manager runs after every stop and which knows the cause best.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from swarmd.system.ledger_file import End, Ledger, Run, Stop, load, save, storable

CLEAN, CRASH, WATCHDOG, OOM_KILL, TIMEOUT = "clean", "crash", "watchdog", "oom-kill", "timeout"
CONFIG, UPGRADE, REBOOT, POWER_LOSS, UNKNOWN = "config", "upgrade", "reboot", "power-loss", "unknown"
CAUSES = (CLEAN, CRASH, WATCHDOG, OOM_KILL, TIMEOUT, CONFIG, UPGRADE, REBOOT, POWER_LOSS, UNKNOWN)

RESULTS = {"success": CLEAN, "watchdog": WATCHDOG, "oom-kill": OOM_KILL, "timeout": TIMEOUT}
"""Causes by systemd's $SERVICE_RESULT (systemd.exec(5)); all others are a crash, or with exit code 78 `config`."""

FAILURES = frozenset({CRASH, WATCHDOG, OOM_KILL, TIMEOUT, UNKNOWN})
"""The causes that count as failures of the node in the mean time between failures."""

HEALTHY_SECONDS = 600.0
_IMMEDIATE_RESTARTS = 2
LONGEST_BACKOFF = 300.0
_MOST_STOPS = 500


@dataclass(frozen=True)
class PreviousEnd:
    """How the run before this one ended; cause None: this is the first start that the account knows of.

    uptime_s: seconds, None where nobody saw the end. quick_failures: how many runs in a row, the last one included,
    failed within ten minutes. totals: stops by cause since the first start.
    """

    cause: str | None
    time: str | None
    uptime_s: float | None
    phase: str | None
    round: int | None
    exit_code: int | None
    signal: str | None
    quick_failures: int
    totals: Mapping[str, int]


def note_start(
    state: Path, version: str, boot_id: str, invocation_id: str | None, longest_backoff: float = LONGEST_BACKOFF
) -> PreviousEnd:
    """Takes down that a run of the node begins, and returns how the last one ended.

    boot_id: of this boot of the machine (`this_boot`); invocation_id: systemd's, None outside it; longest_backoff: as
    `backoff_seconds` will be asked with. A clean stop before another boot is booked as `reboot`, before another version
    as `upgrade`; a run without a stop as `power-loss` when the machine has booted since, else as `unknown`. Call it
    with the state directory locked. Raises nothing: a disk that refuses is a warning.
    """
    ledger = load(state)
    if ledger.run is not None:
        lost = ledger.run
        cause = POWER_LOSS if lost.boot_id != boot_id else UNKNOWN
        ledger = _booked(ledger, _stop_of(End(cause, invocation=lost.invocation), lost, uptime_s=None))
    if ledger.stops and ledger.stops[-1].cause == CLEAN:
        last = ledger.stops[-1]
        if last.boot_id != boot_id:
            ledger = _booked(ledger, replace(last, cause=REBOOT))
        elif last.version != version:
            ledger = _booked(ledger, replace(last, cause=UPGRADE))
    previous = _previous(ledger)
    run = Run(
        invocation=invocation_id or f"none-{time.time_ns()}",
        boot_id=boot_id,
        version=version,
        started=now(),
        started_clock=_clock(),
        backoff_s=backoff_seconds(previous, longest_backoff),
    )
    save(state, replace(ledger, run=run, starts=ledger.starts + 1))
    return previous


def note_end(state: Path, end: End, version: str, boot_id: str) -> Stop:
    """Takes down how a run ended and returns it, completed. Raises nothing: a disk that refuses is a warning.

    A second end of the same invocation replaces the first: the service manager knows better than the node.
    version, boot_id: the present ones, for a run that ended before it could note its start.
    """
    ledger, end = load(state), storable(end)
    known = ledger.stops[-1] if ledger.stops and ledger.stops[-1].invocation == end.invocation else None
    if known is not None and end.invocation is not None:
        stop = replace(
            known,
            cause=end.cause,
            phase=end.phase or known.phase,
            round=known.round if end.round is None else end.round,
            exit_code=end.exit_code,
            signal=end.signal,
        )
    elif ledger.run is not None and end.invocation in (None, ledger.run.invocation):
        stop = _stop_of(end, ledger.run, uptime_s=round(_clock() - ledger.run.started_clock, 3))
        ledger = replace(ledger, run=None)
    else:
        # It never got as far as noting its start; whose run the ledger holds, we cannot tell: it stays.
        nameless = Run(end.invocation or f"none-{time.time_ns()}", boot_id, version, None, 0.0, 0.0)
        stop = _stop_of(end, nameless, uptime_s=None)
    save(state, _booked(ledger, stop))
    return stop


def read_totals(state: Path) -> dict[str, int]:
    """Stops by cause since the first start."""
    return dict(load(state).totals)


def backoff_seconds(previous: PreviousEnd, longest: float = LONGEST_BACKOFF) -> float:
    """How many seconds a start should wait so that a node that cannot run does not burn its machine.

    0 after the first two quick failures in a row, then 2, 4, 8, ... up to `longest`. One run of ten minutes, or any
    end that is no failure, and the count begins anew.
    """
    # Here and not in the unit: RestartSteps= needs systemd 254.
    excess = previous.quick_failures - _IMMEDIATE_RESTARTS
    return 0.0 if excess <= 0 else min(longest, 2.0 ** min(excess, 30))


def described(previous: PreviousEnd) -> str:
    """The end in words, for the line that begins the next run."""
    if previous.cause is None:
        return "this is its first start"
    how = previous.cause
    if previous.signal:
        how += f" (signal {previous.signal})"
    elif previous.exit_code:
        how += f" (exit code {previous.exit_code})"
    if previous.uptime_s is not None:
        how += f" after {previous.uptime_s:.0f} s"
    if previous.phase:
        how += f", in phase {previous.phase}"
    if previous.round is not None:
        how += f", round {previous.round}"
    return f"the last run ended by {how}"


def this_boot() -> str:
    """The identity of this boot of the machine, as the journal writes it (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", "")


def now() -> str:
    """The present time in ISO 8601, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _clock() -> float:
    # Goes on while the machine sleeps, and does not jump when somebody sets the time.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _stop_of(end: End, run: Run, uptime_s: float | None) -> Stop:
    return Stop(
        time=now(),
        started=run.started,
        cause=end.cause,
        uptime_s=uptime_s,
        phase=end.phase,
        round=end.round,
        exit_code=end.exit_code,
        signal=end.signal,
        invocation=run.invocation,
        boot_id=run.boot_id,
        version=run.version,
        backoff_s=run.backoff_s,
    )


def _booked(ledger: Ledger, stop: Stop) -> Ledger:
    """The ledger with the stop as its last one, in place of what it said of the same run before."""
    stops, totals, uptime = list(ledger.stops), dict(ledger.totals), ledger.uptime_s
    if stops and stops[-1].invocation == stop.invocation:
        old = stops.pop()
        totals[old.cause] = totals.get(old.cause, 0) - 1
        uptime -= old.uptime_s or 0.0
    totals[stop.cause] = totals.get(stop.cause, 0) + 1
    run = ledger.run if ledger.run is None or ledger.run.invocation != stop.invocation else None
    return replace(
        ledger,
        run=run,
        totals={cause: count for cause, count in totals.items() if count > 0},
        uptime_s=round(uptime + (stop.uptime_s or 0.0), 3),
        stops=tuple([*stops, stop][-_MOST_STOPS:]),
    )


def _previous(ledger: Ledger) -> PreviousEnd:
    if not ledger.stops:
        return PreviousEnd(None, None, None, None, None, None, None, 0, dict(ledger.totals))
    last = ledger.stops[-1]
    quick = 0
    for stop in reversed(ledger.stops):
        # What a run spent waiting before it began is no sign of health.
        if stop.cause not in FAILURES or (stop.uptime_s or 0.0) - stop.backoff_s >= HEALTHY_SECONDS:
            break
        quick += 1
    return PreviousEnd(
        last.cause, last.time, last.uptime_s, last.phase, last.round, last.exit_code, last.signal, quick,
        dict(ledger.totals),
    )  # fmt: skip
