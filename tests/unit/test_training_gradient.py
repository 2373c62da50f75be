"""Advantages, loss, micro-batches: the gradient of a round is the same however the round is cut."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.training import gradient
from swarmd.training.batching import Row, micro_batches
from swarmd.training.gradient import accumulate_gradient, token_logprobs
from swarmd.training.grpo import advantages, policy_loss
from swarmd.training.recipe import Recipe
from tests.models import small_model

CPU = torch.device("cpu")
RECIPE = Recipe(group_size=4, max_new_tokens=8, temperature=0.8, learning_rate=1e-3)


def some_rows(seed: int = 0, known: bool = False) -> list[Row]:
    """Ragged groups of three prompts of different lengths."""
    chance = random.Random(seed)
    rows = []
    for prompt_length, group_size in ((5, 4), (2, 3), (9, 6)):
        prompt = tuple(chance.randrange(3, 90) for _ in range(prompt_length))
        for _ in range(group_size):
            completion = tuple(chance.randrange(3, 90) for _ in range(chance.randrange(1, 9)))
            old = tuple(-chance.random() * 8 for _ in completion) if known else None
            rows.append(Row(prompt, completion, old, chance.uniform(-2, 2)))
    return rows


def gradient_of(rows, token_budget):
    model = small_model()
    done = accumulate_gradient(model, rows, RECIPE, token_budget)
    return {name: p.grad.clone() for name, p in model.named_parameters()}, done


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12))
def test_advantages_have_mean_zero_and_keep_the_rewards_order(rewards):
    found = advantages(rewards)
    assert math.isclose(math.fsum(found), 0, abs_tol=1e-5)
    ordered = [advantage for _, advantage in sorted(zip(rewards, found, strict=True))]
    assert ordered == sorted(found)


@given(st.floats(-1e300, 1e300), st.integers(0, 9))
def test_equal_rewards_have_advantage_zero_to_the_bit(reward, count):
    assert advantages([reward] * count) == (0.0,) * count


def test_advantages_are_distances_from_the_mean_in_standard_deviations():
    assert advantages([0.0, 0.0, 0.0, 1.0]) == pytest.approx([-0.5, -0.5, -0.5, 1.5])
    assert advantages([3.0]) == (0.0,)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        advantages([0.0, bad])


def test_the_loss_is_clipped_low_for_bad_and_high_for_good_tokens():
    ratios = torch.tensor([0.5, 0.5, 1.0, 1.2, 1.5, 1.5])
    weights = torch.tensor([1.0, -1.0, 1.0, 1.0, 1.0, -1.0])
    logprobs = ratios.log().requires_grad_()
    part = policy_loss(logprobs, torch.zeros(6), weights, 0.2, 0.28, 6)
    # A good token is pushed up to 1.28 times its probability, a bad one down to 0.8 times, none further.
    assert part.loss.item() == pytest.approx(-(0.5 - 0.8 + 1.0 + 1.2 + 1.28 - 1.5) / 6)
    assert part.clipped == 2
    part.loss.backward()
    assert (logprobs.grad == 0).tolist() == [False, True, False, False, True, False]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("token_budget", [1, 20, 45, 90])
def test_the_micro_batched_gradient_equals_the_full_batch_gradient(token_budget, known):
    rows = some_rows(known=known)
    whole, full = gradient_of(rows, 100_000)
    parts, cut = gradient_of(rows, token_budget)
    assert (full.micro_batches, cut.micro_batches > 1) == (1, True)
    assert cut.loss == pytest.approx(full.loss, abs=1e-6)
    assert cut.clipped == full.clipped
    scale = max(float(g.abs().max()) for g in whole.values())
    for name in whole:
        assert (whole[name] - parts[name]).abs().max() < 1e-5 * scale, name


def test_sharing_a_prompt_gives_the_gradient_of_separate_rows():
    rows = some_rows()
    model, separate = small_model(), small_model()
    (batch,) = micro_batches(rows, 100_000, CPU)
    weights = torch.linspace(-1, 1, len(batch.targets))
    (token_logprobs(model, batch, 1.0) * weights).sum().backward()
    # Each row in one piece through the model's own forward, without cache, padding or chunks.
    ordered = [batch for row in rows for batch in micro_batches([row], 1, CPU)]
    ordered.sort(key=lambda one: (-int(one.prompt_lengths[0]), one.prompt_ids.tolist(), -one.tokens.sum()))
    found = []
    for one in ordered:
        prompt, completion = one.prompt_ids[0], one.completion_ids[0]
        logits = separate(input_ids=torch.cat([prompt, completion])[None], use_cache=False).logits[0]
        logprobs = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
        found.append(logprobs[torch.arange(len(completion)), completion])
    (torch.cat(found) * weights).sum().backward()
    scale = max(float(p.grad.abs().max()) for p in separate.parameters())
    for (name, mine), (_, theirs) in zip(model.named_parameters(), separate.named_parameters(), strict=True):
        assert (mine.grad - theirs.grad).abs().max() < 1e-5 * scale, name


def test_every_token_of_the_round_weighs_the_same_whatever_its_completions_length():
    model = small_model()
    rows = [Row((5, 6), (10, 11, 12, 13, 14, 2), None, 1.0), Row((5, 6), (20, 2), None, -1.0)]
    (batch,) = micro_batches(rows, 1000, CPU)
    by_hand = -(token_logprobs(model, batch, 1.0) * batch.advantages).sum() / 8
    by_hand.backward()
    expected = model.model.norm.weight.grad.clone()
    model.zero_grad()
    accumulate_gradient(model, rows, Recipe(2, 8, 1.0, 1e-3), 1000)
    assert torch.allclose(model.model.norm.weight.grad, expected, atol=1e-7)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 30), st.integers(0, 30)), max_size=30),
    st.integers(1, 200),
    st.booleans(),
)
def test_micro_batches_keep_every_token_and_the_budget(sizes, budget, mixed):
    rows = [Row((n,) * p, tuple(range(1, c + 1)), None, 1.0) for n, p, c in sizes]
    batches = list(micro_batches(rows, budget, CPU, mixed_prompts=mixed))
    seen = []
    for batch in batches:
        width = batch.prompt_ids.shape[1] + batch.completion_ids.shape[1]
        assert len(batch.owner) == 1 or len(batch.owner) * width <= budget
        assert mixed or len(set(batch.prompt_lengths.tolist())) == 1
        for owner, completion, kept in zip(batch.owner, batch.completion_ids, batch.tokens, strict=True):
            prompt = batch.prompt_ids[owner][batch.prompt_mask[owner]]
            seen.append((tuple(prompt.tolist()), tuple(completion[kept].tolist())))
    assert sorted(seen) == sorted((row.prompt_ids, row.completion_ids) for row in rows if row.completion_ids)


def test_a_prompt_is_in_a_micro_batch_once():
    (batch,) = micro_batches(some_rows(), 100_000, CPU)
    assert batch.prompt_ids.shape[0] == 3
    assert len(batch.owner) == 13


class Allocator:
    """Refuses micro-batches above a size, as a full memory would, with the errors torch has for it."""

    def __init__(self, monkeypatch, most_tokens, error):
        def narrow(model, batch, temperature):
            width = batch.prompt_ids.shape[1] + batch.completion_ids.shape[1]
            if len(batch.owner) * width > most_tokens:
                raise error
            return token_logprobs(model, batch, temperature)

        monkeypatch.setattr(gradient, "token_logprobs", narrow)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_after_a_lack_of_memory_the_pass_is_begun_again_and_the_gradient_is_the_same(error, monkeypatch):
    rows = some_rows()
    whole, _ = gradient_of(rows, 100_000)
    Allocator(monkeypatch, 60, error)
    budgets = [200]
    model = small_model()

    def halve(shortage):
        assert shortage is error
        assert all(p.grad is None for p in model.parameters())
        budgets.append(budgets[-1] // 2)

    done = accumulate_gradient(model, rows, RECIPE, lambda: budgets[-1], shrink=halve)
    assert (done.token_budget, budgets) == (50, [200, 100, 50])
    scale = max(float(g.abs().max()) for g in whole.values())
    parts = {name: p.grad for name, p in model.named_parameters()}
    assert all((whole[name] - parts[name]).abs().max() < 1e-5 * scale for name in whole)


def test_a_budget_that_shrinks_between_micro_batches_gives_the_same_gradient():
    rows = some_rows()
    whole, _ = gradient_of(rows, 100_000)
    model, budgets = small_model(), [100]

    def halve_once():
        budgets[0] = 50

    done = accumulate_gradient(model, rows, RECIPE, lambda: budgets[0], beat=halve_once)
    assert done.token_budget == 50
    scale = max(float(g.abs().max()) for g in whole.values())
    assert all((whole[n] - p.grad).abs().max() < 1e-5 * scale for n, p in model.named_parameters())


def test_out_of_memory_with_a_single_row_is_raised_and_leaves_no_gradient(monkeypatch):
    Allocator(monkeypatch, 10, torch.OutOfMemoryError("no"))
    model = small_model()
    with pytest.raises(torch.OutOfMemoryError):
        accumulate_gradient(model, some_rows(), RECIPE, 200)
    assert all(p.grad is None for p in model.parameters())


def test_another_runtime_error_is_no_lack_of_memory(monkeypatch):
    Allocator(monkeypatch, 0, RuntimeError("size mismatch"))
    with pytest.raises(RuntimeError, match="size mismatch"):
        accumulate_gradient(small_model(), some_rows(), RECIPE, 200)
