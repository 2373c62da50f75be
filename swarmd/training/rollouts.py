"""What is sampled and what is learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class Completion(str):
    """The text a model wrote for one prompt, with the tokens it is made of.

    A `str`, so that it travels through GenRL's game tree and into any reward function as plain text. The
    token ids are what was sampled (the end token included when `finished`): text that is encoded again gives
    other tokens, and other log-probs.

    Attributes:
        token_ids: the sampled tokens.
        logprobs: natural log of each token's probability at the sampling temperature, as many as `token_ids`.
        finished: whether the model ended the completion itself, with an end token.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool

    def __new__(
        cls, text: str, token_ids: Sequence[int], logprobs: Sequence[float], finished: bool
    ) -> Completion:
        if len(token_ids) != len(logprobs):
            raise ValueError(f"{len(token_ids)} tokens with {len(logprobs)} log-probs: give one for each")
        completion = super().__new__(cls, text)
        completion.token_ids = tuple(token_ids)
        completion.logprobs = tuple(logprobs)
        completion.finished = finished
        return completion

    def __getnewargs__(self) -> tuple[Any, ...]:  # copy and pickle keep the attributes
        return str(self), self.token_ids, self.logprobs, self.finished


@dataclass(frozen=True)
class Rollout:
    """One prompt with its group of scored completions.

    Groups may differ in size. An empty completion counts in the group's mean reward and trains nothing.

    Attributes:
        prompt_ids: the prompt as the model reads it, chat template included; at least one token.
        completions: token ids of each completion, end token included where there was one.
        logprobs: what the sampling policy gave each token, or None where that is not known (peers' text).
        rewards: one number for each completion.
        peer: who answered, "" for this node itself.

    Raises:
        ValueError: lengths that do not belong together, or an empty prompt.
    """

    prompt_ids: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    logprobs: tuple[tuple[float, ...], ...] | None
    rewards: tuple[float, ...]
    peer: str = ""

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise ValueError(
                "a rollout with an empty prompt: the completion's first token is predicted from its last"
            )
        if len(self.rewards) != len(self.completions):
            raise ValueError(
                f"{len(self.rewards)} rewards for {len(self.completions)} completions: the reward manager "
                "must give one number for each completion of the group"
            )
        if self.logprobs is not None and list(map(len, self.logprobs)) != list(map(len, self.completions)):
            raise ValueError(
                "sampling log-probs that do not match the completions' tokens: give one for each token, or "
                "None for the whole group"
            )
