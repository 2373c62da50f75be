"""GenRL's trainer with GenRL's data manager and reward manager, set up as its users do.

What differs from GenRL's defaults, and why: group size, completion length and temperature are swarmd's, so that both
do the same work; prompts have no system message, because the embedded model was made without; the reward function
asks swarmd's scorer, so that both are paid alike. All else is as shipped: Adam, two completions an optimizer step,
gradient checkpointing, tokenizer padding on the left, no clipping of the gradient, no warm-up.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import datasets
import torch
import transformers
from genrl.data.text_data_managers import SimpleTextDataManager
from genrl.rewards import DefaultRewardManager, RewardFnStore, RoundRewardFnStore
from genrl.state import GameState
from genrl.trainer.grpo_trainer import GRPOLanguageTrainerModule, GRPOTrainerConfig

from swarmd.tasks.scorer import Scorer, ScoreRequest
from tests.bench.arms import Arm
from tests.bench.common import Common
from tests.bench.loop import Side

Rewards = dict[Any, dict[Any, list[list[float]]]]


class PlainPrompts(SimpleTextDataManager):
    """GenRL's manager of text data, whose prompts are the question alone."""

    # Static: `datasets` hashes the function at every call, and a bound one takes this object along.
    @staticmethod
    def prompt_map(flattened_data: Any) -> dict[str, list[dict[str, str]]]:
        return {"prompt": [{"role": "user", "content": flattened_data["user_prompt"]}]}


def genrl_side(common: Common, scorer: Scorer, arm: Arm, rounds: int) -> Side:
    """GenRL's side for this arm."""
    datasets.disable_progress_bars()
    # Otherwise each run tells anew that gradient checkpointing has got another name, and switches the cache off.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    transformers.logging.set_verbosity_error()
    recipe = common.recipe
    settings: dict[str, Any] = {}
    if arm.our_rate:
        settings["learning_rate"] = recipe.learning_rate
    if arm.one_step:
        settings["minibatch_size"] = common.tasks_per_round * recipe.group_size
    config = GRPOTrainerConfig(
        num_generations=recipe.group_size,
        max_new_tokens=recipe.max_new_tokens,
        temperature=recipe.temperature,
        **settings,
    )
    torch.set_num_threads(recipe.threads or torch.get_num_threads())
    torch.manual_seed(recipe.seed)
    trainer = GRPOLanguageTrainerModule([common.loaded.model], config)
    if trainer.processing_class.padding_side != "left":
        raise RuntimeError("GenRL's tokenizer does not pad on the left, as its generation needs it")
    store = RewardFnStore(rounds, [RoundRewardFnStore(1, [reward_function(scorer)])])
    return Side(
        trainer=trainer,
        model=trainer.model,
        optimizer=trainer.optimizer,
        learning_rate=config.learning_rate,
        data=PlainPrompts(
            train_dataset=None,
            num_train_samples=common.tasks_per_round,
            # Not "metadata": that column is put into an Arrow table, whose rows must all be of one form.
            column_name_map={name: name for name in ("question", "answer", "dataset", "task")},
            batch_item_id_column="question",
            data_generator=task_stream(common),
        ),
        rewards=DefaultRewardManager(store),
        begin_round=lambda round: None,
    )


def task_stream(common: Common) -> Callable[..., list[dict[str, Any]]]:
    """A data generator in GenRL's sense: the tasks of the next round, from round 0 on."""
    rounds: Iterator[int] = count()

    def next_round(**_: Any) -> list[dict[str, Any]]:
        return [
            {
                "question": task.question,
                "answer": task.answer,
                "dataset": task.provenance.dataset,
                "task": task.metadata,
            }
            for task in common.tasks_of(next(rounds))
        ]

    return next_round


def reward_function(scorer: Scorer) -> Callable[[GameState], Rewards]:
    """A reward function in GenRL's sense, for a game of one stage."""

    def rewards_of(state: GameState) -> Rewards:
        requests: list[ScoreRequest] = []
        places: list[list[float]] = []
        rewards: Rewards = {}
        actions = state.get_stage_actions(0)
        for agent, trees in state.get_stage_state(0).items():
            rewards[agent] = {}
            for tree, nodes in trees.items():
                rewards[agent][tree] = [[] for _ in nodes]
                for node, world in enumerate(nodes):
                    facts = world.environment_states
                    for completion in actions[agent][tree][node]:
                        requests.append(ScoreRequest(facts["dataset"], completion, facts["answer"], facts["task"]))
                        places.append(rewards[agent][tree][node])
        for place, score in zip(places, scorer.score(requests), strict=True):
            place.append(score.value)
        return rewards

    return rewards_of
