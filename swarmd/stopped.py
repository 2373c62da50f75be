"""`python -m swarmd.stopped`: run by the service manager after every stop of the node (ExecStopPost=).

It books the stop in the ledger of the state directory and in the journal. What it knows comes from the environment
that systemd.exec(5) documents ($SERVICE_RESULT, $EXIT_CODE, $EXIT_STATUS, $INVOCATION_ID) and from the last status
that the node wrote. It loads nothing heavy, and nothing that goes wrong here fails the unit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from swarmd import __version__
from swarmd.monitor.status import STATUS_FILE, StatusError, read_status
from swarmd.system.events import configure_logging, event
from swarmd.system.exits import EXIT_CONFIG, EXIT_CREDENTIALS, EXIT_OK
from swarmd.system.ledger import CLEAN, CONFIG, CRASH, RESULTS, note_end, now, this_boot
from swarmd.system.ledger_file import End, LedgerUnreadable, Stop, read


def main(environ: Mapping[str, str]) -> int:
    """Books the stop that the environment tells of; always 0."""
    configure_logging("info")
    state = _directory(environ, "STATE_DIRECTORY")
    phase, round = _last_sign(state, _directory(environ, "RUNTIME_DIRECTORY"), environ.get("INVOCATION_ID"))
    end = ended(environ, phase, round)
    stop = note_end(state, end, __version__, this_boot()) if state else None
    _tell(end, stop, environ)
    return EXIT_OK


def ended(environ: Mapping[str, str], phase: str | None, round: int | None) -> End:
    """The end that $SERVICE_RESULT, $EXIT_CODE and $EXIT_STATUS describe (systemd.exec(5))."""
    result, code, status = (environ.get(name, "") for name in ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS"))
    exit_code = int(status) if code == "exited" and status.isdigit() else None
    signal = status or None if code in ("killed", "dumped") else None
    cause = RESULTS.get(result, CRASH)
    if cause == CRASH and exit_code in (EXIT_CONFIG, EXIT_CREDENTIALS):
        cause = CONFIG
    return End(cause, phase, round, exit_code, signal, environ.get("INVOCATION_ID"))


def _last_sign(state: Path | None, runtime: Path | None, invocation: str | None) -> tuple[str | None, int | None]:
    """Phase and round as the node last wrote them, where it was this run that did so."""
    if runtime is None:
        return None, None
    try:
        run = read(state).run if state else None
        status = read_status(runtime)
        written = (runtime / STATUS_FILE).stat().st_mtime
    except (StatusError, LedgerUnreadable, ValueError, OSError):
        return None, None
    if run is None or run.invocation != invocation or run.started is None:
        return None, None
    began = datetime.fromisoformat(run.started).timestamp()
    round = status.get("round")
    if written < began - 1.0:
        return None, None
    return status.get("phase") or None, round if isinstance(round, int) else None


def _directory(environ: Mapping[str, str], name: str) -> Path | None:
    first = environ.get(name, "").split(":")[0]
    return Path(first) if first else None


def _tell(end: End, stop: Stop | None, environ: Mapping[str, str]) -> None:
    how = end.cause
    if end.signal:
        how += f" (signal {end.signal})"
    elif end.exit_code is not None:
        how += f" (exit code {end.exit_code})"
    uptime = None if stop is None else stop.uptime_s
    lived = "" if uptime is None else f" after {uptime:.0f} s"
    where = f", in phase {end.phase}" if end.phase else ""
    where += f", round {end.round}" if end.round is not None else ""
    event(
        "service_stopped",
        f"the service stopped: {how}{lived}{where}",
        priority=5 if end.cause == CLEAN else 3,
        cause=end.cause,
        exit_code=end.exit_code,
        signal=end.signal,
        phase=end.phase,
        round=end.round,
        uptime_s=uptime,
        invocation_id=end.invocation,
        service_result=environ.get("SERVICE_RESULT"),
        version=__version__ if stop is None else stop.version,
        time=now(),
    )


if __name__ == "__main__":
    sys.exit(main(os.environ))
