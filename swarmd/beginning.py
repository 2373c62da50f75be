"""What comes before the node's work: its directory locked, its start taken down, the wait after quick failures.

The libraries of the node cost seconds and half a gigabyte. They are imported last, so that a node which cannot run and
waits five minutes for its next attempt is small, answers at once, and has said so within a second of its start.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from swarmd import __version__
from swarmd.config import Config
from swarmd.located import naming_lines
from swarmd.monitor.status import STATUS_FILE, Status, StatusFile
from swarmd.system.events import adopt_libraries, configure_logging, event
from swarmd.system.exits import EXIT_OK, ConfigurationError
from swarmd.system.journal import stderr_is_journal
from swarmd.system.ledger import CLEAN, PreviousEnd, backoff_seconds, described, note_end, note_start, this_boot
from swarmd.system.ledger_file import End
from swarmd.system.notify import notifier
from swarmd.system.paths import lock_state, runtime_directory
from swarmd.system.phases import Phases
from swarmd.system.reloading import ReloadRequest
from swarmd.system.stopping import StopRequest, leave_at_once_when_asked
from swarmd.system.streams import adopt_streams
from swarmd.system.watchdog import Watchdog
from swarmd.unbuilt import refuse_what_is_not_built

# So often a waiting start says how long it still waits.
_WAIT_TOLD_SECONDS = 2.0


def begin(config: Config, state: Path, rounds: int | None, config_path: Path | None) -> int:
    """Runs the node, from the lock on its state directory to the account of its end; 0.

    rounds: it ends after so many, None: when it is stopped; config_path: of the file that a reload reads again.

    Raises:
        ConfigurationError: what a person has to mend.
        Anything else is a fault of this program, a library or the machine, after which a restart is worth trying.
    """
    service = notifier()
    try:
        refuse_what_is_not_built(config)
        configure_logging(config.log.level)
        if stderr_is_journal():
            adopt_streams()
        with lock_state(state), naming_lines(config_path):
            return _run(config, state, rounds, config_path)
    except ConfigurationError as error:
        service.failed(str(error), errno.EINVAL)
        raise
    # Whatever it is goes on from here; the service manager is told of it first.
    except Exception as error:
        service.status(f"failed: {error}")
        raise


def _run(config: Config, state: Path, rounds: int | None, config_path: Path | None) -> int:
    boot, invocation = this_boot(), os.environ.get("INVOCATION_ID")

    def ended(round: int | None = None) -> None:
        note_end(state, End(CLEAN, round=round, invocation=invocation), __version__, boot)

    # Before the start is taken down: from then on every way out has to take down the end.
    stop = StopRequest(lambda: False, lambda name: notifier().stopping(f"stopping on {name}"))
    stop.install()
    ReloadRequest.note_early(lambda: stop.ask(signal.SIGHUP))
    previous = note_start(state, __version__, boot, invocation)
    wait = backoff_seconds(previous)
    first = f"; it waits {wait:.0f} s first" if wait else ""
    event("started", f"swarmd {__version__} starts; {described(previous)}; state in {state}{first}", priority=5,
          version=__version__, previous_cause=previous.cause)
    if not _prepare(config, state, previous, stop, wait, ended):
        event("stopped", f"stopped: on {stop.signal_name}", priority=5)
        notifier().stopping(f"stopped: on {stop.signal_name}")
        ended()
        return EXIT_OK
    if config.swarm.role == "bootnode":
        from swarmd.bootnode import serve

        serve(config, config_path, state, previous)
        ended()
    else:
        from swarmd.daemon import play

        ended(play(config, state, config_path, previous, rounds))
    return EXIT_OK


def _prepare(
    config: Config, state: Path, previous: PreviousEnd, stop: StopRequest, wait: float, ended: Callable[[], None]
) -> bool:
    """Waits, then imports the libraries; False where a stop was asked for. From the imports on a stop ends the
    process, wherever it is, after `ended`."""
    status = Status("starting", name=config.swarm.name or "", restarts=previous.totals)
    status_file = StatusFile(runtime_directory(state) / STATUS_FILE)
    status_file.write(status, force=True)
    phases = Phases(lambda phase: None)  # there is none yet
    # It asks the service manager for time, and ends a node that hangs in its imports.
    watchdog = Watchdog(phases, config.watchdog.model_dump(), notifier())
    watchdog.start()
    came_to = "failed"
    try:
        _back_off(previous, wait, stop, phases)
        # Imports take seconds, in which nothing looks whether a stop was asked for, and hold nothing that can be lost.
        leave_at_once_when_asked(ended)
        if stop.asked:
            stop.install()  # a second signal changes nothing
        elif config.swarm.role == "node":
            import swarmd.daemon  # noqa: F401

            adopt_libraries()
        came_to = "stopped" if stop.asked else "starting"
    finally:
        watchdog.close()
        stop.cancel_timer()
        if came_to != "starting":
            status_file.write(replace(status, state=came_to), force=True)
    return not stop.asked


def _back_off(previous: PreviousEnd, wait: float, stop: StopRequest, phases: Phases) -> None:
    """Waits after quick failures in a row, or until a stop is asked for."""
    end = time.monotonic() + wait
    while (left := end - time.monotonic()) > 0 and not stop.asked:
        phases.beat()
        notifier().status(f"starting: waits {left:.0f} s: the last {previous.quick_failures} runs ended quickly, "
                          f"the last one by {previous.cause}")
        stop.wait(min(left, _WAIT_TOLD_SECONDS))
    phases.beat()
