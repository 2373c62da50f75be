"""A bootnode: a member of the swarm that trains nothing. It helps others to find each other and keeps their records;
it loads no model and none of the libraries for one."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from swarmd.config import Config
from swarmd.coordination.clock import ClockCoordinator
from swarmd.coordination.coordinator import StopAsked
from swarmd.monitor.status import BOOTNODE, STATUS_FILE, PeersStatus, Status, StatusFile
from swarmd.monitor.summary import summary
from swarmd.network.network_process import NetworkDown
from swarmd.swarming import Membership, membership
from swarmd.system.events import event
from swarmd.system.exits import ConfigurationError
from swarmd.system.ledger import PreviousEnd
from swarmd.system.notify import notifier
from swarmd.system.paths import runtime_directory
from swarmd.system.phases import Phases
from swarmd.system.reloading import ReloadRequest
from swarmd.system.startup import assert_recursion_limit
from swarmd.system.stopping import StopRequest
from swarmd.system.watchdog import Watchdog

SERVE = "serve"
"""Its only phase."""

_LOOK_SECONDS = 1.0
_CALL_SECONDS = 5.0

Opened = tuple[int | None, int | None]
"""The last round that records are kept for, and the process id of the network process that was told so."""


def serve(config: Config, config_path: Path | None, state: Path, previous: PreviousEnd) -> None:
    """Serves the swarm until it is stopped.

    config_path: of the file that config was read from, None for the default one.
    Raises ConfigurationError: there is no swarm to serve, the identity is in use, an address cannot be listened on.
    """
    service, begun = notifier(), time.monotonic()
    stop = StopRequest(lambda: False, lambda name: service.stopping(f"stopping on {name}"))
    stop.install()
    # Nothing of what it runs on changes live; the request must be taken for the sender to go on.
    reload = ReloadRequest(lambda: stop.ask(signal.SIGHUP))
    reload.install()
    phases = Phases(lambda phase: None)
    watchdog = Watchdog(phases, config.watchdog.model_dump(), service)
    watchdog.start()
    status_file = StatusFile(runtime_directory(state) / STATUS_FILE)
    status = Status("starting", name=config.swarm.name or "", role=BOOTNODE, restarts=previous.totals)
    ended = "failed"
    try:
        with membership(config, config_path, state, "", os.environ, phases.beat) as member:
            if member is None:
                raise ConfigurationError(
                    "swarm.role is bootnode, but swarm.id is not set, so there is no swarm to serve; found one with "
                    "`swarmd found NAME --bootnode`, or join one"
                )
            assert_recursion_limit()
            status = replace(status, peer_id=member.identity.peer_id, name=member.identity.name)
            event("ready", f"ready after {time.monotonic() - begun:.1f} s: bootnode {member.identity.name}", priority=5)
            status = _now(status, member, None, 0.0)
            service.ready(_line(status))
            opened: Opened = None, None
            with phases.enter(SERVE):
                while not stop.asked:
                    phases.beat()
                    opened = _opened(config, member, phases, opened)
                    status = _now(status, member, phases.round, time.monotonic() - begun)
                    status_file.write(status)
                    if reload.take():
                        service.reloading()
                        service.ready(_line(status))
                    service.status(_line(status))
                    stop.wait(_LOOK_SECONDS)
        ended = "stopped"
    finally:
        status_file.write(replace(status, state=ended), force=True)
        watchdog.close()
    event("stopped", f"stopped: on {stop.signal_name}", priority=5)
    service.stopping(f"stopped: on {stop.signal_name}")


def _opened(config: Config, member: Membership, phases: Phases, before: Opened) -> Opened:
    """Has the records of the rounds around this one kept for others: once a round, and by each network process anew."""
    clock = ClockCoordinator(config.coordinator.epoch, config.coordinator.round_seconds, time.time, lambda _: True)
    try:
        phases.round = clock.next_round(None)
    except StopAsked:
        return before  # the first round has yet to begin
    wanted = phases.round, member.process.pid
    if wanted == before:
        return before
    try:
        member.process.call("open", _CALL_SECONDS, phases.beat, round=phases.round)
    except NetworkDown:
        return before  # a process that is being replaced is told at the next look
    return wanted


def _now(status: Status, member: Membership, round: int | None, uptime: float) -> Status:
    """The status of this moment. There is no state for serving: it is what training is to other nodes."""
    state = member.process.state
    return replace(
        status,
        state="degraded" if member.trouble() else "training",
        phase=SERVE,
        round=round,
        uptime_s=uptime,
        peers=PeersStatus(seen=state.connected),
        network=member.status(),
        children=member.children(),
    )


def _line(status: Status) -> str:
    return summary(status, status.network.problem if status.network is not None else "")
