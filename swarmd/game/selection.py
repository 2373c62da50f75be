"""Which of a round's groups are trained on: so many own ones and so many of peers', drawn among those that teach.

SAPO (arXiv 2509.08721): each node trains on I own and J external groups; groups whose rewards are all equal, from
which nothing can be learned, are dropped before the external ones are drawn.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from genrl.state import GameState

Group = TypeVar("Group")


@dataclass(frozen=True)
class Selection:
    """What is trained on, and what it was drawn from.

    own_groups, own_with_signal: of this node, one a node of the game's trees, before anything was dropped.
    own_used: own trees left. reward, peer_reward: mean over all scored completions, None without any.
    used: peers' trees left, by peer. unfit: peers' trees without a reward for each completion, by peer.
    """

    own_groups: int
    own_with_signal: int
    own_used: int
    reward: float | None
    peer_reward: float | None
    used: Mapping[str, int]
    unfit: Mapping[str, int]


def draw_peers(groups: Mapping[Any, Sequence[Group]], count: int, seed: str) -> list[tuple[Any, Group]]:
    """`count` groups of peers (or all there are), none twice: each time a peer is drawn, all that have some left
    alike, and then one of its groups. So a peer that sends much has no more weight than one that sends little.

    The same for the same seed; the order of the peers plays no part.
    """
    chance = random.Random(seed)
    left = {peer: list(groups[peer]) for peer in sorted(groups, key=str) if groups[peer]}
    drawn: list[tuple[Any, Group]] = []
    while left and len(drawn) < count:
        peer = chance.choice(list(left))
        drawn.append((peer, left[peer].pop(chance.randrange(len(left[peer])))))
        if not left[peer]:
            del left[peer]
    return drawn


def draw_own(groups: Sequence[Group], count: int, seed: str) -> list[Group]:
    """`count` of them (or all there are), each as likely as any other; the same for the same seed."""
    return random.Random(seed).sample(groups, min(count, len(groups)))


def has_signal(rewards: Sequence[float]) -> bool:
    """Whether a group with these rewards teaches anything: in equal ones every advantage is zero."""
    return len(rewards) > 1 and min(rewards) != max(rewards)


def select(
    state: GameState, rewards: Any, own: Any, own_samples: int | None, peer_samples: int | None, seed: str
) -> Selection:
    """Takes the trees that are not trained on out of a game that has been played and rewarded.

    own: the agent that stands for this node. own_samples: own trees to train on, None for all. peer_samples: peers'
    ones, None for as many as own ones, whether those teach or not: a node that cannot do a task yet learns it from
    those that can. rewards: rewards[stage][agent][batch id][node], as GenRL has them. A peer's tree of any size is
    fine; one whose rewards do not fit its completions is left out.
    """
    trees: dict[Any, dict[Any, Any]] = state.trees or {}
    mine = {batch_id: _nodes(state, rewards, own, batch_id) for batch_id in trees.get(own, {})}
    ours = [group for groups in mine.values() for group in groups]
    theirs: dict[Any, list[Any]] = {}
    seen: list[float] = []
    unfit: Counter[str] = Counter()
    for peer in [agent for agent in trees if agent != own]:
        for batch_id in trees[peer]:
            groups = _fitting(state, rewards, peer, batch_id)
            if groups is None:
                unfit[str(peer)] += 1
                continue
            seen += [reward for group in groups for reward in group]
            if any(map(has_signal, groups)):
                theirs.setdefault(peer, []).append(batch_id)
    if own_samples is not None:
        teaching = [batch_id for batch_id, groups in mine.items() if any(map(has_signal, groups))]
        _keep(trees.get(own, {}), set(draw_own(teaching, own_samples, f"own/{seed}")))
    count = peer_samples if peer_samples is not None else own_samples or len(mine)
    drawn = draw_peers(theirs, count, f"peers/{seed}")
    for peer in [agent for agent in trees if agent != own]:
        _keep(trees[peer], {batch_id for owner, batch_id in drawn if owner == peer})
        if not trees[peer]:
            del trees[peer]
    return Selection(
        own_groups=len(ours),
        own_with_signal=sum(map(has_signal, ours)),
        own_used=len(trees.get(own, {})),
        reward=_mean([reward for group in ours for reward in group]),
        peer_reward=_mean(seen),
        used=Counter(str(peer) for peer, _ in drawn),
        unfit=unfit,
    )


def _keep(trees: dict[Any, Any], chosen: set[Any]) -> None:
    for batch_id in [batch_id for batch_id in trees if batch_id not in chosen]:
        del trees[batch_id]


def _nodes(state: GameState, rewards: Any, agent: Any, batch_id: Any) -> list[list[float]]:
    """The rewards of each node of a tree that has some."""
    assert state.trees is not None
    groups = [
        list(_numbers(rewards[stage][agent][batch_id][node]))
        for stage in range(state.stage)
        for node in range(len(state.trees[agent][batch_id][stage]))
    ]
    return [group for group in groups if group]


def _fitting(state: GameState, rewards: Any, peer: Any, batch_id: Any) -> list[list[float]] | None:
    """As `_nodes`; None where a completion has no reward, or no finite one, or there is no completion at all."""
    assert state.trees is not None
    tree = state.trees[peer][batch_id]
    sizes = [_size(node.actions) for stage in range(state.stage) for node in tree[stage]]
    try:
        groups = _nodes(state, rewards, peer, batch_id)
    except (KeyError, IndexError, TypeError):
        return None  # the rewards are an environment's own, and it may have passed over what a peer sent
    fits = bool(groups) and [len(group) for group in groups] == [size for size in sizes if size]
    return groups if fits and all(math.isfinite(reward) for group in groups for reward in group) else None


def _size(actions: Any) -> int:
    if actions is None:
        return 0
    return 1 if isinstance(actions, str) else len(actions)


def _numbers(rewards: Any) -> Iterator[float]:
    """All numbers in GenRL's nested rewards, whatever holds them."""
    if isinstance(rewards, dict):
        rewards = rewards.values()
    elif isinstance(rewards, int | float):
        yield float(rewards)
        return
    for inner in rewards:
        yield from _numbers(inner)


def _mean(numbers: Sequence[float]) -> float | None:
    return math.fsum(numbers) / len(numbers) if numbers else None
