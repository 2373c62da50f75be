"""The file of the reputation: replaced in one step, and read with suspicion."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FORMAT = 1
_LARGEST = 4 * 1024 * 1024
_LONGEST_NAME = 128
_LARGEST_NUMBER = 1e15  # of groups and of seconds; what is greater is damage
_NUMBERS = ("good", "bad", "quarantines", "quarantined_until", "seen")

_log = logging.getLogger("swarmd")


def load_standings(path: Path) -> dict[str, dict[str, Any]]:
    """The standings by peer id; empty where there is no file or none that can be read. Entries that make no sense are
    left out."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        document = json.loads(content[:_LARGEST])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("%s: cannot be read (%s); what was known of the peers is forgotten", path, error)
        return {}
    peers = document.get("peers") if isinstance(document, dict) and document.get("format") == _FORMAT else None
    if not isinstance(peers, dict):
        _log.warning("%s: is no record of peers of this version; what was known of them is forgotten", path)
        return {}
    return {peer: values for peer, entry in peers.items() if (values := _checked(peer, entry)) is not None}


def save_standings(path: Path, standings: Mapping[str, Mapping[str, Any]], *, sync: bool) -> bool:
    """Replaces the file in one step; False, and a line in the log, where the disk does not take it.

    sync: waits until it is on the disk, which may take seconds.
    """
    beside = path.with_name(f"{path.name}.new")
    content = json.dumps({"format": _FORMAT, "peers": {peer: dict(values) for peer, values in standings.items()}})
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        _log.warning("%s: cannot be written: %s", path, error.strerror or error)
        return False
    return True


def _checked(peer: str, entry: Any) -> dict[str, Any] | None:
    if len(peer) > _LONGEST_NAME or not isinstance(entry, dict) or not isinstance(entry.get("signed"), bool):
        return None
    values: dict[str, Any] = {"signed": entry["signed"]}
    for name in _NUMBERS:
        number = entry.get(name)
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < _LARGEST_NUMBER:
            return None
        values[name] = float(number)
    return values
