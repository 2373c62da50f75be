"""A hostile peer of a swarm in which others train: what it sees in a round, and what it sends."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgpack

from swarmd.network.admission_rules import RawRecord
from swarmd.network.dialects import Dialect, OutgoingGroup
from swarmd.network.dialects.own import MAGIC, VERSION
from swarmd.network.signing import milliseconds, sign
from swarmd.tasks.answers import extract_answer
from swarmd.tasks.mix import TaskMix
from swarmd.tasks.provenance import Provenance, Task, task_seed
from tests.hostile.authors import Author
from tests.hostile.own import DOMAIN

GROUPS = 4
"""In a record: as many as a node takes of one peer by default, so that it takes these and no others."""
COMPLETIONS = 16
"""In a group: as many as a node takes by default, twice its own."""

Model = Callable[[Sequence[Task]], list[list[str]]]
"""Eight completions of each task."""


@dataclass(frozen=True)
class Published:
    """An honest peer's record, and what is in it."""

    peer_id: str
    raw: RawRecord
    groups: tuple[OutgoingGroup, ...]


@dataclass(frozen=True)
class World:
    """What everybody can know in a round. now, expires: seconds since 1970. honest: the others' records, read before
    the own one goes out; before: those of the last round, none in a first one."""

    swarm_id: str
    mix: TaskMix
    dialect: Dialect
    round: int
    now: float
    expires: float
    honest: tuple[Published, ...]
    before: tuple[Published, ...]

    def task(self, peer_id: str, slot: int, round: int | None = None) -> Task:
        return self.mix.draw(task_seed(self.swarm_id, self.round if round is None else round, peer_id, slot))

    def raw(self, author: Author, value: Any, round: int | None = None) -> RawRecord:
        """These bytes where the author's record lies."""
        round = self.round if round is None else round
        return RawRecord(round, self.dialect.key_for(round, author.peer_id), author.peer_id, value, self.expires)

    def published(self, author: Author, groups: Sequence[OutgoingGroup], round: int | None = None) -> RawRecord:
        """A record in order in every way."""
        at = self.round if round is None else round
        encoded = self.dialect.encode(groups, at, author, self.expires, "tests")
        assert encoded.left_out == 0, "the record was meant to hold all groups"
        return self.raw(author, encoded.value, at)

    def signed_bytes(self, author: Author, body: bytes) -> RawRecord:
        """A true signature on any bytes."""
        key = self.dialect.key_for(self.round, author.peer_id)
        signature = sign(author, DOMAIN, key, self.expires, body)
        envelope = {"key": signature.public_key, "signature": signature.signature, "body": body}
        return self.raw(author, MAGIC + bytes([VERSION]) + msgpack.packb(envelope))

    def signed(self, author: Author, groups: Sequence[Any], **more: Any) -> RawRecord:
        """A true signature on groups in which anything can be said, and on more fields. groups: as `said`."""
        fields = {"round": self.round, "expires": milliseconds(self.expires), "model": "", "groups": list(groups)}
        return self.signed_bytes(author, b"\0" + msgpack.packb({**fields, **more}))


@dataclass(frozen=True)
class Claim:
    """What a node that believes its peers takes for true of a group: the question, the answer, and so the rewards."""

    task: Task
    completions: tuple[str, ...]


@dataclass(frozen=True)
class Sent:
    """kind: the behaviour's name. raws: what it puts into the DHT; claims: what it says there, to who believes it."""

    kind: str
    raws: tuple[RawRecord, ...]
    claims: tuple[Claim, ...]


Behaviour = Callable[["HostilePeer", World, random.Random], tuple[Sequence[RawRecord], Sequence[Claim]]]


class HostilePeer:
    """Does one thing a round, its behaviours in turns. first: the one that round 0 begins with. model: the one that
    all nodes began with, for text that could be anybody's; wrong: one that is trained to be wrong."""

    def __init__(
        self, author: Author, behaviours: Sequence[Behaviour], first: int, model: Model, wrong: Model
    ) -> None:
        self.author = author
        self.model, self.wrong = model, wrong
        self._behaviours = behaviours
        self._first = first

    @property
    def peer_id(self) -> str:
        return self.author.peer_id

    def send(self, world: World) -> Sent:
        behaviour = self._behaviours[(world.round + self._first) % len(self._behaviours)]
        raws, claims = behaviour(self, world, random.Random(f"{world.round}/{self.peer_id}"))
        return Sent(behaviour.__name__.replace("_", " "), tuple(raws), tuple(claims))

    def group(self, world: World, slot: int, completions: Sequence[str]) -> OutgoingGroup:
        """One of its own tasks, with log-probs that say how sure it was of all of them."""
        return OutgoingGroup(world.task(self.peer_id, slot), slot, tuple(completions), (0.0,) * len(completions))


def said(slot: int, place: Provenance, completions: Sequence[Any], logprobs: Any = None, *more: Any) -> list[Any]:
    """A group as it stands in a record."""
    name = [place.environment, place.dataset, place.config_hash, place.seed, place.index]
    return [slot, *name, list(completions), logprobs, *more]


def false_answer(task: Task) -> str:
    """Wrong, and earns nothing: no part of it is the answer."""
    answer = task.answer or ""
    return next(str(number) for number in range(40, 100, 7) if answer not in str(number) and str(number) != answer)


def answered(text: str) -> str:
    return f"<answer>{text}</answer>"


def contrast(task: Task, count: int = COMPLETIONS // 2) -> list[str]:
    """Right answers and false ones, which a node that believes a false claim would learn."""
    return [answered(task.answer or "")] * count + [answered(false_answer(task))] * count


def lie(task: Task, completions: Sequence[str]) -> Claim:
    """That a false answer is the right one: the last one given, where that is wrong."""
    given = extract_answer(completions[-1]) if completions else None
    claimed = false_answer(task) if given is None or given == task.answer else given
    return Claim(replace(task, answer=claimed), tuple(completions))


def lies(groups: Sequence[OutgoingGroup]) -> list[Claim]:
    return [lie(group.task, group.completions) for group in groups]
