"""A change of swarm that the running node has not made yet: its configuration says one thing, and the node, which was
started before, does another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swarmd.config import Config
from swarmd.monitor.status import ENDED
from swarmd.swarming import SOLO_SWARM, in_a_swarm

STARTING = "starting"


def still_in(status: Mapping[str, Any], config: Config) -> str:
    """That the running node is in another swarm than the configured one; "" where it is not.

    status: as `read_status` gives it, {} where no node has run.
    """
    network = _network(status)
    if not network or network["swarm_id"] == _configured(config):
        return ""
    running = f"the running node is still in the swarm {_named(network['swarm'], network['swarm_id'])}"
    now = f"is in the swarm {_of(config)}" if in_a_swarm(config) else "is in no swarm"
    return f"{running} until it is started anew; by its configuration it {now}"


def not_yet_in(status: Mapping[str, Any], config: Config) -> str:
    """That the running node is not in the configured swarm, or in none at all, so far; "" where it is in one."""
    if not status or status["state"] in ENDED or _network(status) or not in_a_swarm(config):
        return ""
    if status["state"] == STARTING:
        return f"the node is starting in the swarm {_of(config)}"
    return (f"this node has joined the swarm {_of(config)} by its configuration, and the running node, which trains "
            "alone, has to be started anew")


def _network(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a running node tells of its swarm."""
    return status.get("network") if status and status["state"] not in ENDED else None


def _configured(config: Config) -> str | None:
    return config.swarm.id or SOLO_SWARM if in_a_swarm(config) else None


def _of(config: Config) -> str:
    return _named(config.swarm.name, config.swarm.id or SOLO_SWARM)


def _named(name: str | None, swarm_id: str) -> str:
    return f"{name} ({swarm_id})" if name else swarm_id
