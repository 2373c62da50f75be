"""Section `network`: addresses, the node's identity, and how much is taken from others."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval
from pydantic import Field

from swarmd.config.values import (
    AnnouncedAddresses,
    Auto,
    Because,
    Contradiction,
    FileReference,
    ListenAddresses,
    Section,
    Unit,
)


def _who_announces_also_listens(network: Network) -> Contradiction | None:
    if network.listen or not network.announce:
        return None
    return Contradiction(
        ("network.announce", "network.listen"),
        "addresses are announced but network.listen is empty, so nobody could connect to them",
    )


class Limits(Section):
    record_bytes: Annotated[
        int,
        Interval(ge=1024, le=65536),
        Unit("bytes"),
        Because("all records of a round must fit one 4 MiB message of the DHT"),
    ] = 16384
    """Largest record published, in bytes; of others larger ones are accepted too, up to 65536."""

    peers_per_round: Annotated[int, Interval(ge=1, le=4096)] = 64
    """Peers whose records are read in a round; in a larger swarm a random sample."""

    groups_per_peer: Annotated[int, Interval(ge=1, le=64)] = 4
    """Groups of completions taken from one peer in a round."""

    completion_chars: Annotated[int, Interval(ge=64, le=65536), Unit("characters")] = 8192
    """Longest completion accepted from a peer, in characters."""

    scoring_seconds: Annotated[int, Interval(ge=1, le=3600), Unit("seconds")] = 60
    """Time for scoring what peers sent in a round, in seconds; what is left over is dropped."""


class Network(Section):
    rules = (_who_announces_also_listens,)

    listen: ListenAddresses = ("/ip4/0.0.0.0/tcp/38751",)
    """Addresses to accept connections on; an empty list only connects to others."""

    announce: AnnouncedAddresses = ()
    """Addresses others reach this node at where they differ from `listen` (port forwarding)."""

    relay: bool = False
    """Relay for others, and be called through those of `swarm.peers` that do where nobody can call this node."""

    identity_file: FileReference | None = None
    """The node's libp2p key; null: identity.key in the state directory, made on the first start."""

    gather_seconds: Auto | Annotated[float, Interval(ge=0.5, le=3600.0), Unit("seconds")] = "auto"
    """How long a round waits for peers' records, in seconds; auto: a quarter of the round, 120 at most."""

    limits: Limits = Field(default_factory=Limits)
    """How much is taken from others."""
