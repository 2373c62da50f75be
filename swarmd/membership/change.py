"""Founding, joining and leaving a swarm. All is checked before anything is written, and the drop-in is written last:
it makes the node a member."""

from __future__ import annotations

import math
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from swarmd import swarm_drop_in
from swarmd.config import Config
from swarmd.config.loading import Pending
from swarmd.config.swarm import NODES_PER_SHARD
from swarmd.config.values import Allowed, AnnouncedAddress, Name
from swarmd.membership.fitting import (
    clocked,
    config_with,
    configured_peers,
    refuse_a_second_swarm,
    refuse_another_agreement,
)
from swarmd.membership.place import Place
from swarmd.network import secret_change, swarm_secret
from swarmd.network.addresses import Reachable, reachable
from swarmd.network.agreement import agreement_of
from swarmd.network.identity import identity_path, load_or_create
from swarmd.network.invite import MOST_PEERS, Invite, decode, encode, plain_datasets
from swarmd.system.as_owner import as_owner
from swarmd.system.exits import ConfigurationError


@dataclass(frozen=True)
class Member:
    """A node in its swarm. peer_id, node_name: of the node's identity."""

    invite: Invite
    word: str
    peer_id: str
    node_name: str
    reachable: Reachable
    file: Path


def found(
    place: Place,
    name: str,
    *,
    round_seconds: float,
    datasets: str | None,
    private: bool,
    announce: tuple[str, ...],
    bootnode: bool,
    nodes: int | None,
) -> Member:
    """Makes a new swarm, with this node as its first member.

    datasets: a preset; None: the mix that is configured. nodes: how many it is to have, 1 to MOST_NODES; None: the
    shards that are configured. Raises ConfigurationError; then nothing has changed.
    """
    _check_option("NAME", Name, name)
    for address in announce:
        _check_option("--announce", AnnouncedAddress, address)
    refuse_a_second_swarm(place, None)
    swarm_id = secrets.token_hex(16)
    before = place.load(clocked(name, swarm_id, float(round_seconds)))
    settings = _settings(
        Invite(
            name=name,
            swarm_id=swarm_id,
            epoch=float(int(time.time())),
            round_seconds=float(round_seconds),
            shards=before.swarm.shards if nodes is None else math.ceil(nodes / NODES_PER_SHARD),
            datasets=datasets or plain_datasets(before.tasks),
            dialect=before.swarm.dialect,
            peers=tuple(configured_peers(place)),
            config_hash="",
        ),
        place.state / swarm_secret.FILE_NAME if private else None,
    )
    if bootnode:
        settings["swarm"]["role"] = "bootnode"
    if announce:
        settings["network"] = {"announce": list(announce)}
    config = config_with(place, settings)
    if not config.network.listen:
        raise ConfigurationError("network.listen is empty, so nobody could reach the swarm; name an address there")
    secret = swarm_secret.new_secret() if private else None
    # Before anything is written: an invite that cannot be made shows a swarm that cannot be joined.
    _invite_of(config, (), secret)
    _become_member(place, config, swarm_drop_in.text_of(settings), secret)
    return _member(place, config, secret)


def invite(place: Place) -> Member:
    """The swarm that this node is in. Raises ConfigurationError where it is in none."""
    config = place.load()
    if config.swarm.id is None:
        raise ConfigurationError(
            "this node is in no swarm; `swarmd found NAME` makes one, `swarmd join INVITE` joins one"
        )
    if config.coordinator.kind != "clock":
        raise ConfigurationError(
            f"coordinator.kind is {config.coordinator.kind}, and an invite is for a swarm whose rounds go by the clock"
        )
    reference, secret = config.swarm.secret_file, None
    if reference is not None:
        secret = as_owner(place.state, lambda: swarm_secret.read_swarm_secret(reference, place.environ))
    return _member(place, config, secret)


def join(place: Place, word: str) -> Member:
    """Makes this node a member of the swarm of this invite. Raises ConfigurationError; then nothing has changed."""
    wanted = decode(word)
    if not wanted.peers:
        # Not a warning: the node would train alone for good, and a member would forget the addresses it has.
        raise ConfigurationError(
            f"the invite to {wanted.name} names no node, so nobody could be found with it; ask for a better one: "
            "`swarmd invite` on a node of the swarm that runs and that others can reach, after setting "
            "network.announce: [/ip4/PUBLIC_ADDRESS/tcp/PORT] there if it finds no address of its own"
        )
    refuse_a_second_swarm(place, wanted.swarm_id)
    place.load(clocked(wanted.name, wanted.swarm_id, wanted.round_seconds))
    secret_file = place.state / swarm_secret.FILE_NAME if wanted.secret is not None else None
    settings = _kept(place, _settings(wanted, secret_file))
    peers = settings["swarm"]["peers"] = list(dict.fromkeys((*wanted.peers, *configured_peers(place))))
    config = config_with(place, settings)
    refuse_another_agreement(config, wanted)
    peer_id = _identity(place, config)[0]
    others = [address for address in peers if f"/p2p/{peer_id}" not in address]
    if others != peers:  # the node's own: it founded the swarm, or joined before
        settings["swarm"]["peers"] = others
        config = config_with(place, settings)
    _become_member(place, config, swarm_drop_in.text_of(settings), wanted.secret)
    return _member(place, config, wanted.secret)


