"""All questions of a swarm that asks a fixed list of them, so that a stranger's question leads to a task of our own.

GenRL's nodes name a task by its question and send the answer and the scorer's metadata with it. None of that is used:
the question is looked up here, or the group is dropped.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from threading import Lock
from typing import Any

import yaml
from reasoning_gym.factory import DATASETS

from swarmd.system.exits import SettingProblem
from swarmd.tasks.dataset_settings import MixError, check_dataset, checked_config
from swarmd.tasks.generator import plain
from swarmd.tasks.provenance import Provenance, Task

ENVIRONMENT = "legacy_table"
"""The environment in the provenance of these tasks. No TaskMix regenerates it: ask the table again."""

_MOST_QUESTIONS = 100_000


@dataclass(frozen=True)
class FixedDataset:
    """One dataset of the list: its tasks are those at 0..size-1 of this seed and these settings."""

    name: str
    seed: int
    size: int
    config: Mapping[str, Any] = field(default_factory=dict)


class LegacyTable:
    """From a question's text to the task. Made when the first question comes (half a second for 4500); thread-safe.

    Raises MixError, when it is constructed, for a dataset or a setting that cannot be used.
    """

    def __init__(self, datasets: Sequence[FixedDataset]) -> None:
        if sum(dataset.size for dataset in datasets) > _MOST_QUESTIONS:
            raise MixError([SettingProblem("datasets", f"has more than {_MOST_QUESTIONS} questions")])
        self._specs = tuple(datasets)
        self._configs: list[Any] = []
        for number, spec in enumerate(datasets):
            key = f"datasets[{number}]"
            check_dataset(spec.name, key)
            config = checked_config(spec.name, spec.config, key)
            config.seed, config.size = spec.seed, spec.size
            self._configs.append(config)
        self._hashes = [_config_hash(spec) for spec in datasets]
        self._places: dict[bytes, tuple[int, int]] | None = None
        self._datasets: list[Any] = []
        self._lock = Lock()

    def __len__(self) -> int:
        """How many different questions there are."""
        with self._lock:
            return len(self._built())

    def find(self, question: str) -> Task | None:
        """The task that this question belongs to, or None where no node of that swarm can have been asked it.

        Where several tasks have the question it is the first of them; their answers are the same.
        """
        with self._lock:
            place = self._built().get(_digest(question))
            if place is None:
                return None
            number, index = place
            spec = self._specs[number]
            item = self._item(number, index)
        # MD5 names a question, and anybody can make two texts with one MD5.
        if item["question"] != question:
            return None
        provenance = Provenance(ENVIRONMENT, spec.name, self._hashes[number], spec.seed, index)
        return Task(provenance, question, item["answer"], plain(item["metadata"]))

    def questions(self) -> list[str]:
        """All different questions, in the order of the list."""
        with self._lock:
            return [self._item(number, index)["question"] for number, index in self._built().values()]

    def _built(self) -> dict[bytes, tuple[int, int]]:
        """The place (number of the dataset, index) of each question, by its digest."""
        if self._places is None:
            places: dict[bytes, tuple[int, int]] = {}
            with redirect_stdout(io.StringIO()):
                for spec, config in zip(self._specs, self._configs, strict=True):
                    self._datasets.append(DATASETS[spec.name][0](config))
            for number, spec in enumerate(self._specs):
                for index in range(spec.size):
                    places.setdefault(_digest(self._item(number, index)["question"]), (number, index))
            self._places = places
        return self._places

    def _item(self, number: int, index: int) -> Any:
        with redirect_stdout(io.StringIO()):  # bf prints a dot for each task
            return self._datasets[number][index]


LEGACY_TABLE = "incumbent"
"""The table for swarms in which GenRL's nodes take part."""


def load_table(name: str) -> LegacyTable:
    """A table that comes with the package: `incumbent`, the RL Swarm testnet's."""
    text = (files("swarmd.tasks") / "legacy" / f"{name}.yaml").read_text(encoding="utf-8")
    return LegacyTable([FixedDataset(**entry) for entry in yaml.safe_load(text)["datasets"]])


def _digest(question: str) -> bytes:
    return hashlib.md5(question.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()


def _config_hash(spec: FixedDataset) -> str:
    described = {
        "dataset": spec.name,
        "reasoning-gym": version("reasoning-gym"),
        "settings": dict(spec.config),
        "size": spec.size,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]
