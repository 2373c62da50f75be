"""Keys and records for the scale bench: real identities, made once, and a signed record of each for every round."""

from __future__ import annotations

import base64
import os
import random
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from swarmd.network import libp2p_keys
from swarmd.network.dialects.own import OwnDialect
from tests.bench.scale_settings import GROUPS, SHARDS, SWARM_ID
from tests.hostile.authors import Author, honest_groups

_LIFE_SECONDS = 600.0


def key_folder() -> Path:
    """Where keys are kept for the next time: they take a tenth of a second each and more."""
    folder = Path(tempfile.gettempdir()) / f"swarmd-bench-keys-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else; remove it")
    return folder


@cache
def authors(count: int) -> dict[Path, Author]:
    """So many identities by the file of their key."""
    folder, found = key_folder(), {}
    for number in range(count):
        path = folder / f"{number:04}.key"
        if not path.exists():
            content = libp2p_keys.private_key_bytes(libp2p_keys.new_private_key())
            new = path.with_suffix(".new")
            new.write_bytes(content)
            new.chmod(0o600)
            new.rename(path)
        key = libp2p_keys.parse_private_key(path.read_bytes())
        public = libp2p_keys.public_key_bytes(key.public_key())
        found[path] = Author(libp2p_keys.peer_id_of(public), public, key)
    return found


def record(author: Author, round: int, rng: random.Random) -> dict[str, Any]:
    """A record as the own dialect writes it, and where it lies, for a worker's line."""
    dialect = OwnDialect(SWARM_ID, SHARDS)
    expires = time.time() + _LIFE_SECONDS
    encoded = dialect.encode(honest_groups(author, round, rng, GROUPS), round, author, expires, "bench")
    return {
        "key": dialect.key_for(round, author.peer_id),
        "subkey": author.peer_id,
        "value": base64.b64encode(encoded.value).decode(),
        "expires": expires,
    }
