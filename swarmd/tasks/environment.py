"""Environments: what makes the tasks and what rewards them, GenRL's own or anybody's, found by name.

How a name leads to a factory: swarmd.tasks.factories. A factory takes the settings of section `tasks` and an
EnvironmentContext, and returns an Environment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from genrl.data import DataManager
from genrl.rewards import RewardManager

from swarmd.tasks.factories import find_factory, refused, target_of
from swarmd.tasks.provenance import Task
from swarmd.tasks.scorer import Score, ScoreRequest


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
    make: Factory = find_factory(name)
    return _checked(name, target_of(name), make(settings, context))


def _checked(name: str, target: str, environment: object) -> Environment:
    if not isinstance(environment, Environment):
        raise refused(
            f"{name!r}: {target} returned a {type(environment).__name__}, not a swarmd.tasks.environment.Environment"
        )
    for value, wanted, what in (
        (environment.data, DataManager, "data"),
        (environment.rewards, RewardManager, "rewards"),
    ):
        if not isinstance(value, wanted):
            raise refused(f"{name!r}: its {what} is a {type(value).__name__}, not a genrl.{what}.{wanted.__name__}")
    if environment.stages < 1:
        raise refused(f"{name!r}: it has {environment.stages} stages, and needs at least one")
    return environment
