"""The numbers that say how a model is sampled and trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "bf16-sr"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16-sr")


@dataclass(frozen=True)
class Recipe:
    """How to sample and how to learn. The configuration checks bounds and names files; here are the meanings.

    Attributes:
        group_size: completions sampled for each prompt (G). The advantage compares within the group.
        max_new_tokens: a completion's longest length, end token included.
        temperature: logits are divided by it in sampling and in training alike; > 0.
        learning_rate: of AdamW, after warm-up.
        warmup_rounds: optimizer steps over which the rate rises linearly; rounds without signal take none.
        clip_low, clip_high: the probability ratio is clipped to [1 - low, 1 + high]; unequal values are
            DAPO's "clip-higher" (arXiv 2503.14476).
        max_grad_norm: the gradient's global L2 norm is scaled down to this.
        weight_decay: decoupled (AdamW), on matrices only: it would pull norms and biases towards zero.
        beta1, beta2, eps: AdamW's.
        token_budget: padded tokens in one micro-batch; changes memory and time, not the result.
        precision: "fp32", or "bf16-sr" (bf16 weights whose updates are rounded stochastically).
        seed: from which, with the round's number, all noise is derived.
        threads: torch's intra-op threads; 0 leaves torch's own choice.
    """

    group_size: int
    max_new_tokens: int
    temperature: float
    learning_rate: float
    warmup_rounds: int = 0
    clip_low: float = 0.2
    clip_high: float = 0.28
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    token_budget: int = 4096
    precision: Precision = "fp32"
    seed: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("group_size", "max_new_tokens", "token_budget"):
            if getattr(self, name) < 1:
                raise ValueError(f"recipe: {name} is {getattr(self, name)}, must be at least 1")
        for name in ("temperature", "learning_rate", "max_grad_norm", "eps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"recipe: {name} is {getattr(self, name)}, must be above 0")
        if self.precision not in PRECISIONS:
            raise ValueError(f"recipe: precision is {self.precision!r}, not one of {', '.join(PRECISIONS)}")
