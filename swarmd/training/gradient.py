"""One round's gradient, micro-batch by micro-batch, in the memory there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from swarmd.training.batching import MicroBatch, Row, micro_batches
from swarmd.training.decoder import output_weight, plain_cache, predicting_states
from swarmd.training.grpo import policy_loss
from swarmd.training.ladder import out_of_memory
from swarmd.training.logprobs import completion_logprobs
from swarmd.training.plausibility import Plausibility
from swarmd.training.recipe import Recipe


@dataclass(frozen=True)
class GradientPass:
    """What a pass over the rows found, besides the gradients it left in the model.

    Attributes:
        loss: of the round.
        tokens: trained on, those of implausible completions not among them.
        implausible: completions that were left out, by peer.
        clipped: tokens whose ratio was clipped.
        logprob_gap: mean |training - sampling log-prob| over tokens whose sampling log-prob is known;
            None where there are none.
        entropy: mean of -log p over the same tokens, in nats: an estimate of the policy's entropy.
        micro_batches: how many.
        token_budget: the last micro-batch's.
    """

    loss: float
    tokens: int
    implausible: Mapping[str, int]
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
    plausibility: Plausibility | None = None,
) -> GradientPass:
    """Adds the gradient of the round's loss to the model's (zero before) gradients.

    Where memory runs out, everything is begun again after `shrink`; the sum over micro-batches is the same however
    they are cut.

    Args:
        rows: with at least one completion token among them.
        token_budget: padded tokens in a micro-batch, or what says so before each; at least one row is taken.
        beat: called after each micro-batch, when nothing is half done.
        plausibility: the measure for peers' rows; those under it get no part in the gradient, which is then that of
            the others alone. None: all are taken.
        shrink: told of the lack of memory when the gradients are cleared; makes the budget less, or raises.

    Raises:
        torch.OutOfMemoryError, MemoryError: there is no `shrink`, or it raised; the gradients are cleared.
    """
    while True:
        try:
            return _accumulate(model, rows, recipe, token_budget, beat, plausibility)
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
    plausibility: Plausibility | None,
) -> GradientPass:
    tokens = sum(len(row.completion_ids) for row in rows)
    left_out = 0
    implausible: Counter[str] = Counter()
    loss = gap = negative = 0.0
    clipped = known_tokens = batches = 0
    for batch in micro_batches(rows, token_budget, model.device, mixed_prompts=plain_cache(model)):
        logprobs = token_logprobs(model, batch, recipe.temperature)
        detached = logprobs.detach()
        known = ~torch.isnan(batch.old_logprobs)
        old = torch.where(known, batch.old_logprobs, detached)
        weights = batch.advantages
        if plausibility is not None and any(batch.peers):
            strange = _implausible(batch, detached, plausibility)
            weights = weights.masked_fill(strange.repeat_interleave(batch.tokens.sum(1)), 0.0)
            left_out += int(batch.tokens[strange].sum())
            implausible.update(peer for peer, out in zip(batch.peers, strange.tolist(), strict=True) if out)
        part = policy_loss(logprobs, old, weights, recipe.clip_low, recipe.clip_high, tokens)
        part.loss.backward()
        beat()
        batches += 1
        loss += float(part.loss.detach())
        clipped += part.clipped
        known_tokens += int(known.sum())
        gap += float((detached - old).abs().sum())
        negative -= float(detached[known].sum())
    if 0 < left_out < tokens:
        # Each part was divided by the tokens of all: how many are left out shows in the last one only.
        loss *= _enlarge(model, tokens / (tokens - left_out))
    return GradientPass(
        loss=loss,
        tokens=tokens - left_out,
        implausible=implausible,
        clipped=clipped,
        logprob_gap=gap / known_tokens if known_tokens else None,
        entropy=negative / known_tokens if known_tokens else None,
        micro_batches=batches,
        token_budget=token_budget() if callable(token_budget) else token_budget,
    )


def _implausible(batch: MicroBatch, logprobs: torch.Tensor, plausibility: Plausibility) -> torch.Tensor:
    """(B,) true for peers' completions that the measure refuses. logprobs: (N,) of the completions' tokens."""
    by_row = logprobs.float().cpu().split(batch.tokens.sum(1).tolist())
    refused = [
        bool(peer) and not plausibility.likely(row.tolist()) for peer, row in zip(batch.peers, by_row, strict=True)
    ]
    return torch.tensor(refused, device=logprobs.device)


def _enlarge(model: PreTrainedModel, factor: float) -> float:
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(factor)
    return factor


def token_logprobs(model: PreTrainedModel, batch: MicroBatch, temperature: float) -> torch.Tensor:
    """Log-probs (N,) of the micro-batch's completion tokens, differentiable."""
    states = predicting_states(model, batch)
    return completion_logprobs(states, output_weight(model), batch.targets, temperature)
