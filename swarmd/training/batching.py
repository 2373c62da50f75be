"""Completions packed into micro-batches of bounded size, each prompt in them once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """One completion to train on. `logprobs` are the sampling policy's, None where unknown."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    advantage: float


@dataclass(frozen=True)
class MicroBatch:
    """B completions of K prompts, both padded on the right, and the N completion tokens in them.

    Padding stands where no real token sees it: right of the completions by causality, right of the prompts by
    `prompt_mask`. Positions run on from the prompt's true length.

    Attributes:
        prompt_ids: (K, P).
        prompt_lengths: (K,).
        owner: (B,) each completion's prompt.
        completion_ids: (B, C), end tokens included; the model is not given the last column, which predicts
            nothing that is trained.
        tokens: (B, C) true where there is a completion token, N in all.
        old_logprobs: (N,) sampling log-probs; NaN where unknown.
        advantages: (N,).
    """

    prompt_ids: Tensor
    prompt_lengths: Tensor
    owner: Tensor
    completion_ids: Tensor
    tokens: Tensor
    old_logprobs: Tensor
    advantages: Tensor

    @property
    def prompt_mask(self) -> Tensor:
        """(K, P) true where there is a prompt token."""
        columns = torch.arange(self.prompt_ids.shape[1], device=self.prompt_ids.device)
        return columns < self.prompt_lengths[:, None]

    @property
    def targets(self) -> Tensor:
        """(N,) the completion tokens."""
        return self.completion_ids[self.tokens]


def micro_batches(
    rows: Sequence[Row],
    token_budget: int | Callable[[], int],
    device: torch.device,
    mixed_prompts: bool = True,
) -> Iterator[MicroBatch]:
    """Split `rows` so that none has more than `token_budget` tokens: B * (P + C), padding included.

    Completions of one prompt stay together, because their prompt is then computed once; longest first, so
    that like lengths share a batch and a lack of memory shows at once. A row longer than the budget is a
    micro-batch of its own. Empty completions are left out.

    Args:
        token_budget: the bound, or what says it while each micro-batch is filled.
        mixed_prompts: whether prompts of different lengths may share a micro-batch. False for models whose
            cache cannot have gaps (sliding windows).
    """
    waiting = sorted(
        (row for row in rows if row.completion_ids),
        key=lambda row: (-len(row.prompt_ids), row.prompt_ids, -len(row.completion_ids)),
    )
    taken: list[Row] = []
    longest = 0  # completion in `taken`; its longest prompt is the first
    for row in waiting:
        if taken:
            prompt = len(taken[0].prompt_ids)
            completion = max(longest, len(row.completion_ids))
            budget = token_budget() if callable(token_budget) else token_budget
            full = (len(taken) + 1) * (prompt + completion) > budget
            if full or (not mixed_prompts and len(row.prompt_ids) != prompt):
                yield _pad(taken, device)
                taken, longest = [], 0
        taken.append(row)
        longest = max(longest, len(row.completion_ids))
    if taken:
        yield _pad(taken, device)


def _pad(rows: Sequence[Row], device: torch.device) -> MicroBatch:
    by_prompt = [(prompt, list(group)) for prompt, group in groupby(rows, key=lambda row: row.prompt_ids)]
    prompts = [prompt for prompt, _ in by_prompt]
    lengths = torch.tensor([len(row.completion_ids) for row in rows])
    completions = _right_pad([row.completion_ids for row in rows])
    old: list[float] = []
    for row in rows:
        old += row.logprobs if row.logprobs is not None else [float("nan")] * len(row.completion_ids)
    advantages = torch.tensor([row.advantage for row in rows]).repeat_interleave(lengths)
    owner = [index for index, (_, group) in enumerate(by_prompt) for _ in group]
    return MicroBatch(
        prompt_ids=_right_pad(prompts).to(device),
        prompt_lengths=torch.tensor([len(prompt) for prompt in prompts], device=device),
        owner=torch.tensor(owner, device=device),
        completion_ids=completions.to(device),
        tokens=(torch.arange(completions.shape[1]) < lengths[:, None]).to(device),
        old_logprobs=torch.tensor(old, device=device),
        advantages=advantages.to(device),
    )


def _right_pad(texts: Sequence[tuple[int, ...]]) -> Tensor:
    # What stands in the padding is read by nobody; 0 is an id that every vocabulary has.
    width = max(map(len, texts))
    return torch.tensor([[*text, *[0] * (width - len(text))] for text in texts])
