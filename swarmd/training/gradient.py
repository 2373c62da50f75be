"""One round's gradient, micro-batch by micro-batch, in the memory there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from swarmd.system.events import event
from swarmd.training.batching import MicroBatch, Row, micro_batches
from swarmd.training.decoder import output_weight, plain_cache, predicting_states
from swarmd.training.grpo import policy_loss
from swarmd.training.logprobs import completion_logprobs
from swarmd.training.recipe import Recipe


@dataclass(frozen=True)
class GradientPass:
    """What a pass over the rows found, besides the gradients it left in the model.

    Attributes:
        loss: of the round.
        clipped: tokens whose ratio was clipped.
        logprob_gap: mean |training - sampling log-prob| over tokens whose sampling log-prob is known;
            None where there are none.
        entropy: mean of -log p over the same tokens, in nats: an estimate of the policy's entropy.
        micro_batches: how many.
        token_budget: the one it got through with.
    """

    loss: float
    clipped: int
    logprob_gap: float | None
    entropy: float | None
    micro_batches: int
    token_budget: int


def accumulate_gradient(
    model: PreTrainedModel, rows: Sequence[Row], recipe: Recipe, token_budget: int
) -> GradientPass:
    """Adds the gradient of the round's loss to the model's (zero before) gradients.

    Where memory runs out, everything is begun again with half the token budget, down to one row at a time:
    the sum over micro-batches is the same.

    Args:
        rows: with at least one completion token among them.

    Raises:
        torch.OutOfMemoryError, MemoryError: a single row does not fit; the gradients are cleared.
    """
    longest = max(len(row.prompt_ids) + len(row.completion_ids) for row in rows)
    while True:
        shortage: str
        try:
            return _accumulate(model, rows, recipe, token_budget)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            model.zero_grad(set_to_none=True)
            if token_budget <= longest:
                raise
            # The error's traceback holds the tensors that filled the memory: keep only its text.
            shortage = (str(error).strip().splitlines() or [type(error).__name__])[0]
        budget = max(longest, token_budget // 2)
        event(
            "memory_stepped_down",
            f"out of memory with {token_budget} tokens in a micro-batch ({shortage}); going on with {budget}",
            priority=4,
            token_budget=budget,
        )
        token_budget = budget
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out. Torch's CPU allocator says it with a plain RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _accumulate(
    model: PreTrainedModel, rows: Sequence[Row], recipe: Recipe, token_budget: int
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
        batches += 1
        loss += float(part.loss.detach())
        clipped += part.clipped
        known_tokens += int(known.sum())
        gap += float((detached - old).abs().sum())
        negative -= float(detached[known].sum())
    return GradientPass(
        loss=loss,
        clipped=clipped,
        logprob_gap=gap / known_tokens if known_tokens else None,
        entropy=negative / known_tokens if known_tokens else None,
        micro_batches=batches,
        token_budget=token_budget,
    )


def token_logprobs(model: PreTrainedModel, batch: MicroBatch, temperature: float) -> torch.Tensor:
    """Log-probs (N,) of the micro-batch's completion tokens, differentiable."""
    states = predicting_states(model, batch)
    return completion_logprobs(states, output_weight(model), batch.targets, temperature)
