"""Does it learn? The held-out score, and the watch over its collapse."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from genrl.state import GameState

from swarmd.game.history import HeldoutRow
from swarmd.game.stages import Branching, answer_stage, leave_stage, new_state
from swarmd.tasks.environment import Environment

# An evaluation may take this share of the time when the configuration leaves its pace to the node.
_SHARE_OF_TIME = 0.05
_AGENT = "heldout"


class Answerer(Protocol):
    """The trainer's side of an evaluation."""

    def answer(self, inputs: Any, temperature: float, progress: Callable[[int, int], None] | None) -> list[list[str]]:
        """One completion for each input, as groups of one; the same noise each time it is called."""


@dataclass(frozen=True)
class Scored:
    """Rewards of one pass over the held-out tasks, by dataset."""

    by_dataset: dict[str, list[float]]

    @property
    def count(self) -> int:
        return sum(map(len, self.by_dataset.values()))

    @property
    def mean(self) -> float:
        return math.fsum(r for rewards in self.by_dataset.values() for r in rewards) / max(1, self.count)

    def means(self) -> dict[str, float]:
        return {name: math.fsum(r) / len(r) for name, r in sorted(self.by_dataset.items())}


class Evaluator:
    """Scores the model on the environment's held-out data, which training never sees.

    Both at the training temperature (the score that training raises, and the one that collapse is judged by) and
    greedily. Tasks and noise are the same every time, so that two evaluations differ by the weights alone.

    temperature: of the sampled score; may be changed between two evaluations.
    seconds: how long the last `run` took; unjudged: how many answers of its score the scorer failed to look at.
    """

    def __init__(self, environment: Environment, answerer: Answerer, temperature: float) -> None:
        self._environment = environment
        self._answerer = answerer
        self.temperature = temperature
        self._data: list[Any] | None = None
        self.seconds = 0.0
        self.unjudged = 0

    def run(self, round: int, progress: Callable[[int, int], None] | None = None) -> HeldoutRow:
        """Evaluates the weights as they are after `round`. progress(done, of) counts completions."""
        begun = time.monotonic()
        sampled = self.score(self.temperature, progress)
        self.unjudged = getattr(self._environment.rewards, "unjudged", 0)
        greedy = self.score(0.0, progress)
        self.seconds = time.monotonic() - begun
        return HeldoutRow(
            round=round,
            time=time.time(),
            sampled=sampled.mean,
            greedy=greedy.mean,
            samples=sampled.count,
            datasets=sampled.means(),
        )

    def score(self, temperature: float, progress: Callable[[int, int], None] | None = None) -> Scored:
        """One pass over the held-out tasks."""
        if self._data is None:
            self._data = list(self._environment.data.get_eval_data())
        data, stages = self._environment.data, self._environment.stages
        state = new_state(0, self._data, _AGENT, Branching(stages))
        while state.stage < stages:
            answer_stage(state, data, lambda inputs: self._answerer.answer(inputs, temperature, progress))
            leave_stage(state, data, {_AGENT: state.get_latest_communication()[_AGENT]})
        rewards = self._environment.rewards
        rewards.update_rewards(state)
        by_dataset: defaultdict[str, list[float]] = defaultdict(list)
        for stage in range(stages):
            for name, reward in _named_rewards(state, stage, rewards[stage]):
                by_dataset[name].append(reward)
        rewards.reset()
        return Scored(dict(by_dataset))


def _named_rewards(state: GameState, stage: int, rewards: Any) -> Iterator[tuple[str, float]]:
    """(dataset, reward) of each completion of a stage."""
    for batch_id, nodes in state.get_stage_state(stage)[_AGENT].items():
        for node, world in enumerate(nodes):
            name = _dataset_of(world.environment_states)
            for reward in rewards[_AGENT][batch_id][node]:
                yield name, float(reward)


def _dataset_of(environment: Any) -> str:
    """Ours name it in the provenance, GenRL's rgym example in the metadata, others perhaps nowhere."""
    if not isinstance(environment, dict):
        return "all"
    if provenance := environment.get("provenance"):
        return str(provenance.dataset)
    metadata = environment.get("metadata")
    return str(metadata.get("source_dataset", "all")) if isinstance(metadata, dict) else "all"


class Pace:
    """When to evaluate: every `rounds` rounds, or ("auto", None) as often as keeps it to a small share of the time.

    rounds may be changed at any time.
    """

    def __init__(self, rounds: int | None) -> None:
        self.rounds = rounds
        self._last_round = 0
        self._last_time = time.monotonic()
        self._at_once = False

    def due(self, round: int, seconds: float) -> bool:
        """Whether to evaluate after `round`, where the last evaluation took `seconds`."""
        if self._at_once:
            return True
        if self.rounds is not None:
            return round - self._last_round >= self.rounds
        return time.monotonic() - self._last_time >= seconds / _SHARE_OF_TIME

    def hurry(self) -> None:
        """After the round in work, whatever the pace: there is no score that what comes could be compared with."""
        self._at_once = True

    def done(self, round: int) -> None:
        self._last_round, self._last_time, self._at_once = round, time.monotonic(), False


def collapsed(score: float, best: float, samples: int) -> bool:
    """Whether a held-out score is so far under the best that chance and ordinary ups and downs do not explain it.

    Rewards lie in 0..1, so the best score's standard error is at most sqrt(best (1 - best) / samples). Asked for are
    four of them, and a fifth of the best: with few tasks noise decides, with many a small drop is no collapse.
    """
    error = math.sqrt(max(best * (1.0 - best), 0.0) / max(1, samples))
    return best - score > max(4.0 * error, 0.2 * best)
