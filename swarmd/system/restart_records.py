"""From the journal's records to the runs of a unit: when each began and ended, and why.

The service manager and the node write of the same run under the same invocation id; here they are put together.
Pure: records in, runs out. Records are dicts of fields (systemd.journal-fields(7)) with two numbers, `time` (seconds
since 1970) and `clock` (seconds since the boot).
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from swarmd.system.exits import EXIT_CONFIG, EXIT_CREDENTIALS
from swarmd.system.ledger import (
    CAUSES,
    CLEAN,
    CONFIG,
    CRASH,
    OOM_KILL,
    POWER_LOSS,
    REBOOT,
    RESULTS,
    UNKNOWN,
    UPGRADE,
)
from swarmd.system.message_ids import MESSAGE_IDS

# systemd's own, of its src/systemd/sd-messages.h.
_STARTING = "7d4958e842da4a758f6c1cdc7b36dcc5"
_STARTED = "39f53479d3a045ac8e11786248231fbf"
_EXITED = "98e322203f7a4ed290d09fe03c09fe15"
_FAILED = "d9b373ed55a64feb8242e02dbe79a49c"
_SUCCEEDED = "7ad2d189f7e94e70a38c781354912448"
_OOM = "fe6faa94e7774663a0da52717891d8ef"
MANAGER_MESSAGES = (_STARTING, _STARTED, _EXITED, _FAILED, _SUCCEEDED, _OOM)
OUR_MESSAGES = tuple(
    MESSAGE_IDS[kind] for kind in ("started", "ready", "hung", "crashed", "refused", "stopped", "service_stopped")
)
_HUNG, _SERVICE_STOPPED = MESSAGE_IDS["hung"], MESSAGE_IDS["service_stopped"]


@dataclass(frozen=True)
class RunRecord:
    """A run as the journal tells of it; times in seconds since 1970.

    cause: None while it runs. began: None where the journal does not reach back to it. ended: None where nobody
    saw the end; last_seen: its last record. signal: the name without SIG; oom: the kernel's killer hit it or a child.
    """

    invocation: str
    boot_id: str
    began: float | None = None
    began_clock: float | None = None
    ended: float | None = None
    last_seen: float = 0.0
    last_clock: float = 0.0
    cause: str | None = None
    uptime_s: float | None = None
    phase: str | None = None
    round: int | None = None
    exit_code: int | None = None
    signal: str | None = None
    version: str | None = None
    oom: bool = False


def runs(records: Iterable[Mapping[str, Any]], boot_id: str) -> list[RunRecord]:
    """The runs that the records tell of, in the order in which they began.

    boot_id: of the machine's present boot. The last run has no cause if it goes on. A clean end before another boot
    is a `reboot`, before another version an `upgrade`; a run without an end was cut off by the loss of power, or, in
    the present boot, by something unknown.
    """
    found: dict[str, RunRecord] = {}
    for record in records:
        by_manager = record.get("_PID") == "1"
        invocation = record.get("INVOCATION_ID" if by_manager else "_SYSTEMD_INVOCATION_ID")
        if not invocation:
            continue
        run = found.get(invocation) or RunRecord(invocation, record.get("_BOOT_ID", ""))
        run = replace(run, last_seen=record["time"], last_clock=record["clock"])
        found[invocation] = _managers(run, record) if by_manager else _ours(run, record)
    told = list(found.values())
    return [_settled(run, told[place + 1 : place + 2], boot_id) for place, run in enumerate(told)]


def with_last_signs(told: Iterable[RunRecord], boots: Mapping[str, tuple[float, float]]) -> list[RunRecord]:
    """The runs, each that was cut off with its boot taken as having lasted until the boot's last record.

    boots: (time, clock) of the last record of a boot.
    """
    completed = []
    for run in told:
        if run.cause == POWER_LOSS and run.boot_id in boots:
            time, clock = boots[run.boot_id]
            uptime = None if run.began_clock is None else round(clock - run.began_clock, 3)
            run = replace(run, last_seen=time, last_clock=clock, uptime_s=uptime)
        completed.append(run)
    return completed


def _managers(run: RunRecord, record: Mapping[str, Any]) -> RunRecord:
    message = record.get("MESSAGE_ID")
    if message in (_STARTING, _STARTED):
        return _begun(run, record)
    # The same message comes for the commands of the unit: a reload that was refused, what runs after the end.
    if message == _EXITED and "Control process exited" in str(record.get("MESSAGE", "")):
        return run
    if message == _EXITED:
        run = _ended(run, record)
        status, exited = _number(record.get("EXIT_STATUS")), record.get("EXIT_CODE") == "exited"
        return replace(run, exit_code=status if exited else None, signal=None if exited else _signal_name(status))
    if message == _SUCCEEDED:
        return replace(_ended(run, record), cause=CLEAN)
    if message == _FAILED:
        cause = RESULTS.get(record.get("UNIT_RESULT", ""), CRASH)
        if cause == CRASH and run.exit_code in (EXIT_CONFIG, EXIT_CREDENTIALS):
            cause = CONFIG
        return replace(_ended(run, record), cause=cause)
    # The killer may have hit a child alone.
    return replace(run, oom=True) if message == _OOM else run


def _ours(run: RunRecord, record: Mapping[str, Any]) -> RunRecord:
    message = record.get("MESSAGE_ID")
    # The first word counts: after an upgrade it is already the new version that books the old one's stop.
    run = replace(run, version=run.version or record.get("SWARMD_VERSION"))
    if message == MESSAGE_IDS["started"]:
        run = _begun(run, record)
    phase, round = record.get("SWARMD_PHASE"), _number(record.get("SWARMD_ROUND"))
    # The watchdog's last words name the phase that hung; the status file, which the last record is made from, may be
    # a moment older.
    if message != _SERVICE_STOPPED or run.phase is None:
        run = replace(run, phase=phase or run.phase)
    run = replace(run, round=run.round if round is None else round)
    if message != _SERVICE_STOPPED:
        return run
    cause, uptime = record.get("SWARMD_CAUSE"), record.get("SWARMD_UPTIME_S")
    if run.cause is None and cause in CAUSES:
        # The manager's own record may never come: the disk is full, the machine goes down.
        run = replace(_ended(run, record), cause=cause)
    if run.exit_code is None and run.signal is None:
        run = replace(run, exit_code=_number(record.get("SWARMD_EXIT_CODE")), signal=record.get("SWARMD_SIGNAL"))
    if run.uptime_s is None and uptime is not None:
        run = replace(run, uptime_s=_seconds(uptime))
    return run


def _begun(run: RunRecord, record: Mapping[str, Any]) -> RunRecord:
    return run if run.began is not None else replace(run, began=record["time"], began_clock=record["clock"])


def _ended(run: RunRecord, record: Mapping[str, Any]) -> RunRecord:
    if run.ended is not None:
        return run
    uptime = None if run.began_clock is None else round(record["clock"] - run.began_clock, 3)
    return replace(run, ended=record["time"], uptime_s=run.uptime_s if uptime is None else uptime)


def _settled(run: RunRecord, following: list[RunRecord], boot_id: str) -> RunRecord:
    """The run with the cause that only its surroundings tell."""
    if run.ended is None and run.cause is None:
        if not following and run.boot_id == boot_id:
            return run  # it goes on
        lived = None if run.began_clock is None else round(run.last_clock - run.began_clock, 3)
        booted = run.boot_id != (following[0].boot_id if following else boot_id)
        return replace(run, cause=POWER_LOSS if booted else UNKNOWN, uptime_s=lived)
    if run.cause is None:
        # The main process ended, and then the journal breaks off.
        return replace(run, cause=_cause_of_exit(run))
    if run.cause == CLEAN and following:
        then = following[0]
        if then.boot_id != run.boot_id:
            return replace(run, cause=REBOOT)
        if run.version and then.version and then.version != run.version:
            return replace(run, cause=UPGRADE)
    return run


def _cause_of_exit(run: RunRecord) -> str:
    if run.signal is not None:
        return OOM_KILL if run.oom and run.signal == "KILL" else CRASH
    return {0: CLEAN, EXIT_CONFIG: CONFIG, EXIT_CREDENTIALS: CONFIG, None: UNKNOWN}.get(run.exit_code, CRASH)


def _signal_name(number: int | None) -> str | None:
    try:
        return None if number is None else signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)  # a real-time signal


def _number(text: Any) -> int | None:
    return int(text) if isinstance(text, str) and text.isdecimal() and len(text) < 20 else None


def _seconds(text: Any) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
