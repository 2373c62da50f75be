"""Where a task comes from: the few values from which any peer makes the same task again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

SEEDS = 2**31
"""Seeds are in 0..SEEDS-1: what every generator takes, numpy's among them."""

SLOTS_PER_TASK = 64
"""How many draws a task of a round may take until its question is new in the round."""
HELDOUT_SHARE = 32 / 256
"""The share of all questions that is kept for evaluation."""


class CannotRegenerate(ValueError):
    """A provenance from which no task can be made here; the message says why."""


@dataclass(frozen=True)
class Provenance:
    """What determines a task, and nothing else: no clock, no state, no order of calls.

    seed: 0..SEEDS-1, which also is the seed that the task was drawn with. index: the position in the dataset of that
    seed, from 1 on; greater than 1 where earlier questions were of the other class (`is_heldout`).
    """

    environment: str
    dataset: str
    config_hash: str
    seed: int
    index: int


@dataclass(frozen=True)
class Task:
    """A question and what its scorer needs. answer: None where a dataset scores without a model answer."""

    provenance: Provenance
    question: str
    answer: str | None
    metadata: dict[str, Any]


def digest(domain: str, *parts: str | int) -> bytes:
    """32 bytes that stand for these parts in this domain (SHA-256).

    Each part goes in with its type and its length before it, so that no two lists of parts read the same: without
    that ("a", "bc") and ("ab", "c") would share their tasks.
    """
    hashed = hashlib.sha256()
    for part in (domain, *parts):
        kind = b"i" if isinstance(part, int) else b"s"
        text = str(part).encode("utf-8", "surrogatepass")
        hashed.update(kind + len(text).to_bytes(8, "big") + text)
    return hashed.digest()


def seed_of(domain: str, *parts: str | int) -> int:
    """A seed (0..SEEDS-1) for these parts in this domain."""
    return int.from_bytes(digest(domain, *parts)[:8], "big") % SEEDS


def task_seed(swarm_id: str, round: int, node_id: str, slot: int) -> int:
    """The seed of a node's task in a round (0..SEEDS-1).

    It follows from who asks and when, so that nobody picks easy tasks and nobody can pass off another's rollouts.
    slot: 0.. within the round.
    """
    return seed_of("swarmd/task/1", swarm_id, round, node_id, slot)


def heldout_seed(seed: int, dataset: str, config_hash: str, number: int) -> int:
    """The seed (0..SEEDS-1) of the number-th held-out task of a dataset; no task_seed is made this way."""
    return seed_of("swarmd/heldout/1", seed, dataset, config_hash, number)


def is_heldout(question: str) -> bool:
    """Whether a question is kept for evaluation and never trained on: one in eight, by its text alone."""
    return hashlib.sha256(question.encode("utf-8", "surrogatepass")).digest()[0] < 256 * HELDOUT_SHARE
