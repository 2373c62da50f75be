"""Group relative policy optimisation: the advantage and the loss, as pure functions.

GRPO: arXiv 2402.03300. From DAPO (arXiv 2503.14476): a higher upper clip bound, every token of the round
weighing the same whatever the length of its completion, no KL term.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_EPSILON = 1e-8  # only against a division by the smallest deviations; equal rewards never reach it


@dataclass(frozen=True)
class PolicyLoss:
    """A micro-batch's share of the round's loss (scalar, differentiable) and how many tokens were clipped."""

    loss: Tensor
    clipped: int


def advantages(rewards: Sequence[float]) -> tuple[float, ...]:
    """Each reward's distance from the group's mean, in standard deviations (n - 1 in the denominator).

    All zero when the rewards are equal or there is only one: then nothing can be learned from the group.

    Raises:
        ValueError: a reward that is not a finite number.
    """
    if not all(map(math.isfinite, rewards)):
        raise ValueError(f"rewards must be finite numbers, got {list(rewards)}")
    if not rewards or min(rewards) == max(rewards):
        return (0.0,) * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    deviation = math.sqrt(math.fsum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
    return tuple((r - mean) / (deviation + _EPSILON) for r in rewards)


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    token_advantages: Tensor,
    clip_low: float,
    clip_high: float,
    round_tokens: int,
) -> PolicyLoss:
    """The clipped policy-gradient loss of some of a round's tokens.

    Args:
        logprobs: (N,) under the policy being trained.
        old_logprobs: (N,) under the policy that sampled the tokens, no gradient.
        token_advantages: (N,) each token's completion's advantage.
        clip_low, clip_high: the ratio is clipped to [1 - low, 1 + high].
        round_tokens: completion tokens trained on in the whole round. The sum, not the micro-batch's mean, is
            divided by it, so that the gradients of micro-batches add up to exactly the round's.
    """
    ratio = torch.exp(logprobs - old_logprobs)
    free = ratio * token_advantages
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high) * token_advantages
    loss = -torch.minimum(free, bounded).sum() / round_tokens
    return PolicyLoss(loss, int((bounded < free).sum()))
