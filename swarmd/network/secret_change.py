"""Putting another secret into a private swarm's file, so that it can be taken back while the drop-in names the old one.

`begin`, then the drop-in, then `finish`; or `take_back` where the drop-in cannot be written. The old secret lies beside
the file meanwhile.
"""

from __future__ import annotations

import os
from pathlib import Path

from swarmd.network.swarm_secret import remove_swarm_secret, write_swarm_secret
from swarmd.system.exits import ConfigurationError


def begin(path: Path, secret: str) -> None:
    """Writes the secret, and keeps the one that was there. Raises ConfigurationError; then the old one is in place."""
    remove_swarm_secret(_aside(path))
    try:
        os.link(path, _aside(path))
    except FileNotFoundError:  # none was there
        pass
    except OSError as error:
        raise ConfigurationError(f"{path}: the old secret cannot be kept meanwhile: {error.strerror}") from error
    try:
        write_swarm_secret(path, secret)
    except ConfigurationError:
        remove_swarm_secret(_aside(path))
        raise


def take_back(path: Path) -> None:
    """Puts the old secret back, or removes the new one where there was none. Raises ConfigurationError naming both."""
    try:
        os.replace(_aside(path), path)  # needs no room on a full disk
    except FileNotFoundError:
        remove_swarm_secret(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: the old secret cannot be put back: {error.strerror}; it is in {_aside(path)}"
        ) from error


def finish(path: Path) -> None:
    """Forgets the old secret. Raises ConfigurationError naming its file."""
    remove_swarm_secret(_aside(path))


def remove(path: Path) -> None:
    """Removes the secret, and an old one that a broken change has left. Raises ConfigurationError naming the file."""
    for file in (path, _aside(path)):
        remove_swarm_secret(file)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")
