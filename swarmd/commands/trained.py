"""The last checkpoint in the hands of a command other than `run`, beside a node that may be training on."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from swarmd.assembly import Chosen, choose_model, load_base, make_trainer
from swarmd.config import Config
from swarmd.game.checkpoint import CHECKPOINTS, snapshot
from swarmd.game.history import HISTORY_FILE, Curves
from swarmd.system.exits import ConfigurationError
from swarmd.system.paths import state_directory
from swarmd.training.trainer import GRPOTrainer


@dataclass(frozen=True)
class Trained:
    """A trainer with the base model's weights, and where its trained ones are."""

    chosen: Chosen
    state: Path
    trainer: GRPOTrainer

    @property
    def name(self) -> str:
        return self.chosen.name

    def start_over(self) -> None:
        """Back to the base model."""
        self.trainer.start_over(load_base(self.chosen))

    def restore(self) -> int:
        """Takes up the last checkpoint's weights; its round. The node's lock is not needed: the files are linked
        aside before they are read.

        Raises:
            ConfigurationError: there is none, or it is another model's.
        """
        directory = self.state / CHECKPOINTS
        # Root reads where the service's user can put no link in the way.
        foreign = os.geteuid() == 0 and self.state.stat().st_uid != 0
        with tempfile.TemporaryDirectory(prefix=".reading-", dir=None if foreign else self.state) as aside:
            checkpoint = snapshot(directory, Path(aside)) if directory.is_dir() else None
            if checkpoint is None:
                raise ConfigurationError(
                    f"{self.state} holds no checkpoint yet; train first with `swarmd run`, or name another directory "
                    "with --state DIR"
                )
            kept = checkpoint.state.get("model")
            if kept != self.name:
                raise ConfigurationError(
                    f"{self.state} holds the training of model {kept}, and model.name is {self.name}; name the "
                    "configuration it was trained with: --config PATH"
                )
            self.trainer.restore(checkpoint.path, checkpoint.state["learner"])
            return checkpoint.round


def open_trained(config: Config, state_flag: Path | None) -> Trained:
    """Loads the base model of a state directory.

    Raises:
        ConfigurationError: the model cannot be loaded.
    """
    state = state_directory(state_flag)
    curves = Curves.of(state / HISTORY_FILE)
    chosen = choose_model(config, curves.fact("model"))
    curves.close()
    return Trained(chosen, state, make_trainer(config, chosen, seed=0))
