"""Log-probs: chunked as naive, training as sampling, padded as unpadded."""

from __future__ import annotations

import pytest
import torch

from swarmd.training.batching import Row, micro_batches
from swarmd.training.generation import sample_groups
from swarmd.training.gradient import token_logprobs
from swarmd.training.logprobs import completion_logprobs, rows_per_chunk
from swarmd.training.tokens import TokenizerInfo
from tests.models import small_model, small_tokenizer

CPU = torch.device("cpu")


def naive(hidden, weight, targets, temperature):
    return torch.log_softmax((hidden @ weight.T).float() / temperature, -1)[torch.arange(len(targets)), targets]


def gradients(function, hidden, weight, targets, temperature):
    hidden, weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    out = function(hidden, weight, targets, temperature)
    (out * torch.linspace(-1, 2, len(out))).sum().backward()
    return out.detach(), hidden.grad, weight.grad


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("rows_a_chunk", [1, 7, 50, 1000])
def test_chunked_logprobs_and_their_gradients_equal_the_naive_ones(temperature, rows_a_chunk):
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(50, 16), torch.randn(97, 16), torch.randint(97, (50,))
    chunk_bytes = rows_a_chunk * 2 * 4 * 97
    assert rows_per_chunk(97, chunk_bytes) == rows_a_chunk
    ours = gradients(
        lambda h, w, t, temp: completion_logprobs(h, w, t, temp, chunk_bytes), hidden, weight, targets, temperature
    )
    theirs = gradients(naive, hidden, weight, targets, temperature)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, rtol=1e-5, atol=1e-5)


def test_a_weight_that_needs_no_gradient_gets_none():
    hidden, weight = torch.randn(5, 4, requires_grad=True), torch.randn(9, 4)
    completion_logprobs(hidden, weight, torch.arange(5), 1.0).sum().backward()
    assert weight.grad is None
    assert hidden.grad is not None


def test_bf16_logprobs_are_fp32_and_near_the_exact_ones():
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(20, 16), torch.randn(97, 16), torch.randint(97, (20,))
    low = completion_logprobs(hidden.bfloat16(), weight.bfloat16(), targets, 1.0, 8 * 97 * 6)
    exact = naive(hidden.bfloat16().float(), weight.bfloat16().float(), targets, 1.0)
    assert low.dtype == torch.float32
    assert (low - exact).abs().max() < 0.1


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_training_logprobs_equal_sampling_logprobs(kind, tied, temperature):
    model = small_model(kind, tied=tied)
    info = TokenizerInfo.of(small_tokenizer(), model)
    prompts = [(5, 6, 7, 8, 9), (10, 11), (12, 13, 14)]
    groups = sample_groups(model, info, prompts, 4, 12, temperature, torch.Generator().manual_seed(1))
    rows = [Row(p, c.token_ids, c.logprobs, 1.0) for p, group in zip(prompts, groups, strict=True) for c in group]
    (batch,) = micro_batches(rows, 10_000, CPU)
    with torch.no_grad():
        assert (token_logprobs(model, batch, temperature) - batch.old_logprobs).abs().max() < 1e-5


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_padded_logprobs_equal_unpadded_ones(implementation):
    model = small_model()
    model.set_attn_implementation(implementation)
    rows = [
        Row((5, 6, 7, 8, 9, 10), (20, 21, 22, 2), None, 1.0),
        Row((5, 6, 7, 8, 9, 10), (23, 2), None, 1.0),
        Row((11,), (24,), None, 1.0),
        Row((12, 13), (25, 26, 27, 28, 29, 30, 2), None, 1.0),
    ]
    (together,) = micro_batches(rows, 10_000, CPU)
    alone = [batch for row in rows for batch in micro_batches([row], 10_000, CPU)]
    alone.sort(key=lambda batch: -int(batch.prompt_lengths[0]))  # as `together` orders them; stable
    with torch.no_grad():
        padded = token_logprobs(model, together, 1.0)
        unpadded = torch.cat([token_logprobs(model, batch, 1.0) for batch in alone])
        whole = torch.cat([from_one_pass(model, batch) for batch in alone])
    assert (padded - unpadded).abs().max() < 1e-5
    assert (padded - whole).abs().max() < 1e-5


def from_one_pass(model, batch):
    """By the model's own forward over prompt and completion in one piece, without any cache."""
    prompt, completion = batch.prompt_ids[0], batch.completion_ids[0]
    logits = model(input_ids=torch.cat([prompt, completion])[None], use_cache=False).logits[0]
    predicted = torch.log_softmax(logits.float(), -1)[len(prompt) - 1 : -1]
    return predicted[torch.arange(len(completion)), completion]
