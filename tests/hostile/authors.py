"""Peers with keys of their own, and the honest records that they publish."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from cryptography.hazmat.primitives.asymmetric import rsa

from swarmd.network import libp2p_keys
from swarmd.network.admission_rules import RawRecord
from swarmd.network.dialects import Dialect, OutgoingGroup
from swarmd.network.refusals import Reason
from swarmd.tasks.legacy_table import LegacyTable, load_table
from swarmd.tasks.mix import DatasetSpec, TaskMix
from swarmd.tasks.provenance import Task, is_heldout, task_seed

SWARM_ID = "5eed" * 8
ROUND = 1000
NOW = 1_800_000_000.0
EXPIRES = NOW + 300.0

_WORDS = (
    "add", "again", "and", "both", "carry", "check", "equal", "first", "from", "minus", "ones", "remember", "result",
    "sides", "so", "step", "take", "tens", "the", "then",
)  # fmt: skip


@dataclass(frozen=True)
class Author:
    """A peer that can sign: what publishing needs of an identity."""

    peer_id: str
    public_key: bytes = field(repr=False)
    key: rsa.RSAPrivateKey = field(repr=False)

    def sign(self, data: bytes) -> bytes:
        return libp2p_keys.sign(self.key, data)


@dataclass(frozen=True)
class Sample:
    """A record and what may become of it. refused: the reasons one of which must be given for it or for each of its
    groups; empty: it may be admitted, with a task of the reader's own."""

    kind: str
    raw: RawRecord
    refused: frozenset[Reason] = frozenset()


@cache
def authors(count: int) -> tuple[Author, ...]:
    """The same keys each time within a run; they take a tenth of a second each."""
    made = []
    for _ in range(count):
        key = libp2p_keys.new_private_key()
        public = libp2p_keys.public_key_bytes(key.public_key())
        made.append(Author(libp2p_keys.peer_id_of(public), public, key))
    return tuple(made)


@cache
def mix() -> TaskMix:
    return TaskMix(
        [
            DatasetSpec("chain_sum", 1.0, {"min_terms": 2, "max_terms": 4}),
            DatasetSpec("binary_matrix", 1.0, {"min_n": 3, "max_n": 5}),
            DatasetSpec("number_sorting", 1.0, {"min_numbers": 3, "max_numbers": 5}),
        ]
    )


@cache
def table() -> LegacyTable:
    return load_table("incumbent")


@cache
def table_questions(heldout: bool) -> tuple[str, ...]:
    return tuple(question for question in table().questions() if is_heldout(question) == heldout)


def prose(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(_WORDS) + str(rng.randrange(100)) for _ in range(words))


def answers(task: Task, rng: random.Random, count: int = 4) -> tuple[str, ...]:
    """Completions as a model writes them: some right, some wrong, all with different thoughts."""
    return tuple(
        f"{prose(rng, 30)} <answer>{task.answer if number % 2 else rng.randrange(1000)}</answer>"
        for number in range(count)
    )


def own_task(author: Author, round: int, slot: int) -> Task:
    return mix().draw(task_seed(SWARM_ID, round, author.peer_id, slot))


def own_group(author: Author, round: int, slot: int, completions: Sequence[str]) -> OutgoingGroup:
    return OutgoingGroup(own_task(author, round, slot), slot, tuple(completions), (-0.5,) * len(completions))


def honest_groups(author: Author, round: int, rng: random.Random, count: int = 2) -> list[OutgoingGroup]:
    groups = []
    for slot in range(count):
        task = own_task(author, round, slot)
        groups.append(own_group(author, round, slot, answers(task, rng)))
    return groups


def published(dialect: Dialect, author: Author, groups: Sequence[OutgoingGroup], round: int = ROUND) -> RawRecord:
    """The record that a swarmd node publishes of these groups."""
    encoded = dialect.encode(groups, round, author, EXPIRES, "tests")
    assert encoded.left_out == 0, "the record was meant to hold all groups"
    return RawRecord(round, dialect.key_for(round, author.peer_id), author.peer_id, encoded.value, EXPIRES)


def honest(dialect: Dialect, author: Author, rng: random.Random, round: int = ROUND, count: int = 2) -> RawRecord:
    return published(dialect, author, honest_groups(author, round, rng, count), round)


def under(raw: RawRecord, dialect: Dialect, author: Author, round: int | None = None) -> RawRecord:
    """The same bytes where this author's record of that round would lie."""
    round = raw.round if round is None else round
    return replace(raw, round=round, key=dialect.key_for(round, author.peer_id), subkey=author.peer_id)
