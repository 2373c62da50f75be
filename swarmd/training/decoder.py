"""A causal language model seen as what it is made of: a body that gives hidden states, and an output head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from swarmd.training.batching import MicroBatch


class UnsupportedModel(ValueError):
    """A model that would be trained on something else than what it is sampled from."""


def hidden_states(model: PreTrainedModel, **inputs: Any) -> Tensor:
    """The body's last hidden states (B, T, H), after the final norm."""
    states: Tensor = model.base_model(**inputs).last_hidden_state
    return states


def output_weight(model: PreTrainedModel) -> Tensor:
    """The output head's weight (V, H); for tied models the embedding itself."""
    weight: Tensor = model.get_output_embeddings().weight
    return weight


def plain_cache(model: PreTrainedModel) -> bool:
    """Whether every layer attends to all that came before, so that masked gaps in the cache do no harm."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def predicting_states(model: PreTrainedModel, batch: MicroBatch) -> Tensor:
    """The hidden states (N, H) that predict the micro-batch's completion tokens, in their order.

    The prompts go through the model once each. Their keys and values, gradient and all, are then repeated for
    the completions, whose results and gradients are the same as if every row had its own copy of the prompt
    (cf. Prefix Grouper, arXiv 2506.05433).
    """
    cache = DynamicCache(config=model.config)
    prompt_states = hidden_states(model, input_ids=batch.prompt_ids, past_key_values=cache, use_cache=True)
    ends = batch.prompt_lengths - 1
    first = prompt_states[torch.arange(len(ends), device=ends.device), ends][batch.owner]
    width = batch.completion_ids.shape[1]
    if width == 1:
        return first
    cache.batch_select_indices(batch.owner)
    positions = batch.prompt_lengths[batch.owner, None] + torch.arange(width - 1, device=ends.device)
    mask = None
    if not bool((batch.prompt_lengths == batch.prompt_ids.shape[1]).all()):
        prompt_mask = batch.prompt_mask[batch.owner]
        mask = torch.cat([prompt_mask, prompt_mask.new_ones(len(batch.owner), width - 1)], 1).long()
    later = hidden_states(
        model, input_ids=batch.completion_ids[:, :-1], attention_mask=mask, position_ids=positions,
        past_key_values=cache, use_cache=True,
    )  # fmt: skip
    return torch.cat([first[:, None], later], 1)[batch.tokens]


@torch.inference_mode()
def check_head(model: PreTrainedModel) -> None:
    """Make sure that this room's view of the model is the model, by trying it on two tokens.

    Soft-capped or scaled logits and a head with a bias would otherwise be sampled from one distribution and
    trained on another, and nothing but a poor result would tell.

    Raises:
        UnsupportedModel: the logits are not the hidden states times the head's weight, or the cache holds
            something else than keys and values.
    """
    name = type(model).__name__
    if model.get_output_embeddings() is None:
        raise UnsupportedModel(f"{name} has no output head: it is no causal language model")
    if not all(isinstance(layer, DynamicLayer) for layer in DynamicCache(config=model.config).layers):
        raise UnsupportedModel(
            f"{name} has layers that are not attention (recurrent or compressed state); use a model whose "
            "layers all keep keys and values, like those of the Qwen2, Qwen3 and Llama kind"
        )
    ids = torch.tensor([[0, 1]], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits.float()
    ours = (hidden_states(model, input_ids=ids, use_cache=False) @ output_weight(model).T).float()
    tolerance = 1e-4 if model.dtype == torch.float32 else 1e-2
    if logits.shape != ours.shape or not torch.allclose(logits, ours, rtol=tolerance, atol=tolerance):
        raise UnsupportedModel(
            f"{name} changes its logits after the output head (a bias, a scale or a soft cap); use a model "
            "whose logits are taken as they are, like those of the Qwen2, Qwen3 and Llama kind"
        )
