"""The models that `model.name: auto` chooses from: those of the RL Swarm testnet, best first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from swarmd.training.models import ModelError


def _qwen(hidden: int, layers: int, heads: int, key_value_heads: int, intermediate: int, kind: str) -> dict[str, Any]:
    return {
        "model_type": kind,
        "vocab_size": 151_936,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "intermediate_size": intermediate,
        "head_dim": 128 if kind == "qwen3" else hidden // heads,
        "tie_word_embeddings": True,
    }


# Their config.json in so far as memory depends on it: the choice is made before anything is fetched.
AUTO: Mapping[str, dict[str, Any]] = {
    "dnotitia/Smoothie-Qwen3-1.7B": _qwen(2048, 28, 16, 8, 6144, "qwen3"),
    "Gensyn/Qwen2.5-1.5B-Instruct": _qwen(1536, 28, 12, 2, 8960, "qwen2"),
    "nvidia/AceInstruct-1.5B": _qwen(1536, 28, 12, 2, 8960, "qwen2"),
    "Qwen/Qwen3-0.6B": _qwen(1024, 28, 16, 8, 3072, "qwen3"),
    "Gensyn/Qwen2.5-0.5B-Instruct": _qwen(896, 24, 14, 2, 4864, "qwen2"),
}


def choose(fits: Callable[[dict[str, Any]], bool], limit: str) -> str:
    """The first model of the list that fits; the same on every start of the same machine.

    Raises:
        ModelError: none does; `limit` says in words how much memory there is.
    """
    for name, config in AUTO.items():
        if fits(config):
            return name
    raise ModelError(
        f"model.name is auto, but none of {', '.join(AUTO)} can be trained in {limit}; use model.name: embedded, "
        "or give the node more memory"
    )
