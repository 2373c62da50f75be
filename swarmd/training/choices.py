"""What "auto" in the configuration means for the model at hand."""

from __future__ import annotations

from swarmd.config.training import Training
from swarmd.training.memory import MemoryPlan
from swarmd.training.models import EMBEDDED, LoadedModel
from swarmd.training.recipe import Recipe

# Found by trial on the embedded mix (see README, "Does it learn?"): twice as much collapses within minutes.
_EMBEDDED_RATE = 6e-5
# The usual rate for GRPO on all weights of a model of 0.5 to 2 billion parameters (TRL's and GenRL's default).
_RATE = 1e-6
# The embedded model answers in a few tokens; an instruct model thinks aloud first.
_EMBEDDED_TOKENS = 16
_TOKENS = 512
# Below this size a second thread costs more in synchronising than it computes.
_SINGLE_THREAD_PARAMETERS = 10_000_000


def max_new_tokens(training: Training, model_name: str) -> int:
    """The longest completion, in tokens."""
    if training.max_new_tokens != "auto":
        return training.max_new_tokens
    return _EMBEDDED_TOKENS if model_name == EMBEDDED else _TOKENS


def base_learning_rate(training: Training, model_name: str) -> float:
    """The optimizer's step size after the warm-up."""
    if training.learning_rate != "auto":
        return training.learning_rate
    return _EMBEDDED_RATE if model_name == EMBEDDED else _RATE


def recipe_for(training: Training, model: LoadedModel, plan: MemoryPlan, seed: int) -> Recipe:
    """The recipe for a loaded model under a memory plan; `seed` stands in where the configuration has none."""
    threads = training.threads if training.threads != "auto" else int(model.parameters < _SINGLE_THREAD_PARAMETERS)
    return Recipe(
        group_size=training.group_size,
        max_new_tokens=max_new_tokens(training, model.name),
        temperature=training.temperature,
        learning_rate=base_learning_rate(training, model.name),
        warmup_rounds=training.warmup_rounds,
        clip_low=training.clip_low,
        clip_high=training.clip_high,
        max_grad_norm=training.max_grad_norm,
        weight_decay=training.weight_decay,
        beta1=training.beta1,
        beta2=training.beta2,
        token_budget=plan.token_budget,
        precision=plan.mode,
        seed=seed,
        threads=threads,
    )
