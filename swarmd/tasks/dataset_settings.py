"""The settings of one dataset in the mix, checked against reasoning-gym's own configuration classes.

reasoning-gym checks ranges, with assertions, but neither names nor types: a misspelt key ends in a TypeError of
its constructor, and a text where a number belongs in one of its generator, rounds later.
"""

from __future__ import annotations

import dataclasses
import difflib
import reprlib
import traceback
import typing
from collections.abc import Iterable, Mapping
from types import GenericAlias
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from reasoning_gym.factory import DATASETS

from swarmd.system.exits import SettingProblem, SettingsRefused
from swarmd.tasks.scorable import UnscorableDataset, check_scorable

IRREPRODUCIBLE = {
    "codeio": "it makes them by running programs that read the clock, files and random numbers of their own",
    "intermediate_integration": "sympy writes some of their answers in a form that follows Python's hash seed",
    "knight_swap": "their answers follow Python's hash seed, and one takes seconds to make",
}
"""Datasets of which a peer cannot make the same task again, and why."""

_OURS = {
    "seed": "each task's seed is derived from the swarm, the round and the node",
    "size": "a dataset here has no end",
}

_LONGEST_REASON = 300  # figlet_font names all its 500 fonts
_SCALARS = frozenset({int, float, bool, str, type(None)})


class MixError(SettingsRefused):
    """A mix of tasks that cannot be used."""


def check_dataset(name: str, key: str) -> None:
    """Raises MixError for a dataset that doesn't exist, cannot be scored or cannot be made again by a peer.

    key: where the dataset stands in the configuration, such as tasks.datasets[2].
    """
    if name in DATASETS:
        try:
            check_scorable(name)
        except UnscorableDataset as error:
            raise MixError([SettingProblem(f"{key}.name", str(error))]) from error
        if name in IRREPRODUCIBLE:
            message = f"the tasks of {name} cannot be made again by a peer: {IRREPRODUCIBLE[name]}"
            raise MixError([SettingProblem(f"{key}.name", message)])
        return
    message = f"reasoning-gym has no dataset {name!r}{_meant(name, DATASETS)}"
    raise MixError([SettingProblem(f"{key}.name", message)])


def checked_config(name: str, settings: Mapping[str, Any], key: str) -> Any:
    """The dataset's configuration record (seed and size at their defaults) with these settings, all defaults filled in.

    Raises MixError with everything that is wrong: unknown keys, types, and what the dataset itself refuses.
    """
    config_class = DATASETS[name][1]
    fields = {field.name for field in dataclasses.fields(config_class)} - set(_OURS)
    hints = typing.get_type_hints(config_class)
    problems: list[SettingProblem] = []
    values: dict[str, Any] = {}
    for setting, value in settings.items():
        if setting in _OURS:
            problems.append(SettingProblem(f"{key}.config.{setting}", f"cannot be set: {_OURS[setting]}"))
        elif setting not in fields:
            allowed = f"it has {', '.join(sorted(fields))}" if fields else "it has none"
            message = f"{name} has no such setting{_meant(setting, fields)}; {allowed}"
            problems.append(SettingProblem(f"{key}.config.{setting}", message))
        else:
            try:
                values[setting] = _typed(hints[setting], value)
            except ValueError as error:
                message = f"{reprlib.repr(value)} does not fit: {_misfit(error)}"
                problems.append(SettingProblem(f"{key}.config.{setting}", message))
    if problems:
        raise MixError(problems)
    try:
        config = config_class(**values)
        if hasattr(config, "validate"):
            config.validate()
    except (AssertionError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
        raise MixError([SettingProblem(f"{key}.config", f"{name} refuses it: {_reason(error)}")]) from error
    return config


def _typed(hint: Any, value: Any) -> Any:
    """The value as the dataset wants it: YAML has lists for tuples and texts for enumerations, but "3" is not 3."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and len(arguments) == 1:
        # reasoning-gym writes tuple[str] where it means any number of them
        hint = GenericAlias(tuple, (arguments[0], ...))
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        allowed = [field.name for field in dataclasses.fields(hint)]
        for unknown in sorted(set(value) - set(allowed)):
            raise ValueError(f"there is no {unknown!r} in it{_meant(unknown, allowed)}; it has {', '.join(allowed)}")
    strict = hint in _SCALARS or (origin is typing.Union and set(arguments) <= _SCALARS)
    finite = None if dataclasses.is_dataclass(hint) else ConfigDict(allow_inf_nan=False)
    return TypeAdapter(hint, config=finite).validate_python(value, strict=strict)


def _misfit(error: ValueError) -> str:
    """pydantic's first message, in the middle of a sentence of ours, with the position in a list where it has one."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    place = "".join(f"[{part}] " for part in first["loc"] if isinstance(part, int))
    return place + first["msg"][0].lower() + first["msg"][1:]


def _reason(error: Exception) -> str:
    """What an assertion says, or, where it says nothing, the line that failed."""
    if str(error):
        return str(error) if len(str(error)) <= _LONGEST_REASON else str(error)[:_LONGEST_REASON] + " ..."
    frames = traceback.extract_tb(error.__traceback__)
    line = frames[-1].line or "" if frames else ""
    return line.removeprefix("assert ").split("  #")[0].strip() or type(error).__name__


def _meant(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
