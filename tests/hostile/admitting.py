"""An Admission as the node has it, and what must hold of whatever comes out of it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from swarmd.network.admission import Admission
from swarmd.network.dialects import Dialect, dialect_for
from swarmd.network.records import AdmittedGroup
from swarmd.network.reputation import Reputation
from swarmd.network.settings import ExchangeLimits
from swarmd.tasks.provenance import Provenance, is_heldout, task_seed
from tests.hostile.authors import SWARM_ID, authors, mix, table

LIMITS = ExchangeLimits(record_bytes=16_384, peers_per_round=64, groups_per_peer=4, completion_chars=8192)
DIALECTS = ("swarmd", "genrl-0.3", "genrl-0.1")
_SLOTS = 16  # more than any of these tests uses

me, attacker, victim, *others = authors(8)


@cache
def dialect_named(name: str) -> Dialect:
    return dialect_for(name, SWARM_ID, shards=4)


def admission(dialect: Dialect, reputation: Path | None = None, seed: int = 1, **changed: Any) -> Admission:
    """changed: other arguments of Admission."""
    arguments = {
        "mix": mix(),
        "table": None if dialect.name == "swarmd" else table(),
        "limits": LIMITS,
        "reputation": Reputation(reputation),
        "rng": random.Random(seed),
        "looking_seconds": 60.0,  # these calls bring forty times what a node reads at once
        **changed,
    }
    return Admission(SWARM_ID, me.peer_id, dialect, **arguments)


def not_our_own(groups: Iterable[AdmittedGroup]) -> list[str]:
    """A line for each group whose task is not the one that this node makes itself for this peer and round."""
    wrong = []
    for group in groups:
        if group.provenance is None:
            task = table().find(group.question or "")
            if task is None or is_heldout(task.question):
                wrong.append(f"{group.peer_id}: the question is in no table, or is held out")
        elif group.provenance not in _drawn(group.round, group.peer_id):
            wrong.append(f"{group.peer_id}: {group.provenance} is not a task of its")
    return wrong


@cache
def _drawn(round: int, peer_id: str) -> list[Provenance]:
    return [mix().draw(task_seed(SWARM_ID, round, peer_id, slot)).provenance for slot in range(_SLOTS)]
