"""Whether a swarm fits a node: what the node's own files say against it, and what of them goes on in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swarmd import swarm_drop_in
from swarmd.config import Config
from swarmd.config.loading import Pending
from swarmd.membership.place import Place
from swarmd.network.agreement import agreement_of
from swarmd.network.invite import Invite
from swarmd.system.exits import ConfigurationError
from swarmd.tasks.mix import ENVIRONMENT
from swarmd.unbuilt import refuse_what_is_not_built

_NOTHING = Pending(swarm_drop_in.NAME, "")
"""As if this node were in no swarm by its own drop-in."""


def clocked(name: str, swarm_id: str, round_seconds: float) -> Pending:
    """As if this node were in a swarm of which nothing else is settled: what its own files say is wanted, or whether
    they are in order."""
    settings: dict[str, dict[str, Any]] = {
        "swarm": {"name": name, "id": swarm_id},
        "coordinator": {"kind": "clock", "round_seconds": round_seconds},
    }
    return Pending(swarm_drop_in.NAME, swarm_drop_in.text_of(settings))


def configured_peers(place: Place) -> list[str]:
    """The `swarm.peers` that somebody wrote down by hand: they go on beside those of an invite. The configuration must
    have been loaded before, which refuses those that are none."""
    found = place.written("swarm.peers", _NOTHING)
    # An instance's files come behind those of all nodes, and may so find what a command wrote for all.
    by_hand = found is not None and Path(found.place.rpartition(":")[0]).name != swarm_drop_in.NAME
    return list(found.value) if found is not None and by_hand and isinstance(found.value, list) else []


def config_with(place: Place, settings: Mapping[str, Mapping[str, Any]]) -> Config:
    """The configuration that these settings would make, which none of the other files may overrule.

    swarm.peers may have more of them. Raises ConfigurationError.
    """
    pending = Pending(swarm_drop_in.NAME, swarm_drop_in.text_of(settings))
    config = place.load(pending)
    alone = Config.model_validate({name: dict(values) for name, values in settings.items()})
    _refuse_fewer_peers(place, config, alone, pending)
    for section, values in settings.items():
        for key in values:
            wanted, given = (getattr(getattr(one, section), key) for one in (alone, config))
            if given != wanted and (section, key) != ("swarm", "peers"):
                found = place.written(f"{section}.{key}", pending)
                raise ConfigurationError(
                    f"{found.place if found else place.main}: {section}.{key} is set there, over what the swarm needs; "
                    f"take it out, since all nodes of a swarm have the same"
                )
    refuse_what_is_not_built(config)
    _refuse_an_own_environment(place, config)
    return config


def _refuse_fewer_peers(place: Place, config: Config, alone: Config, pending: Pending) -> None:
    missing = [address for address in alone.swarm.peers if address not in config.swarm.peers]
    if missing:
        found = place.written("swarm.peers", pending)
        raise ConfigurationError(
            f"{found.place if found else place.main}: swarm.peers is set there, in place of the swarm's own addresses; "
            f"add {', '.join(missing)} there, or move it into {place.main}: what that names is kept beside them"
        )


def _refuse_an_own_environment(place: Place, config: Config) -> None:
    if config.tasks.environment != ENVIRONMENT:
        found = place.written("tasks.environment", _NOTHING)
        raise ConfigurationError(
            f"{found.place if found else place.main}: tasks.environment is {config.tasks.environment}, whose tasks no "
            "other node could make anew to check what was answered, so nothing would be exchanged; a swarm needs "
            f"tasks.environment: {ENVIRONMENT}"
        )


def refuse_a_second_swarm(place: Place, swarm_id: str | None) -> None:
    """swarm_id: the one to join, which may be the node's own; None: a new one."""
    own = place.written("swarm.id") if os.path.lexists(place.drop_in) else None
    current = own if own is not None and own.value is not None else place.written("swarm.id", _NOTHING)
    if current is None or current.value is None or str(current.value) == swarm_id:
        return
    leaving = f"swarmd leave {place.options}".rstrip()
    fix = f"`{leaving}` first" if place.wrote(current) else "take swarm.id out there first"
    raise ConfigurationError(f"{current.place}: this node is in the swarm {current.value} already; {fix}")


def refuse_another_agreement(config: Config, wanted: Invite) -> None:
    here = agreement_of(config)
    if here.hash == wanted.config_hash:
        return
    if wanted.reasoning_gym and wanted.reasoning_gym != here.reasoning_gym:
        why = (
            f"its tasks are made by reasoning-gym {wanted.reasoning_gym}, and this node has {here.reasoning_gym}; "
            "install the version of swarmd that the inviting node runs"
        )
    else:
        why = (
            "this node makes other tasks of the same settings, so nobody could check its answers; install the version "
            "of swarmd that the inviting node runs"
        )
    raise ConfigurationError(f"the swarm {wanted.name} does not fit this node: {why}")
