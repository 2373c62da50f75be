"""swarmd's trainer with swarmd's data and rewards, as the daemon makes them."""

from __future__ import annotations

from typing import Any

from swarmd.swarming import SOLO_SWARM
from swarmd.tasks.reasoning import ReasoningData
from swarmd.tasks.rewards import ReasoningRewards
from swarmd.tasks.scorer import Scorer
from swarmd.training.trainer import GRPOTrainer
from tests.bench.common import Common
from tests.bench.loop import Side


class CountingData(ReasoningData):
    """Counts the rounds, of which GenRL's loop tells its data nothing."""

    def __init__(self, common: Common) -> None:
        super().__init__(
            common.mix,
            SOLO_SWARM,
            common.node_id,
            common.tasks_per_round,
            system_prompt=None,
            evaluate_samples=1,
            evaluate_seed=0,
        )
        self._next = 0

    def get_round_data(self) -> list[tuple[str, Any]]:
        self.begin_round(self._next)
        self._next += 1
        return super().get_round_data()


def swarmd_side(common: Common, scorer: Scorer) -> Side:
    """What `swarmd run` trains with."""
    trainer = GRPOTrainer(common.loaded, common.recipe, common.rows_at_once)
    return Side(
        trainer=trainer,
        model=trainer.model,
        optimizer=trainer.optimizer,
        learning_rate=common.recipe.learning_rate,
        data=CountingData(common),
        rewards=ReasoningRewards(scorer),
        begin_round=trainer.begin_round,
    )
