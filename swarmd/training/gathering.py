"""From a GenRL game to what is trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from genrl.data import DataManager
from genrl.rewards import RewardManager
from genrl.state import GameState

from swarmd.training.batching import Row
from swarmd.training.grpo import advantages
from swarmd.training.plausibility import Plausibility
from swarmd.training.rollouts import Completion, Rollout
from swarmd.training.tokens import TokenizerInfo


def prompts_of(inputs: Any, tokens: TokenizerInfo) -> list[tuple[int, ...]]:
    """Token ids of the prompts in what a DataManager's `prepare_input` returns.

    Args:
        inputs: rows with chat messages under "prompt": a list of dicts, or a `datasets.Dataset`.
    """
    return [tokens.prompt_ids(row["prompt"]) for row in inputs]


def rollouts_of(
    state: GameState,
    data_manager: DataManager,
    reward_manager: RewardManager,
    tokens: TokenizerInfo,
    max_new_tokens: int,
    own: Any = None,
) -> list[Rollout]:
    """The groups of all stages, agents and nodes of a finished game, as GenRL's own trainer finds them.

    The stage's inputs are prepared once more, the actions and rewards are taken from where the index mapping
    says. A node's action is a group of completions, or one; a node without any is left out. Groups may have
    any size. Peers' completions, plain text, are encoded here and have no sampling log-probs.

    Args:
        own: the agent that stands for this node; the others are peers. None: all do.

    Raises:
        ValueError: rewards that do not fit a node's completions; the message names the node.
    """
    rollouts = []
    for stage in range(state.stage):
        inputs, places = data_manager.prepare_input(state.get_stage_state(stage), stage)
        actions, rewards = state.get_stage_actions(stage), reward_manager[stage]
        for index, prompt in enumerate(prompts_of(inputs, tokens)):
            agent, batch_id, node = places[index]
            group = _listed(actions[agent][batch_id][node])
            if not group:
                continue
            numbers = _listed(rewards[agent][batch_id][node])
            peer = "" if own is None or agent == own else str(agent)
            try:
                rollouts.append(_rollout(prompt, group, numbers, tokens, max_new_tokens, peer))
            except ValueError as error:
                place = f"stage {stage}, agent {agent}, task {batch_id}, node {node}"
                raise ValueError(f"{place}: {error}") from error
    return rollouts


def rows_of(rollout: Rollout) -> list[Row]:
    """A group's completions to train on: none if its rewards are equal, since then nothing can be learned."""
    weights = advantages(rollout.rewards)
    if not any(weights):
        return []
    logprobs = rollout.logprobs or (None,) * len(rollout.completions)
    return [
        Row(rollout.prompt_ids, ids, old, weight)
        for ids, old, weight in zip(rollout.completions, logprobs, weights, strict=True)
        if ids
    ]


# A peer's group is trained on whole or not at all. Its advantages are distances from the mean of all its completions:
# with one of them left out the others' no longer add up to zero, and whoever sends one to be refused would choose
# whether the rest is pushed up or down.


def short_enough(groups: Sequence[Rollout], measure: Plausibility | None) -> tuple[list[Rollout], Counter[str]]:
    """The groups without the peers' that have a completion of too many tokens, and how many of those each peer had."""
    if measure is None:
        return list(groups), Counter()
    return _peers_with(groups, lambda group: not any(measure.too_long(len(ids)) for ids in group.completions))


def plausible(
    groups: Sequence[Rollout], likely: Callable[[Sequence[Row]], bool] | None
) -> tuple[list[Rollout], Counter[str]]:
    """The groups without the peers' that have a completion which no model in this one's state wrote, and how many of
    those each peer had. One that the tokenizer could not read (`completion_ids`) is such, too.

    likely: asked of a group that can be read; None: it is.
    """
    return _peers_with(groups, lambda group: all(group.completions) and (likely is None or likely(rows_of(group))))


def _peers_with(
    groups: Sequence[Rollout], fit: Callable[[Rollout], bool]
) -> tuple[list[Rollout], Counter[str]]:
    """Own groups, and those of peers that fit; how many each peer had that do not."""
    kept = [not group.peer or fit(group) for group in groups]
    refused = Counter(group.peer for group, keep in zip(groups, kept, strict=True) if not keep)
    return [group for group, keep in zip(groups, kept, strict=True) if keep], refused


def _rollout(
    prompt: tuple[int, ...],
    group: Sequence[str],
    rewards: Iterable[Any],
    tokens: TokenizerInfo,
    max_new_tokens: int,
    peer: str,
) -> Rollout:
    own = [completion for completion in group if isinstance(completion, Completion)]
    ids = tuple(
        c.token_ids
        if isinstance(c, Completion)
        else (_peers_ids(c, tokens, max_new_tokens) if peer else tokens.completion_ids(c, max_new_tokens))
        for c in group
    )
    logprobs = tuple(completion.logprobs for completion in own) if len(own) == len(group) else None
    return Rollout(prompt, ids, logprobs, tuple(float(reward) for reward in rewards), peer)


def _peers_ids(text: str, tokens: TokenizerInfo, max_new_tokens: int) -> tuple[int, ...]:
    """As `completion_ids`, but what is longer than sampling would go on keeps a token too many: it was scored whole,
    so that it must not be cut and trained on, and `short_enough` sees it by that."""
    ids = tokens.completion_ids(text, max_new_tokens + 1)
    stopped_there = len(ids) == max_new_tokens + 1 and ids[-1] in tokens.eos_ids
    return ids[:max_new_tokens] if stopped_there else ids


def _listed(value: Any) -> list[Any]:
    """A group as a list: what stands alone is a group of one, nothing is an empty one."""
    if value is None:
        return []
    if isinstance(value, (str, int, float)):
        return [value]
    return list(value)
