"""What every run shares: the embedded model, the recipe, the tasks, the scorer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from swarmd.assembly import choose_model, new_node_id
from swarmd.config import Config
from swarmd.config.model import Model
from swarmd.config.training import Training
from swarmd.swarming import SOLO_SWARM
from swarmd.system.exits import ConfigurationError
from swarmd.tasks.mix import TaskMix
from swarmd.tasks.mix_files import mix_of
from swarmd.tasks.provenance import Task
from swarmd.tasks.reasoning import draw_round
from swarmd.training.choices import recipe_for
from swarmd.training.models import LoadedModel, load_model
from swarmd.training.recipe import Recipe


@dataclass(frozen=True)
class Common:
    """The default configuration, on the CPU in fp32, and what the daemon makes of it.

    rows_at_once: swarmd's bound on completions sampled together. node_id: with the round, what the tasks come from.
    """

    config: Config
    loaded: LoadedModel
    recipe: Recipe
    rows_at_once: int
    mix: TaskMix
    node_id: str

    @property
    def tasks_per_round(self) -> int:
        return self.config.training.tasks_per_round

    def tasks_of(self, round: int) -> list[Task]:
        """The round's tasks, as a node with this id draws them."""
        return draw_round(self.mix, SOLO_SWARM, round, self.node_id, self.tasks_per_round)


def open_common(seed: int, tasks: int | None = None) -> Common:
    """Loads the embedded model; the same steps as in the daemon.

    Args:
        tasks: of a round; None: the configuration's default.

    Raises:
        ConfigurationError: the embedded model is missing or damaged, or fp32 does not fit into memory.
    """
    training = Training() if tasks is None else Training(tasks_per_round=tasks)
    config = Config(model=Model(dtype="float32", device="cpu"), training=training)
    chosen = choose_model(config, None)
    if chosen.folder is None or chosen.plan is None:
        raise ConfigurationError(f"model {chosen.name} is not on this machine")
    loaded = load_model(chosen.name, chosen.folder, torch.float32, chosen.device)
    recipe = recipe_for(training, loaded, chosen.plan, seed)
    mix = mix_of(config.tasks.datasets)
    return Common(config, loaded, recipe, chosen.plan.rows_at_once, mix, new_node_id(seed))
