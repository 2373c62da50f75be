"""The memory plan: what a GRPO round will need, before the model is loaded, and the best mode that fits.

Predicted is the peak of the whole node, its child processes included. Counted are the tensors that are alive at once
in this package's own sampling and training; what a mode saves is in the counts, so a new mode is a new row in `_BYTES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from swarmd.system.exits import ConfigurationError
from swarmd.system.pressure import NEAR
from swarmd.training.logprobs import DEFAULT_CHUNK_BYTES
from swarmd.training.recipe import PRECISIONS, Precision

# Python with torch, transformers and reasoning-gym imported, measured; plus the allocator's loss.
PROGRAM_BYTES = 480 << 20
# The scorer process (115 MiB with reasoning-gym imported, measured) and its worker, one at a time; a worker that takes
# more than usual does so while the answers are scored, when nothing is sampled or trained.
CHILDREN_BYTES = 160 << 20
RUNTIME_BYTES = PROGRAM_BYTES + CHILDREN_BYTES
_MOST_TOKENS = 16384  # in a micro-batch; more is no faster


@dataclass(frozen=True)
class _Bytes:
    """Of one number: weight, its optimizer states together, its gradient, an activation."""

    weight: int
    states: int
    gradient: int
    activation: int


_BYTES: dict[Precision, _Bytes] = {
    "fp32": _Bytes(weight=4, states=8, gradient=4, activation=4),
    "bf16-sr": _Bytes(weight=2, states=4, gradient=4, activation=2),
}


class DoesNotFit(ConfigurationError):
    """No allowed mode fits the memory limit; the message says what would."""


@dataclass(frozen=True)
class ModelShape:
    """The sizes that memory depends on.

    Attributes:
        parameters: how many numbers, tied ones once.
        hidden, intermediate, layers, vocabulary: as in the model's config.
        query_width, key_width: heads (query, key-value) times the head's size.
    """

    parameters: int
    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    query_width: int
    key_width: int

    @classmethod
    def of(cls, config: PretrainedConfig) -> ModelShape:
        """From a model's config, without its weights: the model is built without memory to count them.

        Raises:
            ValueError: transformers has no causal language model for it.
        """
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        text = config.get_text_config(decoder=True)
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        key_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        return cls(
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            hidden=text.hidden_size,
            intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
            layers=text.num_hidden_layers,
            vocabulary=text.vocab_size,
            query_width=head * text.num_attention_heads,
            key_width=head * key_heads,
        )


@dataclass(frozen=True)
class RoundShape:
    """A round's size: prompts (K), completions of each (G), and the longest of both in tokens."""

    prompts: int
    group_size: int
    prompt_tokens: int
    max_new_tokens: int

    @property
    def row(self) -> int:
        """Tokens of one completion with its prompt."""
        return self.prompt_tokens + self.max_new_tokens


@dataclass(frozen=True)
class MemoryPlan:
    """How to train in the memory there is.

    Attributes:
        mode: number format of the weights.
        predicted_bytes: the peak of the process and its children, all of them.
        token_budget: tokens in a micro-batch.
        rows_at_once: completions sampled together.
    """

    mode: Precision
    predicted_bytes: int
    token_budget: int
    rows_at_once: int


