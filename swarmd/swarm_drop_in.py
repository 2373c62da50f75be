"""The drop-in that makes a node a member of its swarm: its text, and writing and removing it whole."""

from __future__ import annotations

import contextlib
import errno
import grp
import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swarmd.config.files import MAX_BYTES
from swarmd.system.exits import ConfigurationError

NAME = "50-swarm.yaml"
_HEADER = """\
# Written by swarmd found or swarmd join; `swarmd leave` removes it. What is changed here by hand is lost when the node
# joins anew. All nodes of a swarm have the same: swarm.id, dialect and shards, the clock, and the tasks.
"""
_AGREEMENT = "# agreement: "
_GROUP = "swarmd"
_FILE_MODE, _FOLDER_MODE = 0o640, 0o750


def text_of(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """The drop-in for settings by section and key.

    Values are written as JSON, which is YAML too and leaves no doubt what is a text: YAML's own short forms would turn
    an id such as 1234e567 into a number.
    """
    lines = [_HEADER]
    for section, values in settings.items():
        lines.append(f"{section}:\n")
        lines += [f"  {key}: {json.dumps(value)}\n" for key, value in values.items()]
    return "".join(lines)


def with_agreement(text: str, agreement: str) -> str:
    """The drop-in with a note of what the swarm agreed on (64 hexadecimal digits), for `swarmd doctor`."""
    return f"{text}{_AGREEMENT}{agreement}\n"


def agreement_in(path: Path) -> str | None:
    """What the drop-in notes of that; None where it says nothing, or there is none. OSError: it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            lines = stream.read(MAX_BYTES).splitlines()
    except FileNotFoundError:
        return None
    noted = [line.removeprefix(_AGREEMENT).strip() for line in lines if line.startswith(_AGREEMENT)]
    return noted[-1] if noted and re.fullmatch("[0-9a-f]{64}", noted[-1]) else None


def refuse_if_unwritable(path: Path) -> None:
    """Raises ConfigurationError where `write` would certainly fail; asked before anything else is written."""
    folder = path.parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        raise ConfigurationError(f"{path} cannot be written: {denied.strerror}{_who_may(denied)}")


def write(path: Path, text: str) -> None:
    """Writes the file at once: beside, synced, renamed. Where root writes it and there is a service, only those two can
    read it.

    Raises ConfigurationError naming the file.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
            path.parent.chmod(_FOLDER_MODE)  # whatever the umask is
            _give_to_the_service(path.parent)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fchmod(stream.fileno(), _FILE_MODE)
                _give_to_the_service(stream.fileno())
                os.fsync(stream.fileno())
            os.replace(beside, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}{_who_may(error)}") from error


def remove(path: Path) -> None:
    """Raises ConfigurationError naming the file."""
    try:
        path.unlink()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be removed: {error.strerror}{_who_may(error)}") from error


def _give_to_the_service(target: Path | int) -> None:
    if os.geteuid() != 0:
        return
    with contextlib.suppress(KeyError):  # no service on this machine
        os.chown(target, -1, grp.getgrnam(_GROUP).gr_gid)


def _who_may(error: OSError) -> str:
    denied = isinstance(error, PermissionError) and os.geteuid() != 0
    return "; run this with sudo, or name a configuration of your own with --config PATH" if denied else ""
