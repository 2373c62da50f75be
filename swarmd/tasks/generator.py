"""One dataset of the mix: its tasks as a pure function of (seed, index).

The task at (seed, index) is the one that reasoning-gym itself makes with
`create_dataset(name, seed=seed, size=POSITIONS, **config)[index]`, in any process and after any other task. Only
where that gives another task in each process (ORDERED, list_functions) it is one of these, always the same.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import hashlib
import io
import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib.metadata import version
from typing import Any

import numpy as np
from reasoning_gym.factory import DATASETS

from swarmd.system.exits import SettingProblem
from swarmd.tasks.dataset_settings import MixError, check_dataset, checked_config
from swarmd.tasks.ordered_datasets import ORDERED

POSITIONS = 32
"""Tasks per seed. Position 0 is never used: gsm_symbolic and list_functions choose the kind of a task with the same
random number that fills in their position 0, which ties the two together."""

BOUND_TO_SEED = frozenset({"acre", "gsm_symbolic", "list_functions"})
"""Their constructors draw from the seed, so that each seed needs a dataset of its own. All others use the seed only
when a task is made; there one object, which may have cost a second to make, serves all seeds."""

GLOBAL_RANDOMNESS = frozenset({"list_functions", "pool_matrix"})
"""They draw from the `random` module, or seed numpy's global state. All others have a Random of their own."""

_LONGEST_REASON = 300


class GenerationFailed(Exception):
    """The dataset makes no task at this seed and position."""


class Generator:
    """One dataset with its settings.

    Raises MixError, with keys below `key` (where the dataset stands in the configuration), for a dataset or a
    setting that cannot be used.
    """

    def __init__(self, name: str, settings: Mapping[str, Any], key: str) -> None:
        check_dataset(name, key)
        self.name = name
        self.config = checked_config(name, settings, key)
        self.config.size = POSITIONS
        self._dataset_class = ORDERED.get(name) or DATASETS[name][0]
        self._bound: tuple[int, Any] | None = None
        try:
            self.config_hash = _config_hash(name, self.config)
            self._shared = self._made_with(0)
        except (AssertionError, ValueError, TypeError, ArithmeticError, LookupError, OSError) as error:
            raise MixError([SettingProblem(f"{key}.config", f"{name} refuses it: {error}")]) from error

    def make(self, seed: int, index: int) -> tuple[str, str | None, dict[str, Any]]:
        """Question, answer and metadata of a task. Raises GenerationFailed where the dataset has none there."""
        guard = _own_random_state(seed, index) if self.name in GLOBAL_RANDOMNESS else nullcontext()
        with guard, redirect_stdout(io.StringIO()):  # bf prints a dot for each task
            try:
                item = self._dataset_for(seed)[index]
                question, answer, metadata = item["question"], item["answer"], plain(item["metadata"])
            except MemoryError:
                raise
            # A generator is foreign code and raises whatever it likes (FontNotFound, KeyError, ...) where it finds
            # no puzzle. All of that means the same here: there is no task at this place.
            except Exception as error:
                raise GenerationFailed(f"{type(error).__name__}: {str(error)[:_LONGEST_REASON]}") from error
        if not isinstance(question, str) or not (answer is None or isinstance(answer, str)):
            raise GenerationFailed("its question or answer is no text")
        return question, answer, metadata

    def _dataset_for(self, seed: int) -> Any:
        if self.name in BOUND_TO_SEED:
            if self._bound is None or self._bound[0] != seed:
                self._bound = (seed, self._made_with(seed))
            return self._bound[1]
        dataset = self._shared
        dataset.seed = dataset.config.seed = seed  # survo takes the one of its configuration, all others their own
        dataset.size = POSITIONS  # word_ladder shrinks itself where it finds no ladder
        return dataset

    def _made_with(self, seed: int) -> Any:
        with redirect_stdout(io.StringIO()):
            return self._dataset_class(dataclasses.replace(self.config, seed=seed))


@contextmanager
def _own_random_state(seed: int, index: int) -> Iterator[None]:
    """Global random numbers that follow from the task, and leave everybody else's as they were."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed + index)
    np.random.seed((seed + index) % 2**32)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def plain(value: Any) -> Any:
    """A copy of a task's metadata in plain data: None, bool, int, float, str, list, tuple and dict of these.

    So it can be compared, and sent to the scorer. Raises TypeError for anything that has no such form.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=repr)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, (fractions.Fraction, decimal.Decimal, datetime.date, datetime.time, datetime.timedelta)):
        return str(value)
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    raise TypeError(f"a {type(value).__module__}.{type(value).__qualname__} is no plain data")


def _config_hash(name: str, config: Any) -> str:
    """32 hexadecimal digits for the dataset with all its settings, written out or not.

    The version of reasoning-gym goes in as well: between versions the same settings make other tasks.
    """
    settings = {
        field.name: plain(_nested(getattr(config, field.name)))
        for field in dataclasses.fields(config)
        if field.name not in ("seed", "size")
    }
    described = {"dataset": name, "reasoning-gym": version("reasoning-gym"), "settings": settings}
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _nested(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
