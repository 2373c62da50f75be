"""What outlives the process, and the way back after a collapse."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from swarmd.game.checkpoint import CheckpointStore
from swarmd.game.history import BASE_ROUND, HeldoutRow, History
from swarmd.game.keeper import CollapseStop, Keeper
from swarmd.system.exits import ConfigurationError
from swarmd.training.models import LoadedModel
from swarmd.training.recipe import Recipe
from swarmd.training.rollouts import Rollout
from swarmd.training.trainer import GRPOTrainer
from tests.models import small_model, small_tokenizer

RECIPE = Recipe(group_size=2, max_new_tokens=4, temperature=1.0, learning_rate=1e-2, threads=1)
ROLLOUT = Rollout((5, 6, 7), ((8, 9), (10, 11)), None, (1.0, 0.0))
ROW = HeldoutRow(round=0, time=0.0, sampled=0.5, greedy=0.5, samples=500, datasets={})


def base() -> LoadedModel:
    return LoadedModel("small", small_model(), small_tokenizer(), parameters=1)


class Node:
    """A trainer with its keeper on a state directory, as the daemon makes them."""

    def __init__(self, state: Path, on_collapse: str = "rollback", model: str = "small", every: int = 1) -> None:
        self.trainer = GRPOTrainer(base(), RECIPE)
        self.history = History(state / "state.sqlite")
        self.keeper = Keeper(
            CheckpointStore(state / "checkpoints", keep=3),
            self.history,
            self.trainer,
            lambda: self.trainer.start_over(base()),
            model,
            on_collapse,
            every,
        )

    def play(self, round: int) -> None:
        assert self.trainer.update([ROLLOUT]).stepped
        self.keeper.round_done(round)

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self.trainer.model.state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def test_a_new_process_goes_on_with_the_last_rounds_weights_and_steps(tmp_path: Path) -> None:
    first = Node(tmp_path)
    assert first.keeper.restore() is None
    first.play(0)
    first.play(1)
    second = Node(tmp_path)
    assert second.keeper.restore() == 1
    assert same(first.weights(), second.weights())
    first.play(2)
    second.play(2)
    assert same(first.weights(), second.weights())


def test_a_collapse_goes_back_to_the_best_weights_with_half_the_rate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(tmp_path)
    node.keeper.restore()
    node.keeper.evaluated(replace(ROW, round=BASE_ROUND, sampled=0.3))
    node.play(0)
    node.keeper.evaluated(replace(ROW, round=0, sampled=0.5))
    best = node.weights()
    for round in range(1, 7):  # long enough that the best round's own checkpoint is gone
        node.play(round)
    assert not same(best, node.weights())
    with caplog.at_level(logging.INFO, logger="swarmd"):
        logging.getLogger("swarmd").propagate = True
        node.keeper.evaluated(replace(ROW, round=6, sampled=0.1))
    assert same(best, node.weights())
    assert node.trainer.learning_rate_scale == 0.5
    assert (
        "learning collapsed: held-out score 0.100 after round 6, best 0.500 after round 0; back to the weights of "
        "round 0, learning rate now 0.5 of the configured"
    ) in caplog.text
    again = Node(tmp_path)
    assert again.keeper.restore() == 6, "a roll-back does not turn back the rounds"
    assert same(best, again.weights())
    assert again.trainer.learning_rate_scale == 0.5


def test_a_collapse_before_anything_better_goes_back_to_the_base_model(tmp_path: Path) -> None:
    node = Node(tmp_path)
    untrained = node.weights()
    node.keeper.restore()
    node.keeper.evaluated(replace(ROW, round=BASE_ROUND, sampled=0.5))
    node.play(0)
    node.keeper.evaluated(replace(ROW, round=0, sampled=0.1))
    assert same(untrained, node.weights())
    assert node.trainer.steps == 0


def test_the_rate_is_not_halved_for_ever(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.keeper.restore()
    node.keeper.evaluated(replace(ROW, round=BASE_ROUND, sampled=0.5))
    for round in range(10):
        node.play(round)
        node.keeper.evaluated(replace(ROW, round=round, sampled=0.1))
    assert node.trainer.learning_rate_scale == 1 / 64


def test_on_collapse_stop_is_a_fault_for_a_person(tmp_path: Path) -> None:
    node = Node(tmp_path, on_collapse="stop")
    node.keeper.restore()
    node.keeper.evaluated(replace(ROW, round=BASE_ROUND))
    node.play(0)
    collapsed = node.weights()
    with pytest.raises(CollapseStop, match="stopped because training.on_collapse is stop"):
        node.keeper.evaluated(replace(ROW, round=0, sampled=0.0))
    assert issubclass(CollapseStop, ConfigurationError)
    assert same(collapsed, node.weights())


def test_on_collapse_ignore_only_tells(tmp_path: Path) -> None:
    node = Node(tmp_path, on_collapse="ignore")
    node.keeper.restore()
    node.keeper.evaluated(replace(ROW, round=BASE_ROUND))
    node.play(0)
    collapsed = node.weights()
    node.keeper.evaluated(replace(ROW, round=0, sampled=0.0))
    assert same(collapsed, node.weights())
    assert node.trainer.learning_rate_scale == 1.0


def test_the_best_score_is_known_though_the_curves_are_lost(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.keeper.restore()
    node.play(0)
    node.keeper.evaluated(replace(ROW, round=0, sampled=0.5))
    best = node.weights()
    node.play(1)
    node.history.close()
    for file in tmp_path.glob("state.sqlite*"):
        file.unlink()
    again = Node(tmp_path)
    again.keeper.restore()
    again.keeper.evaluated(replace(ROW, round=1, sampled=0.1))
    assert same(best, again.weights())


def test_checkpoints_of_another_model_are_refused(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.keeper.restore()
    node.play(0)
    with pytest.raises(ConfigurationError, match="holds the training of model small, and model.name is other"):
        Node(tmp_path, model="other").keeper.restore()


def test_rounds_between_two_checkpoints_are_saved_at_the_end(tmp_path: Path) -> None:
    node = Node(tmp_path, every=5)
    node.keeper.restore()
    for round in range(4):
        node.play(round)
    assert node.keeper.saved is not None and node.keeper.saved.round == 0
    node.keeper.flush()
    assert Node(tmp_path, every=5).keeper.restore() == 3
