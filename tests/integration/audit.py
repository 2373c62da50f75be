"""The judge of what nodes of a swarm have trained on, who shares no code with them.

Tasks are made by reasoning-gym alone, scores are its own, signatures are checked with `cryptography`: all from what the
swarm's protocol promises, not from what the code under test does. What was trained on comes from `audited`, what was
published from whoever listened in the DHT (`hostile_nodes`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import statistics
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import base58
import msgpack
import reasoning_gym
import yaml
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from reasoning_gym.utils import extract_answer

_HEADER = b"\xc1swarmd\x01"
_DOMAIN = "swarmd/record/1"
# Tasks a seed has, and how many of 256 questions are never trained on.
_POSITIONS, _HELD_OUT = 32, 32
_EXACTLY = 1e-4


@dataclass(frozen=True)
class Task:
    """What reasoning-gym makes at a place. index: of the first question there that may be trained on."""

    dataset: str
    index: int
    question: str
    entry: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Published:
    """A group that its peer has signed, or has had published."""

    round: int
    slot: int
    dataset: str
    seed: int
    index: int
    completions: tuple[str, ...]


@dataclass
class Account:
    """What one node was found to have trained on.

    rounds: in which its trainer was called. groups: foreign ones that came to it, by author; moved: those of them of
    which a completion reached the gradient; refused: those that the trainer left out. rows: completions in the
    gradient, own ones among them. wrong: a line for each fault.
    """

    rounds: list[int] = field(default_factory=list)
    groups: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def number_of(domain: str, *parts: str | int) -> int:
    """The first 8 bytes of the SHA-256 of these parts, each with its type and length before it (protocol)."""
    return int.from_bytes(_digest(domain, *parts)[:8], "big")


def _digest(domain: str, *parts: str | int) -> bytes:
    hashed = hashlib.sha256()
    for part in (domain, *parts):
        text = str(part).encode()
        hashed.update((b"i" if isinstance(part, int) else b"s") + len(text).to_bytes(8, "big") + text)
    return hashed.digest()


class Judge:
    """Judges the trainings of a swarm whose nodes have the tasks of a preset (its file).

    records: lines of JSON with key, subkey, expires and value (base64): those that are signed by the peer of their
    subkey for this place count as published. shared: what each honest node has its network process publish, by
    peer id, since nobody can be sure to have met all of it in the DHT. never: texts that no weight may be moved by.
    """

    def __init__(
        self, swarm_id: str, shards: int, tasks: Path, records: Iterable[Path], shared: Mapping[str, Path],
        never: Iterable[str],
    ) -> None:  # fmt: skip
        self._swarm_id, self._shards = swarm_id, shards
        self._datasets = yaml.safe_load(tasks.read_text(encoding="utf-8"))["datasets"]
        self._never = frozenset(never)
        self._published: defaultdict[str, list[Published]] = defaultdict(list)
        self.signed = 0
        for file in records:
            for line in lines_of(file):
                self._take(line)
        for peer_id, file in shared.items():
            for line in lines_of(file):
                for group in line["groups"]:
                    drawn = group["provenance"]
                    self._published[peer_id].append(
                        Published(
                            line["round"], group["slot"], drawn["dataset"], drawn["seed"], drawn["index"],
                            tuple(group["completions"]),
                        )
                    )  # fmt: skip

    def _take(self, line: Mapping[str, Any]) -> None:
        if "value" not in line or not math.isfinite(line["expires"]):
            return
        body = signed_body(base64.b64decode(line["value"]), line["key"], line["subkey"], line["expires"])
        # What a hostile node says that its record is of counts for nothing here either.
        if body is None or line["key"] != self._key(body["round"], line["subkey"]):
            return
        self.signed += 1
        for group in body["groups"]:
            slot, _, dataset, _, seed, index, completions, _ = group[:8]
            self._published[line["subkey"]].append(
                Published(body["round"], slot, dataset, seed, index, tuple(completions))
            )

    def _key(self, round: int, peer_id: str) -> str:
        shard = number_of("swarmd/shard/1", round, peer_id) % self._shards
        return f"swarmd/1/{self._swarm_id}/{round}/{shard}"

    def account(self, peer_id: str, trained: Iterable[Mapping[str, Any]]) -> Account:
        """What this node trained on, and what of it is wrong. trained: lines as `audited` writes them."""
        account, taken = Account(), set[tuple[str, int, int]]()
        for line in trained:
            round, rows = line["round"], {(tuple(prompt), tuple(ids)) for prompt, ids, _ in line["rows"]}
            account.rounds.append(round)
            account.rows += len(line["rows"])
            account.refused.update(line["implausible"])
            account.refused.update(line["too_long"])
            for group in line["groups"]:
                agent = group["agent"]
                if agent == peer_id:
                    continue
                account.groups[agent] += 1
                account.moved[agent] += any((tuple(group["prompt_ids"]), tuple(ids)) in rows for ids in group["ids"])
                faults = self._judged(round, group, taken)
                account.wrong += [f"round {round}, a group of {agent}: {fault}" for fault in faults]
            account.wrong += [f"round {round}: {fault}" for fault in self._wrong_rows(line)]
        return account

    def _judged(self, round: int, group: Mapping[str, Any], taken: set[tuple[str, int, int]]) -> list[str]:
        """What is wrong with a group. taken: peer, round and slot of those that were trained on before."""
        peer_id, completions = group["agent"], group["completions"]
        mine = [one for one in self._published[peer_id] if one.round in (round, round - 1)]
        sources = [one for one in mine if _is_part(completions, one.completions)]
        if not sources:
            return [f"the peer has signed no such completions: {completions[:2]}"]
        faults: list[str] = []
        for one in sources:
            faults = self._faults(one, peer_id, group)
            place = (peer_id, one.round, one.slot)
            if not faults and place in taken:
                faults = ["it was trained on before"]
            if not faults:
                taken.add(place)
                break
        return faults

    def _faults(self, one: Published, peer_id: str, group: Mapping[str, Any]) -> list[str]:
        seed = number_of("swarmd/task/1", self._swarm_id, one.round, peer_id, one.slot) % 2**31
        if one.seed != seed:
            return [f"the seed {one.seed} is not that of its slot {one.slot}"]
        task = self._task(seed)
        faults = []
        if (one.dataset, one.index) != (task.dataset, task.index):
            faults.append(f"{one.dataset} {one.index} instead of {task.dataset} {task.index}")
        if group["prompt"] != [{"role": "user", "content": task.question}]:
            faults.append(f"the prompt {group['prompt']} instead of {task.question!r}")
        rewards = [score(task, text) for text in group["completions"]]
        if len(rewards) != len(group["rewards"]) or any(
            abs(mine - theirs) > _EXACTLY for mine, theirs in zip(rewards, group["rewards"], strict=True)
        ):
            faults.append(f"rewards {group['rewards']} instead of {rewards}")
        return faults

    def _wrong_rows(self, line: Mapping[str, Any]) -> Iterator[str]:
        """What reached the gradient must be a completion of a group that was judged, with the weight that its rewards
        give it."""
        found: defaultdict[Any, list[tuple[str, float]]] = defaultdict(list)
        for group in line["groups"]:
            prompt = tuple(group["prompt_ids"])
            weights = weights_of(group["rewards"])
            for text, ids, weight in zip(group["completions"], group["ids"], weights, strict=True):
                found[prompt, tuple(ids)].append((text, weight))
        for prompt, ids, weight in line["rows"]:
            mine = found[tuple(prompt), tuple(ids)]
            for text in {text for text, _ in mine} & self._never:
                yield f"a text that nobody may learn from reached the gradient: {text[:80]!r}"
            if not any(abs(weight - each) < _EXACTLY for _, each in mine):
                yield f"{mine[:1]} reached the gradient with the weight {weight}, which follows from no group"

    @cache  # noqa: B019  # a judge lives as long as its test
    def _task(self, seed: int) -> Task:
        """The task that a seed draws."""
        point = int.from_bytes(_digest("swarmd/mix/1", seed)[:6], "big") / 2**48
        total = sum(entry.get("weight", 1.0) for entry in self._datasets)
        bound = 0.0
        for entry in self._datasets:
            bound += entry.get("weight", 1.0) / total
            if point < bound:
                break
        dataset = reasoning_gym.create_dataset(entry["name"], seed=seed, size=_POSITIONS, **entry["config"])
        for index in range(1, _POSITIONS):
            question = dataset[index]["question"]
            if hashlib.sha256(question.encode()).digest()[0] >= _HELD_OUT:
                return Task(entry["name"], index, question, dataset[index])
        raise AssertionError(f"the seed {seed} has no task that may be trained on")


def score(task: Task, completion: str) -> float:
    """reasoning-gym's own score."""
    return float(reasoning_gym.get_score_answer_fn(task.dataset)(extract_answer(completion), dict(task.entry)))