def leave(place: Place) -> tuple[str, str | None]:
    """Takes the node out of its swarm; identity, checkpoints and curves stay.

    Returns the swarm's id, and the place that has another id for it from now on (of an instance: the drop-in of all).
    Raises ConfigurationError; then nothing has changed.
    """
    current = place.written("swarm.id")
    if not os.path.lexists(place.drop_in):
        place.load()  # who may not look where the drop-in is must not be told that there is none
        if current is None or current.value is None:
            raise ConfigurationError(f"this node is in no swarm: there is no {place.drop_in}")
        raise ConfigurationError(
            f"{current.place}: swarm.id is set there, by hand or for all nodes of this machine; take it out there "
            "(swarmd leave removes only what swarmd found or swarmd join wrote for this node)"
        )
    gone = Pending(swarm_drop_in.NAME, None)
    try:
        place.load(gone)
    except ConfigurationError as error:
        raise ConfigurationError(f"without {place.drop_in}, {error}\nmend that first; nothing has changed") from None
    swarm_drop_in.remove(place.drop_in)
    secret = place.state / swarm_secret.FILE_NAME
    as_owner(place.state, lambda: secret_change.remove(secret))
    left = place.written("swarm.id")
    return str(current.value) if current is not None else "", left.place if left is not None and left.value else None


def _check_option(option: str, kind: Any, value: str) -> None:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        allowed = next(part.text for part in get_args(kind) if isinstance(part, Allowed))
        raise ConfigurationError(f"{option} {value!r}: must be {allowed}") from None


def _settings(invite: Invite, secret_file: Path | None) -> dict[str, dict[str, Any]]:
    """What the drop-in of a member says, by section and key."""
    swarm: dict[str, Any] = {"name": invite.name, "id": invite.swarm_id, "dialect": invite.dialect}
    swarm |= {"shards": invite.shards, "peers": list(invite.peers)}
    swarm["secret_file"] = None if secret_file is None else str(secret_file)
    return {
        "swarm": swarm,
        "coordinator": {"kind": "clock", "epoch": invite.epoch, "round_seconds": invite.round_seconds},
        "tasks": {"datasets": invite.datasets},
    }


def _kept(place: Place, settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """With what `swarmd found` was told of this node alone, so that joining anew does not lose it."""
    for section, key in (("swarm", "role"), ("network", "announce")):
        found = place.written(f"{section}.{key}")
        if found is not None and place.wrote(found):
            settings.setdefault(section, {})[key] = found.value
    return settings


def _invite_of(config: Config, peers: tuple[str, ...], secret: str | None) -> tuple[Invite, str]:
    agreement = agreement_of(config)
    made = Invite(
        name=config.swarm.name or "swarm", swarm_id=config.swarm.id or "", dialect=agreement.dialect, peers=peers,
        epoch=agreement.epoch, round_seconds=agreement.round_seconds, shards=agreement.shards, secret=secret,
        datasets=plain_datasets(config.tasks), config_hash=agreement.hash, reasoning_gym=agreement.reasoning_gym,
    )  # fmt: skip
    return made, encode(made)


def _member(place: Place, config: Config, secret: str | None) -> Member:
    peer_id, node_name = _identity(place, config)
    own = reachable(config.network)
    peers = tuple(dict.fromkeys((*own.with_peer(peer_id), *config.swarm.peers)))[:MOST_PEERS]
    made, word = _invite_of(config, peers, secret)
    return Member(made, word, peer_id, node_name, own, place.drop_in)


def _identity(place: Place, config: Config) -> tuple[str, str]:
    """Peer id and name of the node's identity, which is made if there is none."""
    path = identity_path(config.network.identity_file, place.state, place.environ)

    def named() -> list[str]:
        identity = load_or_create(path)
        return [identity.peer_id, identity.name]

    peer_id, name = as_owner(place.state, named)
    return peer_id, name


def _become_member(place: Place, config: Config, text: str, secret: str | None) -> None:
    swarm_drop_in.refuse_if_unwritable(place.drop_in)
    _identity(place, config)
    path = place.state / swarm_secret.FILE_NAME
    if secret is not None:
        as_owner(place.state, lambda: secret_change.begin(path, secret))
    try:
        swarm_drop_in.write(place.drop_in, swarm_drop_in.with_agreement(text, agreement_of(config).hash))
    except ConfigurationError:
        if secret is not None:
            as_owner(place.state, lambda: secret_change.take_back(path))
        raise
    if secret is not None:
        as_owner(place.state, lambda: secret_change.finish(path))
