"""Forty honest peers in thirty-two shards, and a stranger who fills the shards with names."""

from __future__ import annotations

import asyncio
import random
import time

from swarmd.network.dialects import dialect_for
from tests.hostile.authors import NOW, ROUND, SWARM_ID, authors
from tests.hostile.exchanging import Space, exchange

NAMES = 64


def test_names_without_signatures_do_not_hide_the_swarm() -> None:
    dialect, rng, space = dialect_for("swarmd", SWARM_ID, shards=32), random.Random(1), Space()
    space.records = {key: {} for key in dialect.keys(ROUND)}
    while min(map(len, space.records.values())) < NAMES:  # names are free: the stranger takes those that fit
        name = "Qm" + "".join(rng.choices("abcdefghijkmnopqrstuvwxyz", k=44))
        space.records[dialect.key_for(ROUND, name)][name] = b"junk", NOW + 60
    peers = authors(40)
    for peer in peers:
        space.put(peer, dialect=dialect)
    one = exchange(space, dialect=dialect)
    exchanged = asyncio.run(one.run(ROUND, [], NOW + 100, time.monotonic() + 60))
    assert {group.peer_id for group in exchanged.groups} == {peer.peer_id for peer in peers}
    assert len(exchanged.groups) == 80 and exchanged.seen == one.known == 40
