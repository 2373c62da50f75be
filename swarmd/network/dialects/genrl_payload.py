"""What GenRL nodes share, whatever the bytes: {batch id: [Payload, ...]}, a Payload for each task.

A Payload's world state holds the task as {question, answer, metadata}; its actions are the completions. The batch id
is the MD5 of the question. Answers and metadata are written for GenRL nodes, which score with them; of a stranger's
only the question is kept, and our own mark.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from swarmd.network.dialects.dialect import (
    DEFAULT_LIMITS,
    Dialect,
    Encoded,
    OutgoingGroup,
    WireLimits,
    checked_completions,
    fit,
    sendable,
)
from swarmd.network.dialects.own import MAGIC, OwnDialect
from swarmd.network.dialects.provenance_mark import FIELD, Mark, read_mark, write_mark
from swarmd.network.genrl_objects import Payload, WorldState
from swarmd.network.records import ClaimedGroup, Record
from swarmd.network.refusals import Reason, Refused, shown
from swarmd.network.signing import Signer, check, read_trailer, sign, trailer, trailer_start
from swarmd.network.strict_bounds import INT_MAX, INT_MIN, Bounds, Parsed

BatchId = str | int

_DOMAIN = "swarmd/trailer/1"
_OWN = OwnDialect("", 1)
_UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError)
_UNUSED_METADATA = frozenset({"difficulty"})
"""How hard a generator made the task; no scorer of reasoning-gym reads it, and it takes a quarter of a record."""


def md5(question: str) -> bytes:
    """The 16 bytes of which GenRL makes a batch id. Raises UnicodeEncodeError for surrogates, as it does."""
    return hashlib.md5(question.encode("utf-8"), usedforsecurity=False).digest()


class GenrlDialect(Dialect):
    """A swarm of GenRL nodes: one DHT key for a round, the round's number."""

    def __init__(self, most_bytes: int = 16384, limits: WireLimits = DEFAULT_LIMITS) -> None:
        super().__init__(most_bytes, limits)

    def keys(self, round: int) -> Sequence[str]:
        return [str(round)]

    def key_for(self, round: int, peer_id: str) -> str:
        return str(round)

    @abstractmethod
    def write(self, value: dict[BatchId, list[Payload]]) -> bytes:
        """The bytes as GenRL makes them. Raises what is in _UNWRITABLE for values it could not write."""

    @abstractmethod
    def parse(self, value: bytes, bounds: Bounds) -> Parsed:
        """The reverse. Raises only Refused."""

    @abstractmethod
    def batch_id(self, question: str) -> BatchId:
        """The MD5 of the question as this version writes it."""

    def encode(
        self, groups: Sequence[OutgoingGroup], round: int, signer: Signer, expires: float, model: str = ""
    ) -> Encoded:
        key = self.key_for(round, signer.peer_id)
        # Its length, and so what is left for the groups, is known from a first signature only.
        room = self.most_bytes - len(trailer(sign(signer, _DOMAIN, key, expires, b"")))
        counted = [(group, self._values(group, model)) for group in groups if sendable(group, self.limits)]
        readable = [(group, values) for group, values in counted if values is not None]

        def write(some: Sequence[tuple[OutgoingGroup, int]]) -> bytes | None:
            if len(some) > self.limits.groups or sum(values for _, values in some) > self.limits.bounds.values:
                return None
            return self.write(self._value([group for group, _ in some], model))

        body, kept = fit(readable, room, write)
        return Encoded(body + trailer(sign(signer, _DOMAIN, key, expires, body)), len(kept), len(groups) - len(kept))

    def _values(self, group: OutgoingGroup, model: str) -> int | None:
        """Of how many values a record with this group alone consists; None where it could not be written, or read."""
        if not 0 < len(group.task.question) <= self.limits.question_chars:
            return None
        try:
            return self.parse(self.write(self._value([group], model)), self.limits.bounds).values
        except (*_UNWRITABLE, Refused):
            return None

    def _value(self, groups: Sequence[OutgoingGroup], model: str) -> dict[BatchId, list[Payload]]:
        value: dict[BatchId, list[Payload]] = {}
        for group in groups:
            payload = Payload(WorldState(_environment(group, model)), list(group.completions))
            value.setdefault(self.batch_id(group.task.question), []).append(payload)
        return value

    def read(self, value: bytes, round: int, key: str, subkey: str, expires: float, limits: WireLimits) -> Record:
        """The record in a value of at most `limits.value_bytes`; signed False without a trailer. Raises only
        Refused."""
        parsed = self.parse(value, limits.bounds)
        signature = read_trailer(value[parsed.end :])
        if signature is not None:
            check(signature, _DOMAIN, key, subkey, expires, value[: parsed.end])
        groups, marks = self._claimed(parsed.value, limits)
        model = next((mark.model for mark in marks if mark), "")
        return Record(subkey, round, self.name, signature is not None, expires, model, groups, len(value))

    def is_signed(self, value: bytes, key: str, subkey: str, expires: float) -> bool:
        if value[: len(MAGIC)] == MAGIC:
            return _OWN.is_signed(value, key, subkey, expires)
        end = trailer_start(value)
        try:
            signature = read_trailer(value[end:])
            if signature is not None:
                check(signature, _DOMAIN, key, subkey, expires, value[:end])
        except Refused:
            return False
        return signature is not None

    def _claimed(self, value: object, limits: WireLimits) -> tuple[tuple[ClaimedGroup, ...], list[Mark | None]]:
        if not isinstance(value, dict):
            raise Refused(Reason.WRONG_SHAPE, f"a {type(value).__name__} instead of a map of batch ids")
        if len(value) > limits.groups:
            raise Refused(Reason.TOO_MANY_GROUPS, f"{len(value)} batch ids, {limits.groups} groups are taken")
        groups: list[ClaimedGroup] = []
        marks: list[Mark | None] = []
        for batch_id, payloads in value.items():
            if not isinstance(payloads, list):
                raise Refused(Reason.WRONG_SHAPE, "a batch id without a list")
            if len(groups) + len(payloads) > limits.groups:
                raise Refused(Reason.TOO_MANY_GROUPS, f"{limits.groups} are taken")
            for payload in payloads:
                group, mark = self._claimed_group(batch_id, payload, limits)
                groups.append(group)
                marks.append(mark)
        return tuple(groups), marks

    def _claimed_group(
        self, batch_id: BatchId, payload: object, limits: WireLimits
    ) -> tuple[ClaimedGroup, Mark | None]:
        state = payload.world_state if isinstance(payload, Payload) else None
        task = state.environment_states if isinstance(state, WorldState) else None
        if not isinstance(payload, Payload) or not isinstance(task, dict):
            raise Refused(Reason.WRONG_SHAPE, "a batch without a Payload, a WorldState, and a task in it")
        question = task.get("question")
        if not isinstance(question, str) or not 0 < len(question) <= limits.question_chars:
            raise Refused(Reason.WRONG_SHAPE, f"a question that is no text of 1 to {limits.question_chars} characters")
        if batch_id != self.batch_id(question):
            # Whoever looks tasks up by their batch id, as GenRL nodes do, is led to another one.
            raise Refused(Reason.WRONG_BATCH_ID, f"not the one of the question {shown(question)}")
        completions = checked_completions(payload.actions, limits)
        metadata = task.get("metadata")
        mark = read_mark(metadata.get(FIELD), len(completions)) if isinstance(metadata, dict) else None
        if mark is None:
            return ClaimedGroup(completions, question=question), None
        return ClaimedGroup(completions, mark.provenance, mark.slot, None, mark.mean_logprobs), mark


def _environment(group: OutgoingGroup, model: str) -> dict[str, Any]:
    """The task as GenRL nodes hold it; their scorers need all of reasoning-gym's metadata."""
    task = group.task
    own = {"source_dataset": task.provenance.dataset, "source_index": task.provenance.index}
    metadata = {key: value for key, value in task.metadata.items() if key not in _UNUSED_METADATA}
    marked = {**own, **metadata, FIELD: write_mark(group, model)}
    return {"question": task.question, "answer": task.answer, "metadata": _plain(marked)}


def _plain(value: Any) -> Any:
    """Tuples as lists and keys as text, as in JSON, since GenRL's formats have nothing else. Raises _UNWRITABLE."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if value is None or type(value) in (str, bool, float):
        return value
    if type(value) is int and INT_MIN <= value <= INT_MAX:
        return value
    raise TypeError(f"a {type(value).__name__} in a task's metadata cannot be shared with GenRL nodes")
