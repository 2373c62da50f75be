"""Peers' groups as trees of this node's game: each task is made anew here, of a peer only the completions are taken."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

from genrl.state import GameState, WorldState

from swarmd.tasks.provenance import CannotRegenerate, Provenance, Task, is_heldout

UNKNOWN_TASK = "unknown-task"
"""The task cannot be made here."""
HELD_OUT = "held-out"
"""Its question is one that this node evaluates with. No fault of a peer that does not keep questions apart as we do."""
DUPLICATE = "duplicate"
"""The peer has sent this task already."""
WRONG_SHAPE = "wrong-shape"
"""What the exchange handed over is no group."""
UNSCORED = "unscored"
"""Time ran out, or the scorer failed by itself: no fault of the peer's."""
UNSCORABLE = "unscorable"
"""A completion took the scorer's time or memory beyond its limits."""

Item = TypeVar("Item")
Refused = dict[str, Counter[str]]


def in_turns(lists: Sequence[Sequence[Item]]) -> Iterator[list[Item]]:
    """The first of each list, then the second of each that has one, and so on: none waits for all of another."""
    missing = object()
    for turn in zip_longest(*lists, fillvalue=missing):
        yield [item for item in turn if item is not missing]  # type: ignore[misc]  # zip_longest's filling is gone


class PeerGroups:
    """Brings what the swarm gathered into a game state.

    regenerate: the task of a provenance, raises CannotRegenerate; by_question: the task that has this very question,
    None where there is none; root: batch id and state of the tree that starts with a task. seconds: for making the
    tasks of one exchange; some datasets take a second for a few of their seeds. most: completions that are taken of a
    group, None for all: what a round costs is for this node to say, not for who sends groups of 64.
    """

    def __init__(
        self,
        regenerate: Callable[[Provenance], Task],
        by_question: Callable[[str], Task | None] | None,
        root: Callable[[Task], tuple[str, WorldState]],
        seconds: float,
        most: int | None,
    ) -> None:
        self._regenerate = regenerate
        self._by_question = by_question
        self._root = root
        self._seconds = seconds
        self._most = most

    def transplant(self, state: GameState, gathered: Mapping[Any, Any], seed: str) -> Refused:
        """Adds a tree for each peer's group of the stage just played, under the peer's id, played and at its end.

        Only where that stage is the first and the last of the round: in a game of several, a peer's later prompts
        hang on its earlier answers, which nobody can make anew. gathered: {agent: {batch id: [Payload]}}; agents
        that have trees already are passed over. seed: of the order in which peers get their turns, and of what is
        taken of their groups.
        Returns what was left out, {peer: {reason: groups}}.
        """
        refused: Refused = defaultdict(Counter)
        played: Mapping[Any, Mapping[Any, Any]] = state.trees or {}
        if state.stage != 0 or any(tree[1] for trees in played.values() for tree in trees.values()):
            return {}
        peers = [agent for agent in gathered if agent not in played]
        random.Random(seed).shuffle(peers)
        known: dict[Any, set[Provenance]] = defaultdict(set)
        deadline = time.monotonic() + self._seconds
        for turn in in_turns([list(_payloads(peer, gathered[peer])) for peer in peers]):
            for peer, payload in turn:
                late = time.monotonic() > deadline
                reason = UNSCORED if late else self._add(state, peer, payload, known[peer], seed)
                if reason:
                    refused[str(peer)][reason] += 1
        return dict(refused)

    def _add(self, state: GameState, peer: Any, payload: Any, known: set[Provenance], seed: str) -> str:
        """Adds one group; why not, "" where it did."""
        completions: Any = getattr(payload, "actions", None)
        claimed = getattr(getattr(payload, "world_state", None), "environment_states", None)
        if not isinstance(claimed, Mapping) or not _are_texts(completions):
            return WRONG_SHAPE
        task = self._task(claimed)
        if task is None:
            return UNKNOWN_TASK
        if is_heldout(task.question):
            return HELD_OUT
        if task.provenance in known:
            return DUPLICATE
        known.add(task.provenance)
        batch_id, world = self._root(task)
        world.environment_states["peer"] = peer
        assert state.trees is not None  # as GenRL's own methods want it
        trees = state.trees.setdefault(peer, {})
        if batch_id in trees:  # another task with the same question
            batch_id = f"{batch_id}-{len(trees)}"
        tree = state.game_tree_factory(world)
        # Plain strings, whatever came: what a peer says of its tokens must never be taken for sampled here.
        tree.append_node_actions(stage=0, node_idx=0, actions=self._some(completions, f"{seed}/{peer}/{batch_id}"))
        node = tree[0][0]
        node.set_as_terminal()
        tree.leaf_nodes.append(node)
        trees[batch_id] = tree
        return ""

    def _some(self, completions: Sequence[str], seed: str) -> list[str]:
        """At most so many of them, in their order. By chance, so that who sends more gains nothing by sorting them."""
        taken: Sequence[int] = range(len(completions))
        if self._most is not None and len(completions) > self._most:
            taken = sorted(random.Random(seed).sample(taken, self._most))
        return [str(completions[number]) for number in taken]

    def _task(self, claimed: Mapping[Any, Any]) -> Task | None:
        provenance, question = claimed.get("provenance"), claimed.get("question")
        if isinstance(provenance, Provenance):
            if not all(isinstance(name, str) for name in (provenance.dataset, provenance.config_hash)):
                return None
            try:
                return self._regenerate(provenance)
            except CannotRegenerate:
                return None
        if isinstance(question, str) and self._by_question is not None:
            return self._by_question(question)
        return None


def _payloads(peer: Any, batches: Any) -> Iterator[tuple[Any, Any]]:
    if not isinstance(batches, Mapping):
        yield peer, None
        return
    for nodes in batches.values():
        for payload in nodes if isinstance(nodes, list | tuple) else [None]:
            yield peer, payload


def _are_texts(completions: Any) -> bool:
    return isinstance(completions, list | tuple) and bool(completions) and all(isinstance(c, str) for c in completions)
