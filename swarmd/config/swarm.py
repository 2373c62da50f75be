"""Section `swarm`: which swarm the node belongs to, and how it is spoken there."""

from __future__ import annotations

from typing import Literal

from swarmd.config.values import Contradiction, FileReference, HexId, Name, PeerAddresses, Section


def _a_legacy_swarm_has_no_secret(swarm: Swarm) -> Contradiction | None:
    if swarm.dialect == "swarmd" or swarm.secret_file is None:
        return None
    return Contradiction(
        ("swarm.secret_file", "swarm.dialect"),
        f"the dialect {swarm.dialect} cannot keep a swarm private; remove swarm.secret_file",
    )


class Swarm(Section):
    rules = (_a_legacy_swarm_has_no_secret,)

    name: Name | None = None
    """The node's name in its status; null: no name."""

    id: HexId | None = None
    """The swarm's id; null: no swarm."""

    dialect: Literal["swarmd", "genrl-0.3", "genrl-0.1"] = "swarmd"
    """The wire format: swarmd's own, or one that unmodified GenRL nodes speak. Not read by this version."""

    peers: PeerAddresses = ()
    """Where to find the swarm first: multiaddresses with peer ids. Not read by this version."""

    role: Literal["node", "bootnode"] = "node"
    """A node trains; a bootnode only helps others to find each other. This version refuses to start as one."""

    secret_file: FileReference | None = None
    """File with the secret of a private swarm. Not read by this version."""
