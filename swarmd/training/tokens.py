"""Between text and token ids: prompts through the chat template, completions as they were written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenizerInfo:
    """What sampling and training need of a tokenizer.

    Attributes:
        tokenizer: with a chat template.
        eos_ids: the tokens that end a completion; the first is the one written after a peer's text.
    """

    tokenizer: PreTrainedTokenizerBase
    eos_ids: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> TokenizerInfo:
        """The tokenizer's end token, and those the model's generation config names besides.

        Raises:
            ValueError: neither names one: completions would never end.
        """
        named = getattr(model.generation_config, "eos_token_id", None)
        further = named if isinstance(named, list) else [named]
        ids = [i for i in (tokenizer.eos_token_id, *further) if isinstance(i, int)]
        if not ids:
            raise ValueError("the tokenizer has no EOS token: set eos_token in its tokenizer_config.json")
        return cls(tokenizer, tuple(dict.fromkeys(ids)))

    def prompt_ids(self, messages: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        """Chat messages as the model reads them before it answers."""
        conversation = [dict(message) for message in messages]
        ids: Any = self.tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return tuple(ids)

    def completion_ids(self, text: str, max_new_tokens: int) -> tuple[int, ...]:
        """A peer's text as if sampled here: the end token after it, cut where sampling would stop.

        The text is never read as special tokens: one that spells an end token would otherwise end there. Nothing,
        not even the end token, where this tokenizer has no other way to read it.
        """
        # A lone surrogate is no text that a tokenizer takes; a stranger may have sent one all the same.
        sane = text.encode("utf-8", "replace").decode("utf-8")
        ids = self.tokenizer(sane, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if not self._control_ids.isdisjoint(ids):
            return ()
        return (*ids, self.eos_ids[0])[:max_new_tokens]

    @cached_property
    def _control_ids(self) -> frozenset[int]:
        # The token for what is not in the vocabulary is special too, but anybody's rare character may give it.
        special = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        return frozenset({*special, *self.eos_ids})

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of a completion's tokens, special ones left out."""
        ids = list(token_ids)
        return str(
            self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )
