"""A weighted mix of reasoning-gym's datasets, from which every peer draws and regenerates the same tasks.

reasoning-gym has a CompositeDataset for this, but a task of it depends on its position in the list and on the seeds
of the whole composite, and the questions come to an end.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swarmd.system.exits import SettingProblem
from swarmd.tasks.dataset_settings import MixError
from swarmd.tasks.generator import POSITIONS, GenerationFailed, Generator
from swarmd.tasks.provenance import (
    SEEDS,
    CannotRegenerate,
    Provenance,
    Task,
    digest,
    heldout_seed,
    is_heldout,
    seed_of,
)

ENVIRONMENT = "reasoning_gym"

_SEEDS_TRIED = 32
"""How many seeds are searched for one task of a class before a dataset counts as too small (992 questions)."""

_SEEDS_WITHOUT_ANY = 4
"""After this many seeds at which it made no task at all, a dataset counts as broken (124 attempts)."""

_FRUITLESS = 128
"""After this many held-out tasks in a row that are all known, a dataset's held-out questions count as used up."""


@dataclass(frozen=True)
class DatasetSpec:
    """One dataset of a mix: weight relative to the others (> 0), config: the dataset's own settings."""

    name: str
    weight: float = 1.0
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MixPart:
    """A dataset in a mix, ready for use. share: of all draws, 0..1."""

    name: str
    share: float
    config_hash: str
    key: str
    generator: Generator


class TaskMix:
    """Draws tasks and makes them again. A task depends on its provenance alone.

    Training and held-out questions are two classes that share no text (`is_heldout`): `draw` gives only the one,
    `heldout` only the other. Raises MixError for anything that cannot work, before the first round.
    """

    def __init__(self, datasets: Sequence[DatasetSpec]) -> None:
        if not datasets:
            raise MixError([SettingProblem("tasks.datasets", "is empty; name at least one dataset")])
        total = float(sum(spec.weight for spec in datasets))
        problems: list[SettingProblem] = []
        parts: list[MixPart] = []
        for number, spec in enumerate(datasets):
            key = f"tasks.datasets[{number}]"
            if not 0 < spec.weight < float("inf"):
                problems.append(SettingProblem(f"{key}.weight", f"{spec.weight!r} is not a number above 0"))
                continue
            try:
                generator = Generator(spec.name, spec.config, key)
                part = MixPart(spec.name, spec.weight / total, generator.config_hash, key, generator)
                twin = next((other for other in parts if _identity(other) == _identity(part)), None)
                if twin is not None:
                    raise MixError([SettingProblem(key, f"is the same as {twin.key}; give it one weight")])
                # A task of each class, so that a dataset without one is found now and not in some later round.
                _first_of_class(part, 0, heldout=False)
                _first_of_class(part, 0, heldout=True)
            except MixError as error:
                problems.extend(error.problems)
            else:
                parts.append(part)
        if problems:
            raise MixError(problems)
        self.parts = tuple(parts)
        self._by_identity = {_identity(part): part for part in parts}
        self._bounds = list(itertools.accumulate(part.share for part in parts))

    def draw(self, seed: int) -> Task:
        """The training task of this seed (0..SEEDS-1).

        A peer's task is the one it had to work on if it equals `draw(task_seed(...))` of that peer and round.
        """
        return _first_of_class(self._part_for(seed), seed, heldout=False)

    def has(self, provenance: Provenance) -> bool:
        """Whether the dataset with these settings is in this mix."""
        identity = provenance.dataset, provenance.config_hash
        return provenance.environment == ENVIRONMENT and identity in self._by_identity

    def chooses(self, provenance: Provenance) -> bool:
        """Whether `draw` takes the task of this provenance's seed from its dataset. Costs a hash, where `draw` makes
        the task; so a false claim is found out cheaply."""
        return self.has(provenance) and _identity(self._part_for(provenance.seed)) == (
            provenance.dataset,
            provenance.config_hash,
        )

    def regenerate(self, provenance: Provenance) -> Task:
        """The task of this provenance, of either class, with nothing in it trusted.

        Some datasets take a second for a few of their seeds: see first that a stranger's seed is a `task_seed`.
        Raises CannotRegenerate for a dataset or settings that are not in this mix, and for a place without a task.
        """
        if provenance.environment != ENVIRONMENT:
            raise CannotRegenerate(f"the task is of environment {provenance.environment!r}, not {ENVIRONMENT}")
        part = self._by_identity.get((provenance.dataset, provenance.config_hash))
        if part is None:
            raise CannotRegenerate(f"{provenance.dataset} with these settings is not in this node's mix")
        if not (_is_int(provenance.seed) and 0 <= provenance.seed < SEEDS):
            raise CannotRegenerate(f"the seed {provenance.seed!r} is not in 0..{SEEDS - 1}")
        if not (_is_int(provenance.index) and 1 <= provenance.index < POSITIONS):
            raise CannotRegenerate(f"the index {provenance.index!r} is not in 1..{POSITIONS - 1}")
        try:
            return _task(part, provenance.seed, provenance.index)
        except GenerationFailed as error:
            raise CannotRegenerate(f"{provenance.dataset} has no task there: {error}") from error

    def heldout(self, count: int, seed: int) -> list[Task]:
        """`count` held-out tasks in the order of the mix, each dataset with its share of them (to the nearest task).

        No question comes twice, unless a dataset has too few: then its last ones are repeats.
        """
        known: set[str] = set()
        tasks: list[Task] = []
        for part, quota in zip(self.parts, _quotas([part.share for part in self.parts], count), strict=True):
            taken = fruitless = number = 0
            while taken < quota:
                task_seed = heldout_seed(seed, part.name, part.config_hash, number)
                number += 1
                task = _first_of_class(part, task_seed, heldout=True)
                if task.question in known and fruitless < _FRUITLESS:
                    fruitless += 1
                    continue
                fruitless = 0 if task.question not in known else fruitless
                known.add(task.question)
                tasks.append(task)
                taken += 1
        return tasks

    def _part_for(self, seed: int) -> MixPart:
        """Chosen by a hash of the seed, never by Random(seed): that is also how the dataset fills in the task, and
        the choice of a dataset would then decide the first of its random numbers as well."""
        if not 0 <= seed < SEEDS:
            raise ValueError(f"the seed {seed} is not in 0..{SEEDS - 1}")
        point = int.from_bytes(digest("swarmd/mix/1", seed)[:6], "big") / 2**48
        return self.parts[min(bisect.bisect_right(self._bounds, point), len(self.parts) - 1)]


