"""AdamW for fp32 weights, and for bf16 weights whose updates are rounded stochastically.

A bf16 number has 8 significant bits: an update under 1/512 of its weight is lost when rounded to the nearest,
and at the learning rates of reinforcement learning nearly all of them are. Rounding up or down with the
probability of the remainder keeps them in the mean (Zamirai et al., "Revisiting BFloat16 Training",
arXiv 2010.06192).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from swarmd.training.recipe import Recipe

_CHUNK = 1 << 20  # elements whose fp32 copies are alive at once in a bf16 step


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over the model's trainable weights; weight decay on matrices only.

    For "bf16-sr" the gradients are made fp32 tensors: summed over micro-batches in bf16 they would lose what
    small micro-batches add.

    Raises:
        ValueError: the weights' dtype does not fit the recipe's precision.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    wanted = torch.float32 if recipe.precision == "fp32" else torch.bfloat16
    wrong = {str(p.dtype) for p in weights} - {str(wanted)}
    if wrong:
        raise ValueError(
            f"precision {recipe.precision} trains {wanted} weights, the model has {', '.join(sorted(wrong))}"
        )
    groups = [
        {"params": [p for p in weights if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    betas = (recipe.beta1, recipe.beta2)
    if recipe.precision == "fp32":
        # fused: one pass over memory; on a CPU 2-3 times as fast as torch's other two.
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=betas, eps=recipe.eps, fused=True)
    for weight in weights:
        weight.grad_dtype = torch.float32
    return StochasticAdamW(groups, lr=recipe.learning_rate, betas=betas, eps=recipe.eps, seed=recipe.seed)


def convert(optimizer: torch.optim.Optimizer, model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Brings weights and optimizer states to the recipe's precision, in place and one by one; the new optimizer.

    Rounded to the nearest, as a model is when it is loaded: this happens once, so nothing drifts. Gradients stay.
    """
    dtype = torch.float32 if recipe.precision == "fp32" else torch.bfloat16
    gradients = []
    for weight in model.parameters():
        gradients.append(weight.grad)
        weight.grad = None
        weight.data = weight.data.to(dtype)
        state = optimizer.state.get(weight, {})
        for kind in state.keys() - {"step"}:
            state[kind] = state[kind].to(dtype)
    made = make_optimizer(model, recipe)
    made.state.update(optimizer.state)
    for weight, gradient in zip(model.parameters(), gradients, strict=True):
        weight.grad = gradient
    return made


def prepare_states(optimizer: torch.optim.Optimizer) -> None:
    """Makes the states that the first step would make: where memory does not suffice for them, no weight has moved.

    Raises:
        torch.OutOfMemoryError, MemoryError, RuntimeError: as the allocator says it; may be called again.
    """
    for group in optimizer.param_groups:
        for weight in group["params"]:
            if weight.grad is None or optimizer.state[weight]:
                continue
            moments = {kind: torch.zeros_like(weight) for kind in ("exp_avg", "exp_avg_sq")}
            step = torch.zeros((), dtype=torch.float32, device=weight.device)
            optimizer.state[weight].update(step=step, **moments)


def learning_rate(recipe: Recipe, steps_done: int, scale: float) -> float:
    """The rate of the next step: linear warm-up to the recipe's, times `scale`."""
    warm = min(1.0, (steps_done + 1) / max(1, recipe.warmup_rounds))
    return recipe.learning_rate * warm * scale


class StochasticAdamW(torch.optim.Optimizer):
    """AdamW on bf16 weights: fp32 mathematics, weights and both moments kept in bf16 by stochastic rounding.

    A second moment rounded to the nearest could never decay: 0.999 v rounds back to v. 6 bytes a parameter,
    and 4 for the fp32 gradient. The noise comes from (seed, step, weight): a repeated step is the same step.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.seed = seed

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # torch's closure is of no use here
        """One step on every weight that has a gradient."""
        prepare_states(self)
        number = 0
        for group in self.param_groups:
            for weight in group["params"]:
                number += 1
                if weight.grad is None:
                    continue
                state = self.state[weight]
                state["step"] += 1
                generator = torch.Generator(device=weight.device)
                generator.manual_seed(_noise_seed(self.seed, int(state["step"]), number))
                self._update(weight, weight.grad, state, group, generator)

    def _update(
        self,
        weight: Tensor,
        gradients: Tensor,
        state: dict[str, Tensor],
        group: dict[str, Any],
        generator: torch.Generator,
    ) -> None:
        beta1, beta2 = group["betas"]
        step = float(state["step"])
        rate = group["lr"] / (1 - beta1**step)
        correction = (1 - beta2**step) ** 0.5
        flat = [t.view(-1) for t in (weight, gradients, state["exp_avg"], state["exp_avg_sq"])]
        for parts in zip(*(t.split(_CHUNK) for t in flat), strict=True):
            w, gradient, m, v = (t.float() for t in parts)
            m.lerp_(gradient, 1 - beta1)
            v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            w.mul_(1 - group["lr"] * group["weight_decay"])
            w.addcdiv_(m, (v.sqrt() / correction).add_(group["eps"]), value=-rate)
            # 64 random bits an element: 16 for each of the three numbers that are rounded.
            noise = torch.empty(w.shape, dtype=torch.int64, device=w.device).random_(generator=generator)
            for shift, target, value in ((0, parts[0], w), (16, parts[2], m), (32, parts[3], v)):
                target.copy_(round_stochastically(value, (noise >> shift).bitwise_and_(0xFFFF).int()))


def round_stochastically(value: Tensor, noise: Tensor) -> Tensor:
    """fp32 `value` to bf16, away from zero with the probability of the bits that are cut off.

    Args:
        noise: int32, uniform in [0, 65536), of the same shape.
    """
    bits = (value.view(torch.int32) + noise).bitwise_and_(-65536)
    rounded = bits.view(torch.float32).to(torch.bfloat16)
    # Adding bits to an infinity or NaN would make another number of it.
    return torch.where(torch.isfinite(value), rounded, value.to(torch.bfloat16))


def _noise_seed(seed: int, step: int, number: int) -> int:
    mixed = (seed * 0x9E3779B97F4A7C15 + step) * 0xBF58476D1CE4E5B9 + number
    return mixed % (1 << 63)
