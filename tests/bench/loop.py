"""GenRL's own round loop, the same for both trainers, with a clock on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from genrl.communication.local.null_comm import NullCommunicationBackend
from genrl.data import DataManager
from genrl.game import BaseGameManager
from genrl.rewards import RewardManager
from genrl.state import GameState
from genrl.trainer import TrainerModule

from tests.bench.clock import Clock


@dataclass(frozen=True)
class Side:
    """A trainer with its data and rewards. begin_round(round) is called before each round."""

    trainer: TrainerModule
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    learning_rate: float
    data: DataManager
    rewards: RewardManager
    begin_round: Callable[[int], None]


class TimedGame(BaseGameManager):
    """GenRL's game with one stage a round and nobody to talk to.

    What GenRL does in a round is left alone. Around it, the round's time and mean reward are noted, and what GenRL
    would swallow ends the game and stands in `clock.failures`.
    """

    def __init__(self, side: Side, rounds: int, clock: Clock, progress: Callable[[], object]) -> None:
        super().__init__(
            max_stage=1,
            max_round=rounds,
            game_state=GameState(round=0, stage=0),
            reward_manager=side.rewards,
            trainer=side.trainer,
            data_manager=side.data,
            communication=NullCommunicationBackend(),
            run_mode="train",
        )
        self.clock = clock
        self.round_seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.phase_seconds: list[dict[str, float]] = []
        self.mean_rewards: list[float] = []
        self._begin_round = side.begin_round
        self._progress = progress
        clock.watch(side.data, "get_round_data", "tasks")
        for method in ("prepare_input", "prepare_actions", "prepare_states"):
            clock.watch(side.data, method, "data")
        clock.watch(side.trainer, "generate", "generate")
        clock.watch(side.rewards, "update_rewards", "score")
        clock.watch(side.trainer, "train", "train")
        clock.watch(side.optimizer, "step", "step")

    def end_of_game(self) -> bool:
        return bool(self.clock.failures) or super().end_of_game()

    def run_game_round(self) -> None:
        self.clock.take()
        begun, cpu_begun = time.perf_counter(), time.process_time()
        try:
            self._begin_round(self.state.round)
            super().run_game_round()
        except BaseException as error:
            # GenRL's run_game logs whatever comes and returns as if the game were over.
            self.clock.failed(error)
            raise
        if not self.clock.failures:
            self.round_seconds.append(time.perf_counter() - begun)
            self.cpu_seconds.append(time.process_time() - cpu_begun)
            self.phase_seconds.append(self.clock.take())
            self._progress()

    def _hook_after_rewards_updated(self) -> None:
        trees = self.rewards[0][self.rank].values()
        rewards = [float(reward) for nodes in trees for group in nodes for reward in group]
        self.mean_rewards.append(sum(rewards) / len(rewards))
