"""Environments: what makes the tasks and what rewards them, GenRL's own or anybody's, found by name.

`reasoning_gym` is ours. `package.module:factory` names a function anywhere on Python's path; any other name is an
entry point of the group `swarmd.environments`. A factory takes the settings of section `tasks` and an
EnvironmentContext, and returns an Environment.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

from genrl.data import DataManager
from genrl.rewards import RewardManager

from swarmd.system.exits import ConfigurationError
from swarmd.tasks.provenance import Task
from swarmd.tasks.scorer import Score, ScoreRequest

GROUP = "swarmd.environments"
BUILT_IN = {"reasoning_gym": "swarmd.tasks.reasoning:reasoning_environment"}


class Scoring(Protocol):
    """What scores completions, such as swarmd.tasks.scorer.Scorer."""

    def score(self, requests: Sequence[ScoreRequest], budget_s: float | None = None) -> list[Score]: ...


@dataclass(frozen=True)
class EnvironmentContext:
    """What a factory is told about the node.

    swarm_id and node_id enter the seeds of the tasks. system_prompt: the instruction before each task, None for
    none ("auto" is already decided). evaluate_samples: held-out tasks per evaluation; seed: theirs.
    peer_seconds: for making peers' tasks in a round, and again for scoring what they answered; by_question: a task
    of those that nodes without provenance work on, by its question, None where there is none.
    """

    swarm_id: str
    node_id: str
    tasks_per_round: int
    group_size: int
    scorer: Scoring
    evaluate_samples: int
    seed: int
    system_prompt: str | None = None
    peer_seconds: float = 60.0
    by_question: Callable[[str], Task | None] | None = None


@dataclass(frozen=True)
class Environment:
    """What a factory returns. stages: how many times the model acts in a round, one after the other."""

    name: str
    data: DataManager
    rewards: RewardManager
    stages: int = 1


Factory = Callable[[Any, EnvironmentContext], Environment]


def load_environment(name: str, settings: Any, context: EnvironmentContext) -> Environment:
    """The environment of this name (`tasks.environment`), made with the settings of section `tasks`.

    Raises ConfigurationError for a name that leads nowhere, and for a factory that returns something else. What
    the code of an environment raises itself goes through: its author needs the trace.
    """
    target = name if ":" in name else BUILT_IN.get(name) or _entry_point(name).value
    environment = _factory(name, target)(settings, context)
    return _checked(name, target, environment)


def _entry_point(name: str) -> EntryPoint:
    found = entry_points(group=GROUP, name=name)
    for point in found:
        return point
    names = sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})
    near = difflib.get_close_matches(name, names, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    raise _refused(f"there is no environment {name!r}{meant}; those found here are {', '.join(names)}")


def _factory(name: str, target: str) -> Factory:
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise _refused(f"{name!r}: there is no module {missing!r} on Python's path") from error
        raise _refused(f"{name!r}: its module {module_name} needs {missing!r}, which is not installed") from error
    except (ImportError, SyntaxError) as error:
        raise _refused(f"{name!r}: its module {module_name} cannot be imported: {error}") from error
    factory: Any = module
    for part in attribute.split("."):
        factory = getattr(factory, part, None)
    if factory is None:
        raise _refused(f"{name!r}: the module {module_name} has no {attribute!r}")
    if not callable(factory):
        raise _refused(f"{name!r}: {target} is a {type(factory).__name__}, not a function")
    made: Factory = factory
    return made


def _checked(name: str, target: str, environment: object) -> Environment:
    if not isinstance(environment, Environment):
        raise _refused(
            f"{name!r}: {target} returned a {type(environment).__name__}, not a swarmd.tasks.environment.Environment"
        )
    for value, wanted, what in (
        (environment.data, DataManager, "data"),
        (environment.rewards, RewardManager, "rewards"),
    ):
        if not isinstance(value, wanted):
            raise _refused(f"{name!r}: its {what} is a {type(value).__name__}, not a genrl.{what}.{wanted.__name__}")
    if environment.stages < 1:
        raise _refused(f"{name!r}: it has {environment.stages} stages, and needs at least one")
    return environment


def _refused(message: str) -> ConfigurationError:
    return ConfigurationError(f"tasks.environment: {message}")