def _identity(part: MixPart) -> tuple[str, str]:
    return part.name, part.config_hash


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _task(part: MixPart, seed: int, index: int) -> Task:
    question, answer, metadata = part.generator.make(seed, index)
    return Task(Provenance(ENVIRONMENT, part.name, part.config_hash, seed, index), question, answer, metadata)


def _first_of_class(part: MixPart, seed: int, *, heldout: bool) -> Task:
    """The first task of the class at this seed, or, where all its positions are of the other, at seeds derived from it.

    Raises MixError where the dataset has too few questions (or makes none) for that.
    """
    failure: GenerationFailed | None = None
    made = 0
    for attempt in range(_SEEDS_TRIED):
        # Not the seed's neighbours: most datasets fill in a task from Random(seed + index), so those repeat these.
        seed_tried = seed if attempt == 0 else seed_of("swarmd/next/1", seed, attempt)
        for index in range(1, POSITIONS):
            try:
                task = _task(part, seed_tried, index)
            except GenerationFailed as error:
                failure = error
                continue
            made += 1
            if is_heldout(task.question) == heldout:
                return task
        if not made and attempt + 1 >= _SEEDS_WITHOUT_ANY:
            break
    if failure is not None and not made:
        raise MixError([SettingProblem(f"{part.key}.config", f"{part.name} makes no task with it: {failure}")])
    kept = "is kept for evaluation" if heldout else "may be trained on"
    message = f"{part.name} has too few different questions with it: among {made} of them none {kept}; widen it"
    raise MixError([SettingProblem(f"{part.key}.config", message)])


def _quotas(shares: Sequence[float], count: int) -> list[int]:
    """Whole numbers in these proportions that add up to count; what is left over goes to the largest remainders."""
    exact = [share * count for share in shares]
    quotas = [int(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda number: (quotas[number] - exact[number], number))
    for number in by_remainder[: count - sum(quotas)]:
        quotas[number] += 1
    return quotas
