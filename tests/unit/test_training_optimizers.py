"""bf16 weights with stochastic rounding move as far as fp32 ones; plain bf16 weights hardly move."""

from __future__ import annotations

import pytest
import torch

from swarmd.training.optimizers import (
    StochasticAdamW,
    learning_rate,
    make_optimizer,
    round_stochastically,
)
from swarmd.training.recipe import Recipe
from tests.models import small_model

COUNT, STEPS = 1 << 16, 200


def displacement(rate: float, dtype: torch.dtype, stochastic: bool) -> float:
    """Mean way of weights N(0, 0.02) under a constant gradient of 1 with noise of the same size, 200 steps."""
    noise = torch.Generator().manual_seed(1)
    start = torch.randn(COUNT, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16().to(dtype)
    weight = torch.nn.Parameter(start.clone())
    optimizer: torch.optim.Optimizer
    if stochastic:
        optimizer = StochasticAdamW([weight], lr=rate)
        weight.grad_dtype = torch.float32
    else:
        optimizer = torch.optim.AdamW([weight], lr=rate, weight_decay=0.0)
    for _ in range(STEPS):
        gradient = 1 + torch.randn(COUNT, generator=noise)
        weight.grad = gradient if stochastic else gradient.to(dtype)
        optimizer.step()
    return float((weight.detach().double() - start.double()).mean())


@pytest.mark.parametrize("rate", [1e-5, 1e-6])
def test_bf16_weights_with_stochastic_rounding_move_as_far_as_fp32_ones_and_plain_ones_do_not(rate):
    exact = displacement(rate, torch.float32, stochastic=False)
    rounded = displacement(rate, torch.bfloat16, stochastic=True)
    plain = displacement(rate, torch.bfloat16, stochastic=False)
    short = exact / plain
    print(f"rate {rate:g}: fp32 {exact:.3e}, bf16-sr {rounded:.3e}, plain bf16 {plain:.3e}, {short:.1f} x short")
    assert exact < 0
    assert abs(rounded / exact - 1) < 0.05
    assert abs(plain) < abs(exact) / 4


def test_rounding_is_right_in_the_mean_and_exact_for_what_bf16_can_hold():
    value = torch.full((1 << 18,), 1.0 + 2**-7 * 0.3)
    noise = torch.randint(0, 1 << 16, value.shape, dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    rounded = round_stochastically(value, noise).float()
    assert set(rounded.tolist()) == {1.0, 1.0 + 2**-7}
    assert float((rounded - 1).mean()) == pytest.approx(2**-7 * 0.3, rel=0.02)
    held = torch.tensor([0.0, -0.0, 1.5, -3.0, 2.0**-130, float("inf"), -float("inf")])
    for noise_value in (0, 0xFFFF):
        kept = round_stochastically(held, torch.full_like(held, noise_value, dtype=torch.int32)).float()
        assert torch.equal(kept, held)
    assert torch.isnan(round_stochastically(torch.tensor([float("nan")]), torch.tensor([5], dtype=torch.int32)))


def test_a_repeated_bf16_step_is_the_same_step_and_another_seed_gives_another():
    def run(seed: int) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 5000).bfloat16())
        weight.grad_dtype = torch.float32
        optimizer = StochasticAdamW([weight], lr=1e-4, seed=seed)
        for _ in range(3):
            weight.grad = torch.linspace(1, 2, 5000)
            optimizer.step()
        return weight.detach()

    assert torch.equal(run(7), run(7))
    assert not torch.equal(run(7), run(8))


def test_the_stochastic_optimizer_follows_torchs_adamw():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(3000, dtype=t)) for t in (torch.bfloat16, torch.float32))
    ours.grad_dtype = torch.float32
    mine = StochasticAdamW([ours], lr=1e-2, betas=(0.8, 0.95), weight_decay=0.1)
    other = torch.optim.AdamW([theirs], lr=1e-2, betas=(0.8, 0.95), weight_decay=0.1)
    for step in range(20):
        gradient = torch.full((3000,), 0.5 if step % 3 else -1.0)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        other.step()
    assert float(ours.detach().float().mean()) == pytest.approx(float(theirs.detach().mean()), abs=1e-3)


def test_bf16_gradients_are_summed_in_fp32():
    model = small_model(dtype=torch.bfloat16)
    make_optimizer(model, Recipe(2, 8, 1.0, 1e-5, precision="bf16-sr"))
    weight = model.model.norm.weight
    for _ in range(1000):
        (weight.sum() * 2**-10).backward()
    assert weight.grad.dtype == torch.float32
    assert torch.allclose(weight.grad, torch.tensor(1000 * 2**-10))  # in bf16 it stops growing at 0.25


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.bfloat16), ("bf16-sr", torch.float32)])
def test_a_model_in_another_number_format_than_the_recipes_is_refused(precision, dtype):
    with pytest.raises(ValueError, match=f"precision {precision} trains"):
        make_optimizer(small_model(dtype=dtype), Recipe(2, 8, 1.0, 1e-5, precision=precision))


def test_weight_decay_spares_norms_and_biases():
    groups = make_optimizer(small_model(), Recipe(2, 8, 1.0, 1e-5, weight_decay=0.1)).param_groups
    assert {(p.ndim >= 2, group["weight_decay"]) for group in groups for p in group["params"]} == {
        (True, 0.1),
        (False, 0.0),
    }


def test_the_learning_rate_rises_over_the_warm_up_and_is_scaled():
    recipe = Recipe(2, 8, 1.0, learning_rate=1.0, warmup_rounds=4)
    assert [learning_rate(recipe, step, 1.0) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert learning_rate(recipe, 9, 0.5) == 0.5
    assert learning_rate(Recipe(2, 8, 1.0, learning_rate=1.0), 0, 1.0) == 1.0


@pytest.mark.parametrize(
    "wrong", [{"group_size": 0}, {"temperature": 0.0}, {"learning_rate": float("nan")}, {"precision": "fp16"}]
)
def test_an_impossible_recipe_is_refused(wrong):
    with pytest.raises(ValueError, match=f"recipe: {next(iter(wrong))}"):
        Recipe(**{"group_size": 2, "max_new_tokens": 8, "temperature": 1.0, "learning_rate": 1e-5, **wrong})
