"""A round's exchange as the network process has it, over a DHT in memory."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from swarmd.network.dialects import Dialect
from swarmd.network.round_exchange import RoundExchange
from swarmd.network.shard_sample import Found
from tests.hostile.admitting import LIMITS, admission, dialect_named, me
from tests.hostile.authors import NOW, ROUND, SWARM_ID, Author, honest, honest_groups, mix

OWN = dialect_named("swarmd")


class Space:
    """A DHT in memory. refuses: whether nobody takes the node's own record."""

    def __init__(self, refuses: bool = False) -> None:
        self.records: dict[str, dict[str, tuple[bytes, float]]] = {}
        self.asked: Counter[str] = Counter()
        self.published: list[tuple[str, bytes, float]] = []
        self.refuses = refuses

    def allow(self, keys: Sequence[str]) -> None:
        pass

    def put(self, author: Author, round: int = ROUND, dialect: Dialect = OWN) -> None:
        raw = honest(dialect, author, random.Random(author.peer_id), round)
        self.records.setdefault(raw.key, {})[author.peer_id] = raw.value, raw.expires

    async def publish(self, key: str, subkey: str, value: bytes, expires: float, deadline: float) -> bool:
        self.published.append((key, value, expires))
        return not self.refuses

    async def gather(self, keys: Sequence[str], deadline: float) -> Found:
        self.asked.update(keys)
        return {key: dict(self.records.get(key, {})) for key in keys}


def exchange(space: Space, clock: Callable[[], float] = lambda: NOW, dialect: Dialect = OWN) -> RoundExchange:
    return RoundExchange(
        space, dialect, admission(dialect), mix(), me, SWARM_ID, LIMITS.peers_per_round, "tests", lambda peer: None,
        clock,
    )  # fmt: skip


def own_groups(round: int = ROUND) -> list[dict[str, Any]]:
    return [
        {"slot": group.slot, "provenance": asdict(group.task.provenance), "completions": list(group.completions),
         "mean_logprobs": list(group.mean_logprobs or ())}
        for group in honest_groups(me, round, random.Random(5))
    ]  # fmt: skip
