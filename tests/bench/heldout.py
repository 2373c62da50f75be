"""The held-out score of a run's weights: one function for all arms, the one that `swarmd eval` uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swarmd.assembly import HELDOUT_SEED, open_environment
from swarmd.game.evaluation import Evaluator
from swarmd.tasks.scorer import Scorer
from swarmd.training.models import EMBEDDED
from swarmd.training.trainer import GRPOTrainer
from swarmd.training.weights import load_weights
from tests.bench.common import open_common


@dataclass(frozen=True)
class Heldout:
    """The reward of each held-out task, in one order for all arms: sampled at the training temperature, and greedy."""

    sampled: list[float]
    greedy: list[float]


class Judge:
    """Scores weights on the same held-out tasks with the same sampling noise."""

    def __init__(self, scorer: Scorer, samples: int) -> None:
        common = open_common(seed=0)
        self._temperature = common.recipe.temperature
        self._trainer = GRPOTrainer(common.loaded, common.recipe, common.rows_at_once)
        environment = open_environment(common.config, EMBEDDED, scorer, "bench", samples, HELDOUT_SEED)
        self._evaluator = Evaluator(environment, self._trainer, self._temperature)
        self.recipe = common.recipe
        self.parameters = common.loaded.parameters
        self.default_tasks = common.tasks_per_round

    def score(self, weights: Path | None) -> Heldout:
        """Scores a file of weights, None for those the model came with (ask for them first).

        Raises:
            WeightsError: they are not the embedded model's, or damaged.
        """
        if weights is not None:
            load_weights(self._trainer.model, weights)
        return Heldout(self._pass(self._temperature), self._pass(0.0))

    def _pass(self, temperature: float) -> list[float]:
        by_dataset = self._evaluator.score(temperature).by_dataset
        return [reward for _, rewards in sorted(by_dataset.items()) for reward in rewards]
