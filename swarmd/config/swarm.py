"""Section `swarm`: which swarm the node belongs to, and how it is spoken there."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Interval

from swarmd.config.values import Contradiction, FileReference, HexId, Name, PeerAddresses, Section

NODES_PER_SHARD = 16
"""A node wants so many peers' records in a round: with a key for each so many nodes it reads one or two keys, however
large the swarm is (docs/benchmarks/scale.md)."""

MOST_SHARDS = 1024
MOST_NODES = MOST_SHARDS * NODES_PER_SHARD
"""Up to here a swarm can be founded for its size; in a larger one, what a node reads grows with the swarm again."""


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
    """The swarm's name, for people; null: none."""

    id: HexId | None = None
    """The swarm's id; null: no swarm."""

    dialect: Literal["swarmd", "genrl-0.3", "genrl-0.1"] = "swarmd"
    """The wire format: swarmd's own, or one that unmodified GenRL nodes speak; the same in the whole swarm."""

    shards: Annotated[int, Interval(ge=1, le=MOST_SHARDS)] = 32
    """Over how many keys of the DHT the records of a round are spread; the same in the whole swarm."""

    peers: PeerAddresses = ()
    """Where to find the swarm first: multiaddresses with peer ids."""

    role: Literal["node", "bootnode"] = "node"
    """A node trains; a bootnode only helps others to find each other, and loads no model."""

    secret_file: FileReference | None = None
    """File with the secret of a private swarm; null: an open one."""
