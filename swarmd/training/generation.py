"""Sampling: every group of a round in one batch, with one pass over the prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from swarmd.training.decoder import hidden_states, plain_cache
from swarmd.training.ladder import MemoryTight, out_of_memory
from swarmd.training.rollouts import Completion
from swarmd.training.tokens import TokenizerInfo

# Rows that ended are dropped from the cache once they are this share of it: dropping copies the cache.
_COMPACT_SHARE = 0.25


class Room(Protocol):
    """Says how much may be sampled at once, and makes it less when memory runs short."""

    def portion(self) -> tuple[int, int]:
        """Rows at once (in whole groups, at least one) and a completion's most tokens, for the next batch."""

    @property
    def tight(self) -> bool:
        """Asked after each step: whether to break off this batch and begin it again in smaller ones."""

    def shrink(self, error: BaseException) -> None:
        """Makes the portions smaller after a lack of memory, or raises the error."""


def sample_groups(
    model: PreTrainedModel,
    tokens: TokenizerInfo,
    prompts: Sequence[Sequence[int]],
    group_size: int,
    max_new_tokens: int,
    temperature: float,
    generator: torch.Generator | None = None,
    rows_at_once: int | None = None,
    beat: Callable[[], None] = lambda: None,
    room: Room | None = None,
) -> list[list[Completion]]:
    """Sample `group_size` completions for each prompt.

    The prompts are read once each, then their cache is repeated for the group. Each row's noise is drawn
    before anything is sampled, one uniform number a token, so neither slicing nor dropping finished rows
    changes what a row gets. The model should be in eval mode (dropout would change its log-probs).

    Args:
        prompts: token ids, at least one each; K prompts.
        temperature: 0 takes the most probable token (log-probs are then those at temperature 1).
        generator: source of the noise, on the CPU; not used at temperature 0.
        rows_at_once: bound on rows sampled together, in whole groups (at least one); None: all K * G.
        beat: called after each step, that is one more token for all rows sampled together.
        room: bounds in place of `rows_at_once` that may become tighter on the way; what memory did not suffice for
            is sampled again in smaller batches, with the same noise.

    Returns:
        K lists of `group_size` completions, in order.

    Raises:
        ValueError: an empty prompt, or no generator at a temperature above 0.
        FloatingPointError: the model gives logits that are not finite.
        torch.OutOfMemoryError, MemoryError: memory does not suffice, and there is no room, or none left to give up.
    """
    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("an empty prompt: there is no token to predict the completion's first one from")
    if temperature > 0 and generator is None:
        raise ValueError("sampling at a temperature above 0 needs a generator")
    noise = None
    if temperature > 0:
        shape = (len(prompts) * group_size, max_new_tokens)
        noise = torch.rand(shape, generator=generator, dtype=torch.float64).to(model.device)
    completions: list[Completion] = []
    while (start := len(completions) // group_size) < len(prompts):
        rows, longest = (rows_at_once, max_new_tokens) if room is None else room.portion()
        some = prompts[start:] if rows is None else prompts[start : start + max(1, rows // group_size)]
        their_noise = None if noise is None else noise[start * group_size : (start + len(some)) * group_size]
        step = beat if room is None or len(some) == 1 else _watched(beat, room)
        try:
            completions += _sample_slice(
                model, tokens, some, group_size, min(longest, max_new_tokens), temperature, their_noise, step
            )
            continue
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if room is None or not out_of_memory(error):
                raise
            # The traceback holds the tensors that filled the memory.
            shortage = error.with_traceback(None)
        room.shrink(shortage)
    return [completions[i : i + group_size] for i in range(0, len(completions), group_size)]


def _watched(beat: Callable[[], None], room: Room) -> Callable[[], None]:
    def step() -> None:
        beat()
        if room.tight:
            raise MemoryTight("the memory's end comes near")

    return step


@torch.inference_mode()
def _sample_slice(
    model: PreTrainedModel,
    tokens: TokenizerInfo,
    prompts: Sequence[Sequence[int]],
    group_size: int,
    max_new_tokens: int,
    temperature: float,
    noise: Tensor | None,
    beat: Callable[[], None],
) -> list[Completion]:
    device, count = model.device, len(prompts) * group_size
    head = model.get_output_embeddings()
    eos = torch.tensor(tokens.eos_ids, device=device)
    cache = DynamicCache(config=model.config)
    ids, mask = _left_pad(prompts, device)
    padded = not bool(mask.all())
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    states = hidden_states(
        model, input_ids=ids, attention_mask=mask if padded else None, position_ids=positions,
        past_key_values=cache, use_cache=True,
    )  # fmt: skip
    logits = head(states[:, -1]).repeat_interleave(group_size, 0)
    cache.batch_repeat_interleave(group_size)
    mask = mask.repeat_interleave(group_size, 0)
    next_position = positions[:, -1:].repeat_interleave(group_size, 0) + 1

    sampled = torch.zeros(count, max_new_tokens, dtype=torch.long, device=device)
    logprobs = torch.zeros(count, max_new_tokens, device=device)
    lengths = torch.full((count,), max_new_tokens, device=device)
    finished = torch.zeros(count, dtype=torch.bool, device=device)
    rows = torch.arange(count, device=device)  # which completion each row of the cache belongs to
    for step in range(max_new_tokens):
        beat()
        chosen, chosen_logprobs = _choose(logits, temperature, None if noise is None else noise[rows, step])
        sampled[rows, step], logprobs[rows, step] = chosen, chosen_logprobs
        ended = torch.isin(chosen, eos) & ~finished[rows]
        lengths[rows[ended]] = step + 1
        finished[rows[ended]] = True
        going = ~finished[rows]
        left = int(going.sum())
        if left == 0 or step + 1 == max_new_tokens:
            break
        if left <= len(rows) * (1 - _COMPACT_SHARE):
            keep = going.nonzero().squeeze(1)
            cache.batch_select_indices(keep)
            rows, chosen, mask, next_position = rows[keep], chosen[keep], mask[keep], next_position[keep]
        if padded:
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
        states = hidden_states(
            model, input_ids=chosen[:, None], attention_mask=_step_mask(model, mask) if padded else None,
            position_ids=next_position, past_key_values=cache, use_cache=True,
        )  # fmt: skip
        next_position = next_position + 1
        logits = head(states[:, -1])
    return _completions(tokens, sampled, logprobs, lengths, finished)


def _left_pad(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids (K, P) and mask (K, P), 1 for text: on the left, so that the last column is every prompt's end."""
    width = max(map(len, prompts))
    ids = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _step_mask(model: PreTrainedModel, mask: Tensor) -> Tensor:
    """The mask of one decoding step, ready-made where the attention takes it so: building it costs a tenth
    of a small model's step."""
    if model.config._attn_implementation == "sdpa" and plain_cache(model):
        return mask[:, None, None, :].bool()
    return mask


def _choose(logits: Tensor, temperature: float, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    """One token a row, by inverse transform sampling, and its log-prob at `temperature`."""
    scaled = logits.float()
    if noise is not None and temperature != 1.0:
        scaled = scaled / temperature
    highest, best = scaled.max(-1, keepdim=True)
    weights = torch.exp(scaled - highest)
    # In float64: the running sum of a large vocabulary would swallow small probabilities in float32.
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    if not bool(torch.isfinite(total).all()):
        raise FloatingPointError("the model's logits are not finite numbers: its weights are damaged")
    if noise is None:
        chosen = best
    else:
        # Below the total even when the product rounds up to it; else a token of probability 0 could be taken.
        point = torch.minimum(noise[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
        chosen = torch.searchsorted(cumulative, point, right=True)
    logprob = scaled.gather(1, chosen) - highest - total.log().float()
    return chosen.squeeze(1), logprob.squeeze(1)


def _completions(
    tokens: TokenizerInfo, sampled: Tensor, logprobs: Tensor, lengths: Tensor, finished: Tensor
) -> list[Completion]:
    result = []
    rows = zip(sampled.tolist(), logprobs.tolist(), lengths.tolist(), finished.tolist(), strict=True)
    for ids, values, length, ended in rows:
        text = tokens.text(ids[: length - 1] if ended else ids[:length])
        result.append(Completion(text, ids[:length], values[:length], ended))
    return result
