"""Looks at what a trainer is given of peers, with none of the code that let it in but the drawing of a task's seed.

From swarm id, round, peer and slot follows the task; reasoning-gym itself makes it and scores the answers; and what a
peer said stands in the bytes that it sent, read here with plain msgpack and zlib.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgpack
import reasoning_gym
from reasoning_gym.utils import extract_answer

from swarmd.network.admission_rules import RawRecord
from swarmd.tasks.mix import TaskMix
from swarmd.tasks.mix_files import preset
from swarmd.tasks.provenance import is_heldout, task_seed
from swarmd.training.rollouts import Rollout
from swarmd.training.tokens import TokenizerInfo

TASK, REWARD, TEXT, HELD_OUT = "another's task", "a false reward", "another text", "a held-out question"

_HEADER_BYTES = 8  # magic and version
_MOST_BYTES = 1 << 20
_UNREADABLE = (
    ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, zlib.error, msgpack.UnpackException,
)  # fmt: skip


@dataclass(frozen=True)
class Violation:
    """kind: one of the four words above."""

    kind: str
    peer: str


@dataclass(frozen=True)
class _Said:
    """A group as its peer sent it, and the task that it had there. entry: as reasoning-gym makes it."""

    prompt_ids: tuple[int, ...]
    dataset: str
    entry: Mapping[str, Any]
    texts: frozenset[str]


class Audit:
    """Of all nodes of a swarm with the embedded mix."""

    def __init__(self, swarm_id: str, tokens: TokenizerInfo) -> None:
        self._swarm_id = swarm_id
        self._tokens = tokens
        specs = preset("embedded")
        self._mix = TaskMix(specs)
        self._settings = {spec.name: dict(spec.config) for spec in specs}
        self._scoring = {spec.name: self._dataset(spec.name, 0) for spec in specs}
        self._said = lru_cache(maxsize=256)(self._read)

    def violations(
        self, given: Sequence[Rollout], trained: Sequence[Rollout], records: Mapping[str, Iterable[RawRecord]]
    ) -> Iterator[Violation]:
        """What is wrong with these groups of peers. given: to the trainer; trained: what it did train on of them.
        records: what each peer itself has sent in this round and the last."""
        for group in given:
            said = [one for raw in records.get(group.peer, ()) for one in self._said(group.peer, raw.round, raw.value)]
            kind = self._what_is_wrong(group, group in trained, said)
            if kind:
                yield Violation(kind, group.peer)

    def _what_is_wrong(self, group: Rollout, trained: bool, said: Sequence[_Said]) -> str:
        its_own = [one for one in said if one.prompt_ids == group.prompt_ids]
        if not its_own:
            return TASK
        if is_heldout(its_own[0].entry["question"]):
            return HELD_OUT
        kinds = [self._differs(group, trained, one) for one in its_own]
        return "" if "" in kinds else kinds[0]

    def _differs(self, group: Rollout, trained: bool, said: _Said) -> str:
        for ids, reward in zip(group.completions, group.rewards, strict=True):
            text = self._text(ids)
            if text in said.texts:
                if abs(reward - self._reward(said, text)) > 1e-6:
                    return REWARD
            # What the tokenizer cannot read, or is too long to be read whole, is not to be trained on.
            elif trained or not any(not ids or known.startswith(text) for known in said.texts):
                return TEXT
        return ""

    def _text(self, ids: Sequence[int]) -> str:
        ended = ids[:-1] if ids and ids[-1] in self._tokens.eos_ids else ids
        return str(self._tokens.tokenizer.decode(list(ended), clean_up_tokenization_spaces=False))

    def _reward(self, said: _Said, text: str) -> float:
        answer = extract_answer(text)
        if answer is None:
            return 0.0
        try:
            return float(self._scoring[said.dataset].score_answer(answer, dict(said.entry)))
        except (ValueError, TypeError, ArithmeticError, LookupError):
            return 0.0  # its scorers raise on some answers; those earn nothing

    def _read(self, peer: str, round: int, value: Any) -> tuple[_Said, ...]:
        """Those groups that can be read, each with the task of its slot, whatever else it names."""
        by_slot: dict[int, set[str]] = defaultdict(set)
        for slot, texts in _groups(value):
            by_slot[slot].update(texts)
        said = []
        for slot, some in by_slot.items():
            place = self._mix.draw(task_seed(self._swarm_id, round, peer, slot)).provenance
            entry = self._dataset(place.dataset, place.seed)[place.index]
            prompt = self._tokens.prompt_ids([{"role": "user", "content": entry["question"]}])
            said.append(_Said(prompt, place.dataset, entry, frozenset(some)))
        return tuple(said)

    def _dataset(self, name: str, seed: int) -> Any:
        return reasoning_gym.create_dataset(name, **{**self._settings[name], "seed": seed, "size": 64})


def _groups(value: Any) -> list[tuple[int, list[str]]]:
    """Slot and texts of each group in a record's bytes; none where they cannot be read."""
    if not isinstance(value, bytes) or len(value) > _MOST_BYTES:
        return []
    try:
        body = msgpack.unpackb(value[_HEADER_BYTES:])["body"]
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(body[1:], _MOST_BYTES) if body[0] else body[1:]
        groups = msgpack.unpackb(content)["groups"]
        return [
            (group[0], [text for text in group[6] if isinstance(text, str)])
            for group in groups
            if isinstance(group, list) and len(group) > 6 and isinstance(group[6], list) and group[0] >= 0
        ]
    except _UNREADABLE:
        return []
