"""What came from whom: a row a round of those rounds in which there was a swarm to exchange with."""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swarmd.game.exchange import USED

MOST_PEERS = 32
"""Peers that a row tells apart; more are added up as OTHERS."""
OTHERS = "others"
KEPT = 10_000
"""Rows that are kept: they explain the last days, and with all their names take some 20 MB."""

TABLE = {
    "round": "INTEGER PRIMARY KEY",
    "seen": "INTEGER",
    "used": "INTEGER",
    "admitted": "INTEGER",
    "own_groups": "INTEGER",
    "peer_groups": "INTEGER",
    "peer_reward": "REAL",
    "refused": "TEXT",
    "peers": "TEXT",
}
COLUMNS = ", ".join(TABLE)
INSERT = f"INSERT OR REPLACE INTO exchanges ({COLUMNS}) VALUES ({','.join('?' * len(TABLE))})"


@dataclass(frozen=True)
class ExchangeRow:
    """A round's exchange. seen: peers whose records were there; used: peers whose groups were trained on; admitted:
    groups; own_groups, peer_groups: trained on; peer_reward: mean of all peers' completions, scored here.

    refused: records and groups that were not admitted, {reason: count}. peers: what came of those that were, {peer id:
    {reason, or "used": count}}.
    """

    seen: int = 0
    used: int = 0
    admitted: int = 0
    own_groups: int = 0
    peer_groups: int = 0
    peer_reward: float | None = None
    refused: Mapping[str, int] = field(default_factory=dict)
    peers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def rejected(self) -> Counter[str]:
        """All that was left out, at whichever step: {reason: count}."""
        total = Counter(self.refused)
        for reasons in self.peers.values():
            total.update({reason: count for reason, count in reasons.items() if reason != USED})
        return total


def bounded(peers: Mapping[str, Mapping[str, int]]) -> dict[str, Mapping[str, int]]:
    """The MOST_PEERS peers with the largest counts of anything, and all the rest as OTHERS."""
    if len(peers) <= MOST_PEERS:
        return dict(peers)
    by_weight = sorted(peers, key=lambda peer: (-sum(peers[peer].values()), peer))
    others: Counter[str] = Counter()
    for peer in by_weight[MOST_PEERS - 1 :]:
        others.update(peers[peer])
    return {**{peer: peers[peer] for peer in by_weight[: MOST_PEERS - 1]}, OTHERS: others}


def values(round: int, row: ExchangeRow) -> tuple[Any, ...]:
    """The row's values in the order of COLUMNS."""
    peers = {peer: dict(reasons) for peer, reasons in bounded(row.peers).items()}
    return (
        round, row.seen, row.used, row.admitted, row.own_groups, row.peer_groups, row.peer_reward,
        json.dumps(dict(row.refused)), json.dumps(peers),
    )  # fmt: skip


def exchange_row(row: sqlite3.Row) -> ExchangeRow:
    """A row as it was written; what a damaged file holds instead of numbers and maps counts as nothing."""
    peers = _map(row["peers"])
    reward = row["peer_reward"]
    return ExchangeRow(
        seen=_count(row["seen"]),
        used=_count(row["used"]),
        admitted=_count(row["admitted"]),
        own_groups=_count(row["own_groups"]),
        peer_groups=_count(row["peer_groups"]),
        peer_reward=reward if isinstance(reward, float) and math.isfinite(reward) else None,
        refused=_counts(_map(row["refused"])),
        peers={peer: _counts(reasons) for peer, reasons in peers.items() if isinstance(reasons, dict)},
    )


def _map(text: object) -> dict[str, Any]:
    try:
        found = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}


def _counts(found: Mapping[str, Any]) -> dict[str, int]:
    return {str(reason): count for reason, count in found.items() if type(count) is int}


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