def choose_plan(
    model: ModelShape,
    round: RoundShape,
    limit_bytes: int,
    requested: Literal["auto"] | Precision = "auto",
    beside_bytes: int = 0,
) -> MemoryPlan:
    """The best plan within the limit: fp32 before bf16, then the largest batches.

    A plan fills no more of the limit than what the node may use before it steps down (`system.pressure`): what is
    predicted to be near the end should not have been begun. beside_bytes: of what the node runs besides within the
    same limit, such as the network process; part of the prediction.

    Raises:
        DoesNotFit: not even one completion at a time in the leanest mode.
    """
    modes = PRECISIONS if requested == "auto" else (requested,)
    usable = int(limit_bytes * NEAR) - beside_bytes
    for mode in modes:
        budget = min(_MOST_TOKENS, round.prompts * round.group_size * round.row)
        while predict_training(model, round, mode, budget) > usable and budget > round.row:
            budget = max(round.row, budget // 2)
        rows = round.prompts * round.group_size
        while predict_sampling(model, round, mode, rows) > usable and rows > round.group_size:
            rows = max(round.group_size, rows // 2)
        budget = max(budget, round.row)
        peak = predict(model, round, mode, budget, rows)
        if peak <= usable:
            return MemoryPlan(mode, peak + beside_bytes, budget, rows)
    raise DoesNotFit(_what_would_fit(model, round, limit_bytes, modes[-1], beside_bytes))


def predict(model: ModelShape, round: RoundShape, mode: Precision, token_budget: int, rows: int) -> int:
    """Peak bytes of the node in a round: the greater of sampling and training."""
    return max(
        predict_sampling(model, round, mode, rows), predict_training(model, round, mode, token_budget)
    )


def predict_training(model: ModelShape, round: RoundShape, mode: Precision, token_budget: int) -> int:
    """Peak bytes of the backward pass of one micro-batch, with all gradients and optimizer states there."""
    size = _BYTES[mode]
    fixed = model.parameters * (size.weight + size.states + size.gradient)
    rows = max(1, token_budget // round.row)
    prompts = min(round.prompts, -(-rows // round.group_size))
    computed = prompts * round.prompt_tokens + rows * round.max_new_tokens
    attended = rows * round.row
    # What autograd keeps of one layer. For each token computed: two norms (input, normalised, scaled), the query
    # before and after attention and its output, and the feed-forward block's gate, its activation, the up
    # projection and their product. For each token attended to: keys and values, and what they become when
    # repeated for all query heads.
    per_token = 6 * model.hidden + 3 * model.query_width + 4 * model.intermediate
    per_attended = 2 * model.key_width
    if model.key_width < model.query_width:
        per_attended += 2 * model.query_width
    layers = model.layers * (computed * per_token + attended * per_attended) * size.activation
    states = 4 * computed * model.hidden * size.activation
    # The output head's gradient: as it is summed, as it is handed on, and beside the embedding's when tied.
    head = 2 * model.vocabulary * model.hidden * 4
    chunk = min(2 * 4 * model.vocabulary * rows * round.max_new_tokens, DEFAULT_CHUNK_BYTES)
    return RUNTIME_BYTES + fixed + layers + states + head + chunk


def predict_sampling(model: ModelShape, round: RoundShape, mode: Precision, rows: int) -> int:
    """Peak bytes of the last decoding step of `rows` completions; there are no gradients then."""
    size = _BYTES[mode]
    fixed = model.parameters * (size.weight + size.states)
    one_layer = rows * round.row * 2 * model.key_width * size.activation
    # A layer's cache is copied as it grows, and repeated for all query heads while its attention runs.
    repeated = one_layer * model.query_width // model.key_width
    # Logits in the model's format and in fp32, weights in fp32, their running sum in fp64.
    logits = rows * model.vocabulary * (size.activation + 4 + 4 + 8)
    return RUNTIME_BYTES + fixed + model.layers * one_layer + one_layer + repeated + logits


def _what_would_fit(
    model: ModelShape, round: RoundShape, limit_bytes: int, mode: Precision, beside_bytes: int
) -> str:
    least = predict(model, round, mode, round.row, round.group_size) + beside_bytes
    text = (
        f"the model's {model.parameters / 1e6:.0f} million parameters need at least {least / 2**30:.1f} GiB to "
        f"train ({mode}, completions of {round.max_new_tokens} tokens){kept_beside(beside_bytes)}, and the limit is "
        f"{limit_bytes / 2**30:.1f} GiB, of which {NEAR:.0%} may be planned"
    )
    if mode != PRECISIONS[-1]:
        text += f"; memory.plan: {PRECISIONS[-1]} needs less"
    # All that is counted grows about as the parameters do, but for the runtime.
    runtime = RUNTIME_BYTES + beside_bytes
    fits = model.parameters * (int(limit_bytes * NEAR) - runtime) / (least - runtime)
    if fits >= 1e6:
        return f"{text}; choose in model.name a model of at most about {fits / 1e6:.0f} million parameters"
    return f"{text}, hardly more than the program itself needs; set memory.limit higher"


def kept_beside(beside_bytes: int) -> str:
    """For a sentence about memory: what of it a swarm takes; "" where the node is in none."""
    return f", of which {beside_bytes >> 20} MiB are for the network process and p2pd" if beside_bytes else ""
