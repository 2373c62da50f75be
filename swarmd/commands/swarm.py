"""The commands about the swarm and the node's identity: what they print, for people and as JSON."""

from __future__ import annotations

import argparse
import base64
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from swarmd.config import DEFAULT_PATH
from swarmd.config.swarm import NODES_PER_SHARD
from swarmd.membership import change
from swarmd.membership.change import Member
from swarmd.membership.neighbours import port_notes
from swarmd.membership.place import Place
from swarmd.network import identity
from swarmd.system.as_owner import as_owner, members_state
from swarmd.system.exits import EXIT_OK, ConfigurationError
from swarmd.system.installation import installation
from swarmd.system.redaction import one_line

_NO = 1
_NO_BACKUP = (
    "nothing has changed; name a file that `swarmd identity backup FILE` made, or the swarm.pem of an rl-swarm node"
)
_MOST_INVITE = 128 * 1024


def run_command(options: argparse.Namespace) -> int:
    """Carries out `found`, `invite`, `join`, `leave` or an action of `identity`, and returns the exit code.

    Raises ConfigurationError.
    """
    main = options.config if options.config is not None else DEFAULT_PATH
    state = members_state(options.state, main, options.instance)
    place = Place(options.config, main, state, os.environ, _named_by(options))
    action = f" {options.action}" if options.command == "identity" else ""
    return _COMMANDS[options.command + action](options, place)


def _named_by(options: argparse.Namespace) -> str:
    """The options that say which node is meant."""
    if options.instance is not None:
        return shlex.join(["--instance", options.instance])
    named = {"--config": options.config, "--state": options.state}
    return shlex.join(word for option, path in named.items() if path is not None for word in (option, str(path)))


def _found(options: argparse.Namespace, place: Place) -> int:
    member = change.found(
        place,
        options.name,
        round_seconds=options.round_seconds,
        datasets=options.datasets,
        private=options.private,
        announce=tuple(options.announce),
        bootnode=options.bootnode,
        nodes=options.nodes,
    )
    made, step, ports = member.invite, _next_step(options, place), port_notes(place.main, place.load())
    if options.json:
        return _print_json({**_as_json(member), "notes": [*_notes(member), *ports], "next": step})
    notes = [f"note: {note}" for note in (*_notes(member), *ports)]
    size = f"shards {made.shards}, for up to {made.shards * NODES_PER_SHARD} nodes"
    _tell(f"founded the swarm {_described(member)}", size, *_lines(member), *notes)
    _tell(f"next: {step}", "others join with:")
    print(f"swarmd join {member.word}")
    return EXIT_OK


def _invite(options: argparse.Namespace, place: Place) -> int:
    member = change.invite(place)
    if options.json:
        return _print_json({**_as_json(member), "notes": _notes(member)})
    for note in _notes(member):
        print(f"swarmd: {note}", file=sys.stderr)  # the invite alone on stdout, for scripts
    print(member.word)
    return EXIT_OK


def _join(options: argparse.Namespace, place: Place) -> int:
    word = sys.stdin.read(_MOST_INVITE) if options.invite == "-" else options.invite
    member = change.join(place, word)
    step, notes = _next_step(options, place), port_notes(place.main, place.load())
    if options.json:
        return _print_json({**_as_json(member), "notes": notes, "next": step})
    told = [f"note: {note}" for note in notes]
    _tell(f"joined the swarm {_described(member)}", *_lines(member), *told, f"next: {step}")
    return EXIT_OK


def _leave(options: argparse.Namespace, place: Place) -> int:
    swarm_id, elsewhere = change.leave(place)
    step = _next_step(options, place)
    if options.json:
        left = {"id": swarm_id, "file": str(place.drop_in), "still": elsewhere, "next": step}
        return _print_json(left)
    _tell(f"left the swarm {swarm_id}: removed {place.drop_in}; identity and training stay in {place.state}")
    if elsewhere is not None:
        _tell(f"note: {elsewhere} sets swarm.id for all nodes of this machine, and is in force for this one again")
    _tell(f"next: {step}")
    return EXIT_OK


def _identity_file(place: Place) -> Path:
    return identity.identity_path(place.load().network.identity_file, place.state, place.environ)


def _identity_show(options: argparse.Namespace, place: Place) -> int:
    path = _identity_file(place)
    shown = as_owner(place.state, lambda: _described_key(identity.load(path)) if os.path.lexists(path) else None)
    if shown is None:
        print(f"swarmd: there is no identity yet: {path}; `swarmd identity new` makes one", file=sys.stderr)
        return _NO
    return _print_identity(options, shown)


def _identity_new(options: argparse.Namespace, place: Place) -> int:
    path = _identity_file(place)

    def make() -> dict[str, str]:
        _refuse_to_replace(path)
        return _described_key(identity.create(path))

    return _print_identity(options, as_owner(place.state, make))


def _identity_backup(options: argparse.Namespace, place: Place) -> int:
    path = _identity_file(place)

    def read() -> str:
        content = identity.read_key_file(path, private=True)
        identity.parse(content, path)  # a damaged key is no backup
        return base64.b64encode(content).decode()

    copy = identity.create_from(base64.b64decode(as_owner(place.state, read)), options.file.absolute())
    if copy is None:
        raise ConfigurationError(f"{options.file} exists already; name a new file")
    return _print_identity(options, _described_key(copy))


