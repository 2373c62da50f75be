"""Log-probs of chosen tokens from hidden states, without the (tokens, vocabulary) matrix of logits.

With a vocabulary of 150,000 the logits and what autograd keeps of them are most of a GRPO step's memory. Here
they exist for one chunk of rows at a time, in the forward pass and again (recomputed) in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# One chunk's fp32 logits. Small enough not to show in a plan's peak, large enough that matrix products are.
DEFAULT_CHUNK_BYTES = 64 << 20


def completion_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float,
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
) -> Tensor:
    """Log-probs of `targets` under softmax(hidden @ weight.T / temperature), differentiable in both.

    The products run in the dtype of `hidden`; everything after them is fp32, as is the sum of the weight's
    gradient over chunks. A weight tied to the embedding gets its gradient like any other.

    Args:
        hidden: (N, H), the states that predict the targets.
        weight: (V, H), the output head.
        targets: (N,), token ids.
        temperature: the one the tokens were sampled at, > 0.
        chunk_bytes: bound on the bytes of fp32 logits alive at once (never under one row).

    Returns:
        (N,) fp32.
    """
    result: Tensor = _ChunkedLogprobs.apply(hidden, weight, targets, temperature, chunk_bytes)
    return result


def rows_per_chunk(vocabulary: int, chunk_bytes: int) -> int:
    """Rows whose fp32 logits and one temporary of the same size fit `chunk_bytes`."""
    return max(1, chunk_bytes // (2 * 4 * vocabulary))


class _ChunkedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, chunk_bytes: int
    ) -> Tensor:
        count = hidden.shape[0]
        step = rows_per_chunk(weight.shape[0], chunk_bytes)
        normaliser = torch.empty(count, dtype=torch.float32, device=hidden.device)
        chosen = torch.empty_like(normaliser)
        logits = None
        for start in range(0, count, step):
            rows = slice(start, start + step)
            logits = _logits(hidden[rows], weight, temperature)
            normaliser[rows] = torch.logsumexp(logits, dim=-1)
            chosen[rows] = logits.gather(1, targets[rows, None]).squeeze(1)
        # When everything fits one chunk anyhow, keeping it costs no more than making it again would.
        keep = logits if count <= step else None
        ctx.save_for_backward(hidden, weight, targets, normaliser, keep)
        ctx.temperature, ctx.step = temperature, step
        return chosen - normaliser

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, normaliser, kept = ctx.saved_tensors
        want_hidden, want_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if want_hidden else None
        grad_weight: Tensor | None = None
        for start in range(0, hidden.shape[0], ctx.step):
            rows = slice(start, start + ctx.step)
            states, scale = hidden[rows], grad[rows, None] / ctx.temperature
            logits = kept if kept is not None else _logits(states, weight, ctx.temperature)
            # d log p(target) / d logits = onehot(target) - softmax(logits)
            by_logits = torch.exp(logits - normaliser[rows, None]).mul_(-scale)
            by_logits.scatter_add_(1, targets[rows, None], scale)
            by_logits = by_logits.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(by_logits, weight, out=grad_hidden[rows])
            if want_weight:
                part = by_logits.T @ states
                grad_weight = part.float() if grad_weight is None else grad_weight.add_(part)
        if want_weight and grad_weight is None:
            grad_weight = torch.zeros_like(weight)
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None


def _logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    logits = (hidden @ weight.T).float()
    return logits if temperature == 1.0 else logits.div_(temperature)
