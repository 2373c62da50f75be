"""Small models and a tokenizer for tests: random weights, made in milliseconds, nothing downloaded."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from tokenizers import decoders as token_decoders
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SPECIAL = ("<pad>", "<start>", "<end>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<start>{{ message['role'] }}\n{{ message['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>assistant\n{% endif %}"
)
_KINDS = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}


def small_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character, three special tokens, a chat template; `<end>` is EOS."""
    characters = [*SPECIAL, *string.digits, *string.ascii_letters, *string.punctuation, " ", "\n"]
    vocabulary = {token: index for index, token in enumerate(characters)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = token_decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<end>",
        additional_special_tokens=["<start>"],
        chat_template=CHAT_TEMPLATE,
    )


def small_model(
    kind: str = "qwen2",
    *,
    hidden: int = 32,
    layers: int = 2,
    vocabulary: int | None = None,
    tied: bool = True,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """A causal language model with random weights, by default with the vocabulary of `small_tokenizer`."""
    config_class, model_class = _KINDS[kind]
    tokenizer = small_tokenizer()
    config = config_class(
        vocab_size=vocabulary or len(tokenizer),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 4,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,  # wide, so that the distributions are far from uniform and differ by prefix
    )
    torch.manual_seed(seed)
    return model_class(config).to(dtype).eval()


def save_small_model(folder: Path, kind: str = "qwen3") -> Path:
    """Write model and tokenizer as `from_pretrained` reads them; returns the folder.

    With "qwen2" transformers would load the tokenizer as its own Qwen2 one, whatever the files say.
    """
    small_model(kind).save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)
    return folder
