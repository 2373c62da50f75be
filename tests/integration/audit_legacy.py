"""The judge of what nodes of a legacy swarm have trained on, where anybody may have published without a signature."""

from __future__ import annotations

import ast
import base64
import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import reasoning_gym
import yaml
from reasoning_gym.utils import extract_answer

from tests.integration.audit import Judge, Published, signed_body

# The lowest first byte of the SHA-256 of a question that may be trained on.
_NOT_HELD_OUT = 32
_EXACTLY = 1e-4
_MARK = re.compile(rb"1 (\d{1,10}) reasoning_gym (\w+) \w+ (\d{1,10}) (\d{1,10}) ")
_CODE = "__import__"
# What reasoning-gym's scorers raise for answers of no form that they expect; those earn nothing.
_UNSCORABLE = (ValueError, TypeError, ArithmeticError, LookupError)


class LegacyJudge(Judge):
    """Groups of honest peers are judged as in any swarm, by what they had published.

    Any other's must stand in one record that was sent under its name, with a question of RL Swarm's table, or the mark
    of a task of its own, and have the rewards of that task.
    """

    def __init__(
        self, swarm_id: str, tasks: Path, sent: Iterable[Path], shared: Mapping[str, Path], never: Iterable[str]
    ) -> None:
        self._honest = frozenset(shared)
        self._sent: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
        super().__init__(swarm_id, 1, tasks, sent, shared, never)

    def _take(self, line: Mapping[str, Any]) -> None:
        name, key = line.get("subkey"), line.get("key", "")
        if name in self._honest or not key.isdecimal() or not math.isfinite(line["expires"]):
            return  # of honest peers counts what they say that they have published, and nothing else
        value = base64.b64decode(line["value"])
        self._sent[name].append((int(key), value))
        body = signed_body(value, key, name, line["expires"])
        if body is not None and body["round"] == int(key):
            self.signed += 1
            for slot, _, dataset, _, seed, index, completions, _ in (group[:8] for group in body["groups"]):
                self._published[name].append(Published(int(key), slot, dataset, seed, index, tuple(completions)))

    def _judged(self, round: int, group: Mapping[str, Any], taken: set[Any]) -> list[str]:
        name, texts = group["agent"], group["completions"]
        faults = super()._judged(round, group, taken)
        if name in self._honest or not faults:
            return faults
        for number, value in self._sent[name]:
            if number not in (round, round - 1) or not all(text.encode() in value for text in texts):
                continue
            for task, found in self._read(name, number, value, group):
                place = (name, number, task)
                faults = found or (["it was trained on before"] if place in taken else [])
                if not faults:
                    taken.add(place)
                    return []
        return faults

    def _read(
        self, name: str, number: int, value: bytes, group: Mapping[str, Any]
    ) -> Iterator[tuple[object, list[str]]]:
        """The tasks that a record without a signature may be meant to name, and what is wrong with the group then."""
        for slot, dataset, seed, index in _MARK.findall(value):
            one = Published(number, int(slot), dataset.decode(), int(seed), int(index), tuple(group["completions"]))
            yield one, self._faults(one, name, group)
        question = group["prompt"][-1]["content"]
        if question.encode() in value:
            yield question, _faults_by_the_table(question, group)

    def _wrong_rows(self, line: Mapping[str, Any]) -> Iterator[str]:
        yield from super()._wrong_rows(line)
        moved = {tuple(ids) for _, ids, _ in line["rows"]}
        for group in line["groups"]:
            for text, ids in zip(group["completions"], group["ids"], strict=True):
                if _CODE in text and tuple(ids) in moved:
                    yield f"code has reached the gradient: {text[:80]!r}"


def _faults_by_the_table(question: str, group: Mapping[str, Any]) -> list[str]:
    if question not in questions():
        return [f"the question {question[:80]!r} is in no table, or is kept for evaluation"]
    if group["prompt"] != [{"role": "user", "content": question}]:
        return [f"the prompt {group['prompt']}"]
    dataset, entry = questions()[question]
    rewards, given = [score(dataset, entry, text) for text in group["completions"]], group["rewards"]
    if len(rewards) != len(given) or any(abs(a - b) > _EXACTLY for a, b in zip(rewards, given, strict=True)):
        return [f"rewards {given} instead of {rewards}"]
    return []


@cache
def questions() -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    """Dataset and entry of each question of RL Swarm that may be trained on, as reasoning-gym itself makes them."""
    table = yaml.safe_load((files("swarmd.tasks") / "legacy" / "incumbent.yaml").read_text(encoding="utf-8"))
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for spec in table["datasets"]:
        made = reasoning_gym.create_dataset(spec["name"], seed=spec["seed"], size=spec["size"], **spec["config"])
        for index in range(spec["size"]):
            entry = made[index]
            if hashlib.sha256(entry["question"].encode()).digest()[0] >= _NOT_HELD_OUT:
                found.setdefault(entry["question"], (spec["name"], entry))
    return found


def score(dataset: str, entry: Mapping[str, Any], completion: str) -> float:
    """reasoning-gym's own score; but for the dataset whose answers it evaluates, of which the judge runs none."""
    answer = extract_answer(completion)
    if dataset == "binary_matrix":
        return _score_of_a_matrix(answer, entry["answer"])
    try:
        return float(reasoning_gym.get_score_answer_fn(dataset)(answer, dict(entry)))
    except _UNSCORABLE:
        return 0.0


def _score_of_a_matrix(answer: str | None, expected: str) -> float:
    """1 as asked for, a tenth as a list of lists."""
    if answer is None or answer == expected:
        return float(answer is not None)
    try:
        rows = ast.literal_eval(answer)
        text = "\n".join(" ".join(str(cell) for cell in row) for row in rows)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return 0.0
    return 0.1 if text == expected else 0.0
