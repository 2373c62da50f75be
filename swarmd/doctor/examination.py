"""`swarmd doctor`: looks at configuration, machine, swarm and network, and says of each thing what mends it.

It changes nothing, works beside a running node and without one, and talks to nobody but, where a token for it is
configured, the hub.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from swarmd.config import ConfigErrors, load_config
from swarmd.doctor import machine, network, swarm
from swarmd.doctor.look import Finding, Look
from swarmd.monitor.status import ENDED, StatusError, read_status
from swarmd.swarming import in_a_swarm
from swarmd.system.exits import ConfigurationError
from swarmd.system.installation import Installation, become_owner
from swarmd.system.paths import cache_directory
from swarmd.unbuilt import refuse_what_is_not_built

Check = Callable[[Look], Iterator[Finding]]

_OF_ANY_NODE: dict[str, Check] = {
    "state": machine.state,
    "disk": machine.disk,
    "memory": machine.memory,
    "torch": machine.torch,
    "hub": machine.hub,
    "swarm": swarm.membership,
}
_OF_A_MEMBER: dict[str, Check] = {
    "identity": swarm.identity,
    "secret": swarm.secret,
    "agreement": swarm.agreement,
    "reasoning-gym": swarm.reasoning_gym,
    "clock": swarm.clock,
    "ports": network.ports,
    "addresses": network.addresses,
    "p2pd": network.daemon,
    "connections": network.connections,
}
_SHOWN = {"ok": "ok", "warning": "warning", "failed": "FAILED", "skipped": "-"}


def examine(config_path: Path | None, state: Path, written: Path, named: Installation) -> list[Finding]:
    """All findings. written: where the node puts what it tells of itself; named: the places of the service.

    As root, goes on as the user that the state directory belongs to: what that user cannot do, the node cannot.
    """
    try:
        config = load_config(config_path, os.environ)
        refuse_what_is_not_built(config)
    except (ConfigErrors, ConfigurationError) as error:
        fix = f"swarmd check --no-plan{f' --config {config_path}' if config_path else ''}"
        denied = os.strerror(errno.EACCES)
        return [
            *(
                Finding("config", "failed", line.strip(), "sudo swarmd doctor" if denied in line else fix)
                for line in str(error).splitlines()
                if line.strip()
            ),
            Finding("everything-else", "skipped", "all else is looked at when the configuration can be used"),
        ]
    try:
        status = read_status(written)
    except StatusError:
        status = {}
    look = Look(config, config_path, state, status, bool(status) and status["state"] not in ENDED, named)
    findings = [Finding("config", "ok", f"{look.main if look.main.exists() else 'the built-in defaults'} can be used")]
    try:
        become_owner(state)
    except ConfigurationError as error:
        return [*findings, Finding("state", "failed", str(error), f"sudo chown -R USER {state}")]
    # As in the unit: what libraries write when they are imported belongs into the cache, not into the state.
    os.environ.setdefault("MPLCONFIGDIR", str(cache_directory() / "matplotlib"))
    if not os.access(os.__file__, os.R_OK):
        # Say, an environment in root's home for a node of another user: it could not run, nor can what follows here.
        message = f"user {os.geteuid()}, whose {state} is, cannot read where this program is ({os.__file__})"
        return [*findings, Finding("program", "failed", message, "install the package, whose files all can read")]
    checks = {**_OF_ANY_NODE, **(_OF_A_MEMBER if in_a_swarm(config) else {})}
    return [*findings, *(finding for name, check in checks.items() for finding in _carried_out(name, check, look))]


def _carried_out(name: str, check: Check, look: Look) -> list[Finding]:
    try:
        return list(check(look))
    except ConfigurationError as error:
        return [Finding(name, "failed", str(error), _command_in(str(error)))]
    # One check that this machine is too odd for must not keep the others from being made.
    except Exception as error:
        return [Finding(name, "failed", f"this could not be looked at: {type(error).__name__}: {error}")]


def _command_in(message: str) -> str | None:
    """The first command that a message quotes: they all name their fix."""
    quoted = message.split("`")
    return quoted[1] if len(quoted) > 2 else None


def finding_lines(findings: list[Finding]) -> Iterator[str]:
    """The findings for people, each with what mends it below."""
    for finding in findings:
        yield f"{_SHOWN[finding.result]:8}  {finding.check:14}  {finding.message}"
        if finding.fix is not None:
            yield f"{'':26}> {finding.fix}"
    failed, warned = (sum(finding.result == result for finding in findings) for result in ("failed", "warning"))
    yield ""
    yield "nothing to mend" if not failed and not warned else f"{failed} failed, {warned} warning{'s' * (warned != 1)}"