def _identity_restore(options: argparse.Namespace, place: Place) -> int:
    path = _identity_file(place)
    content = identity.read_key_file(options.file, private=False)
    backup = identity.parse(content, options.file, _NO_BACKUP)

    def put() -> dict[str, str]:
        made = identity.create_from(content, path)
        if made is None:
            present = identity.load(path)
            if present.peer_id != backup.peer_id:
                raise ConfigurationError(
                    f"{options.file} is the key of another node, {backup.name} ({backup.peer_id}); this one is "
                    f"{present.name} ({present.peer_id}) by {path}, and a key is never overwritten. Nothing has "
                    f"changed; if this node is to become the other, stop both, move its key away, mv {path} "
                    f"{path}.old, and restore again"
                )
            made = present
        return _described_key(made)

    return _print_identity(options, as_owner(place.state, put))


def _refuse_to_replace(path: Path) -> None:
    if os.path.lexists(path):
        raise ConfigurationError(
            f"{path}: the node has an identity already, and a key is never overwritten; for another one, stop the "
            f"node and move this one away: mv {path} {path}.old"
        )


def _described_key(key: identity.Identity) -> dict[str, str]:
    return {"peer_id": key.peer_id, "name": key.name, "file": str(key.path)}


def _print_identity(options: argparse.Namespace, shown: Mapping[str, str]) -> int:
    if options.json:
        return _print_json(shown)
    print(f"{shown['peer_id']}\n{shown['name']}\n{one_line(shown['file'])}")
    return EXIT_OK


def _described(member: Member) -> str:
    made = member.invite
    tasks = made.datasets if isinstance(made.datasets, str) else ", ".join(entry["name"] for entry in made.datasets)
    kind = "private" if made.secret is not None else "open"
    return (
        f"{made.name} ({made.swarm_id}, {kind}): rounds of {made.round_seconds:g} s since {_time(made.epoch)}, "
        f"tasks {tasks}"
    )


def _lines(member: Member) -> list[str]:
    return [f"this node: {member.peer_id} ({member.node_name})", f"settings: {member.file}"]


def _notes(member: Member) -> list[str]:
    """What whoever hands out the invite should know."""
    fix = "set network.announce: [/ip4/PUBLIC_ADDRESS/tcp/PORT] in the configuration"
    addresses = ", ".join(member.reachable.addresses)
    notes = []
    if member.reachable.reach == "private":
        notes.append(
            f"only addresses of a private network were found here ({addresses}); for nodes outside it, forward the "
            f"port to this machine and {fix}"
        )
    elif member.reachable.reach == "machine":
        notes.append(f"only this machine can reach this node ({addresses}); change network.listen, or {fix}")
    elif member.reachable.reach == "nowhere":
        notes.append(f"this node knows no address of its own for the invite; if others can reach it, {fix}")
    if not member.invite.peers:
        notes.append("the invite names no node, so nobody can join with it: mend that, and then print another "
                     "with `swarmd invite`")
    if member.invite.secret is not None:
        notes.append("whoever has the invite is in the swarm: pass it on as you would a password")
    return notes


def _as_json(member: Member) -> dict[str, Any]:
    made = member.invite
    return {
        "swarm": {
            "name": made.name, "id": made.swarm_id, "dialect": made.dialect, "private": made.secret is not None,
            "epoch": _time(made.epoch), "round_seconds": made.round_seconds, "shards": made.shards,
            "datasets": made.datasets, "config_hash": made.config_hash, "peers": list(made.peers),
        },
        "invite": member.word,
        "peer_id": member.peer_id,
        "name": member.node_name,
        "addresses": list(member.reachable.addresses),
        "reach": member.reachable.reach,
        "file": str(member.file),
    }  # fmt: skip


def _next_step(options: argparse.Namespace, place: Place) -> str:
    """The command that brings the change into force."""
    named = installation(options.instance)
    if place.main != named.config:
        state = "" if options.state is None else f" --state {shlex.quote(str(options.state))}"
        return f"start the node anew: swarmd run --config {shlex.quote(str(place.main))}{state}"
    unit = named.unit.removesuffix(".service")
    return f"systemctl {'restart' if _is_active(named.unit) else 'start'} {unit}"


def _is_active(unit: str) -> bool:
    program = shutil.which("systemctl")
    if program is None:
        return False
    try:
        asked = subprocess.run([program, "is-active", "--quiet", unit], timeout=5, check=False, capture_output=True)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _tell(*lines: str) -> None:
    print("\n".join(map(one_line, lines)))


def _print_json(value: Any) -> int:
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    print()
    return EXIT_OK


_COMMANDS: Mapping[str, Callable[[argparse.Namespace, Place], int]] = {
    "found": _found,
    "invite": _invite,
    "join": _join,
    "leave": _leave,
    "identity show": _identity_show,
    "identity new": _identity_new,
    "identity backup": _identity_backup,
    "identity restore": _identity_restore,
}
