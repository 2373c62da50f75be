"""One round's gradient, micro-batch by micro-batch, in the memory there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from swarmd.training.batching import MicroBatch, Row, micro_batches
from swarmd.training.decoder import output_weight, plain_cache, predicting_states
from swarmd.training.grpo import policy_loss
from swarmd.training.ladder import out_of_memory
from swarmd.training.logprobs import completion_logprobs
from swarmd.training.plausibility import Plausibility
from swarmd.training.recipe import Recipe

Result = TypeVar("Result")


@dataclass(frozen=True)
class GradientPass:
    """What a pass over the rows found, besides the gradients it left in the model.

    Attributes:
        loss: of the round.
        tokens: trained on.
        clipped: tokens whose ratio was clipped.
        logprob_gap: mean |training - sampling log-prob| over tokens whose sampling log-prob is known;
            None where there are none.
        entropy: mean of -log p over the same tokens, in nats: an estimate of the policy's entropy.
        micro_batches: how many.
        token_budget: the last micro-batch's.
    """

    loss: float
    tokens: int
    clipped: int
    logprob_gap: float | None
    entropy: float | None
    micro_batches: int
    token_budget: int


def accumulate_gradient(
    model: PreTrainedModel,
    rows: Sequence[Row],
    recipe: Recipe,
    token_budget: int | Callable[[], int],
    beat: Callable[[], None] = lambda: None,
    shrink: Callable[[BaseException], None] | None = None,
) -> GradientPass:
    """Adds the gradient of the round's loss to the model's (zero before) gradients.

    Where memory runs out, everything is begun again after `shrink`; the sum over micro-batches is the same however
    they are cut.

    Args:
        rows: with at least one completion token among them.
        token_budget: padded tokens in a micro-batch, or what says so before each; at least one row is taken.
        beat: called after each micro-batch, when nothing is half done.
        shrink: told of the lack of memory when the gradients are cleared; makes the budget less, or raises.

    Raises:
        torch.OutOfMemoryError, MemoryError: there is no `shrink`, or it raised; the gradients are cleared.
    """
    return _with_room(lambda: _accumulate(model, rows, recipe, token_budget, beat), model, shrink)


def all_likely(
    model: PreTrainedModel,
    rows: Sequence[Row],
    temperature: float,
    token_budget: int | Callable[[], int],
    measure: Plausibility,
    beat: Callable[[], None] = lambda: None,
    shrink: Callable[[BaseException], None] | None = None,
) -> bool:
    """Whether the model, as it is now, could have written each of a group's completions.

    A forward pass without gradients, ended by the first completion that is refused. It comes before any backward
    pass, since a group is trained on whole or not at all: of the gradient of a sum nothing can be taken back. Beside
    what training on the group costs, that is a third to a half more; one that is refused is not trained on.

    Args: as for `accumulate_gradient`.

    Raises:
        torch.OutOfMemoryError, MemoryError: as `accumulate_gradient`.
    """
    return _with_room(lambda: _all_likely(model, rows, temperature, token_budget, measure, beat), model, shrink)


@torch.no_grad()
def _all_likely(
    model: PreTrainedModel,
    rows: Sequence[Row],
    temperature: float,
    token_budget: int | Callable[[], int],
    measure: Plausibility,
    beat: Callable[[], None],
) -> bool:
    for batch in micro_batches(rows, token_budget, model.device, mixed_prompts=plain_cache(model)):
        logprobs = token_logprobs(model, batch, temperature).float().cpu()
        beat()
        if not all(measure.likely(row.tolist()) for row in logprobs.split(batch.tokens.sum(1).tolist())):
            return False
    return True


def _with_room(
    work: Callable[[], Result], model: PreTrainedModel, shrink: Callable[[BaseException], None] | None
) -> Result:
    """What work() returns; where memory runs out, the gradients are cleared and it is begun again after `shrink`."""
    while True:
        try:
            return work()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            model.zero_grad(set_to_none=True)
            if shrink is None:
                raise
            # The traceback holds the tensors that filled the memory.
            shortage = error.with_traceback(None)
        shrink(shortage)


def _accumulate(
    model: PreTrainedModel,
    rows: Sequence[Row],
    recipe: Recipe,
    token_budget: int | Callable[[], int],
    beat: Callable[[], None],
) -> GradientPass:
    tokens = sum(len(row.completion_ids) for row in rows)
    loss = gap = negative = 0.0
    clipped = known_tokens = batches = 0
    for batch in micro_batches(rows, token_budget, model.device, mixed_prompts=plain_cache(model)):
        logprobs = token_logprobs(model, batch, recipe.temperature)
        detached = logprobs.detach()
        known = ~torch.isnan(batch.old_logprobs)
        old = torch.where(known, batch.old_logprobs, detached)
        part = policy_loss(logprobs, old, batch.advantages, recipe.clip_low, recipe.clip_high, tokens)
        part.loss.backward()
        beat()
        batches += 1
        loss += float(part.loss.detach())
        clipped += part.clipped
        known_tokens += int(known.sum())
        gap += float((detached - old).abs().sum())
        negative -= float(detached[known].sum())
    return GradientPass(
        loss=loss,
        tokens=tokens,
        clipped=clipped,
        logprob_gap=gap / known_tokens if known_tokens else None,
        entropy=negative / known_tokens if known_tokens else None,
        micro_batches=batches,
        token_budget=token_budget() if callable(token_budget) else token_budget,
    )


def token_logprobs(model: PreTrainedModel, batch: MicroBatch, temperature: float) -> torch.Tensor:
    """Log-probs (N,) of the micro-batch's completion tokens, differentiable."""
    states = predicting_states(model, batch)
    return completion_logprobs(states, output_weight(model), batch.targets, temperature)
