"""Which models the trainer takes, and that a sliding window is trained on what it samples."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from swarmd.training.batching import Row, micro_batches
from swarmd.training.decoder import UnsupportedModel, check_head, plain_cache
from swarmd.training.generation import sample_groups
from swarmd.training.gradient import token_logprobs
from swarmd.training.tokens import TokenizerInfo
from tests.models import small_model, small_tokenizer

SIZES = {
    "vocab_size": 99, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "initializer_range": 0.2,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_whose_logits_are_taken_as_they_are_pass(kind, dtype):
    check_head(small_model(kind, dtype=dtype))


@pytest.mark.parametrize(
    ("model_class", "config", "message"),
    [
        (Gemma2ForCausalLM, Gemma2Config(**SIZES, final_logit_softcapping=2.0), "soft cap"),
        (PhiForCausalLM, PhiConfig(**{k: v for k, v in SIZES.items() if k != "head_dim"}), "bias"),
        (MambaForCausalLM, MambaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2), "not attention"),
    ],
)
def test_models_that_would_be_trained_on_something_else_are_refused(model_class, config, message):
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "lm_head.bias":
                parameter.fill_(1.0)  # zero when fresh
    with pytest.raises(UnsupportedModel, match=message):
        check_head(model)


def test_a_sliding_window_model_is_trained_on_the_logprobs_it_samples_with():
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=6)).eval()
    check_head(model)
    assert not plain_cache(model)
    info = TokenizerInfo(small_tokenizer(), (10**6,))
    prompts = [(5, 6, 7, 8, 9, 10, 11, 12), (10, 11, 12), (13, 14, 15)]
    groups = sample_groups(model, info, prompts, 3, 12, 1.0, torch.Generator().manual_seed(1))
    rows = [Row(p, c.token_ids, c.logprobs, 1.0) for p, group in zip(prompts, groups, strict=True) for c in group]
    with torch.no_grad():
        for batch in micro_batches(rows, 10_000, model.device, mixed_prompts=plain_cache(model)):
            assert (token_logprobs(model, batch, 1.0) - batch.old_logprobs).abs().max() < 1e-5
        for row in rows:
            ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
            logprobs = torch.log_softmax(model(ids, use_cache=False).logits[0], -1)
            first = len(row.prompt_ids) - 1
            whole = logprobs[first:-1][torch.arange(len(row.completion_ids)), list(row.completion_ids)]
            assert (whole - torch.tensor(row.logprobs)).abs().max() < 1e-5
