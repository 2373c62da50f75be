"""The mix that the configuration asks for: a preset's name or a list of datasets."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Protocol

import yaml
from reasoning_gym.factory import DATASETS

from swarmd.system.exits import SettingProblem
from swarmd.tasks.dataset_settings import MixError
from swarmd.tasks.mix import DatasetSpec, TaskMix


class DatasetEntry(Protocol):
    """An entry of `tasks.datasets`, as the configuration has it."""

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float: ...

    @property
    def config(self) -> dict[str, object]: ...


def preset_names() -> list[str]:
    """The presets that come with the package, in alphabetical order."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _presets().iterdir() if entry.name.endswith(".yaml"))


def preset(name: str) -> list[DatasetSpec]:
    """The datasets of a preset. Raises MixError for an unknown name."""
    names = preset_names()
    if name not in names:
        if name in DATASETS:
            message = f"{name!r} is a dataset; write the mix as a list, [{{name: {name}}}]"
            raise MixError([SettingProblem("tasks.datasets", message)])
        near = difflib.get_close_matches(name, names, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        message = f"there is no preset {name!r}{meant}; the presets are {', '.join(names)}"
        raise MixError([SettingProblem("tasks.datasets", message)])
    entries = yaml.safe_load((_presets() / f"{name}.yaml").read_text(encoding="utf-8"))["datasets"]
    return [DatasetSpec(**entry) for entry in entries]


def mix_of(datasets: str | Iterable[DatasetEntry]) -> TaskMix:
    """The mix for `tasks.datasets`. Raises MixError, with everything that is wrong in it."""
    if isinstance(datasets, str):
        return TaskMix(preset(datasets))
    return TaskMix([DatasetSpec(entry.name, entry.weight, entry.config) for entry in datasets])


def _presets() -> Traversable:
    return files("swarmd.tasks") / "presets"