def weights_of(rewards: Sequence[float]) -> list[float]:
    """GRPO's advantages: distances from the mean in standard deviations."""
    if len(set(rewards)) < 2:
        return [0.0] * len(rewards)
    middle, deviation = statistics.fmean(rewards), statistics.stdev(rewards)
    return [(reward - middle) / deviation for reward in rewards]


def signed_body(value: bytes, key: str, subkey: str, expires: float) -> dict[str, Any] | None:
    """What the peer of the subkey has signed to lie under this key until then; None where it has not."""
    try:
        envelope = msgpack.unpackb(value.removeprefix(_HEADER))
        public = envelope["key"]
        place = base58.b58encode(b"\x12\x20" + hashlib.sha256(public).digest()).decode()
        parts = (_DOMAIN, key, subkey, str(round(expires * 1000)), envelope["body"])
        texts = [part if isinstance(part, bytes) else part.encode() for part in parts]
        statement = b"".join(len(text).to_bytes(8, "big") + text for text in texts)
        # libp2p's message of a public key: its type, and with tag and length the DER of an RSA key of 2048 bits.
        rsa_key = serialization.load_der_public_key(public[5:])
        assert isinstance(rsa_key, rsa.RSAPublicKey)
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
        rsa_key.verify(envelope["signature"], statement, pss, hashes.SHA256())
        body = envelope["body"]
        unpacked = msgpack.unpackb(zlib.decompress(body[1:], -zlib.MAX_WBITS) if body[0] else body[1:])
        fits = type(unpacked["round"]) is int and all(_is_group(group) for group in unpacked["groups"])
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, msgpack.UnpackException, zlib.error):
        return None  # damaged on purpose: it was published, but says nothing
    except (InvalidSignature, UnsupportedAlgorithm, AssertionError):
        return None
    return unpacked if place == subkey and value.startswith(_HEADER) and fits else None


def _is_group(group: Any) -> bool:
    return len(group) >= 8 and isinstance(group[6], list)


def _is_part(some: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether these stand in that, in their order."""
    rest = iter(whole)
    return all(any(text == other for other in rest) for text in some)


def lines_of(file: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file of JSON."""
    for line in file.read_bytes().rpartition(b"\n")[0].splitlines():
        yield json.loads(line)
