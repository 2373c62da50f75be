"""Four nodes in one process that train on their own and each other's groups: the arms, the nodes, a round."""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from genrl.communication.communication import Payload
from genrl.state import GameState, WorldState

from swarmd.assembly import HELDOUT_SEED, new_node_id, open_environment
from swarmd.game.evaluation import Evaluator
from swarmd.game.selection import draw_own, select
from swarmd.game.stages import Branching, answer_stage, leave_stage, new_state
from swarmd.tasks.answers import MAX_ANSWER_CHARS, extract_answer
from swarmd.tasks.packing import pack_task
from swarmd.tasks.provenance import Task
from swarmd.tasks.reasoning import PEERS_COMPLETIONS, ReasoningData
from swarmd.tasks.rewards import ReasoningRewards
from swarmd.tasks.scorer import Score, ScoreRequest
from swarmd.tasks.scorer_process import scorer_of
from swarmd.tasks.scorer_worker import Item, score_item
from swarmd.tasks.verdicts import NO_ANSWER, TOO_LONG
from swarmd.training.models import EMBEDDED, LoadedModel
from swarmd.training.recipe import Recipe
from swarmd.training.rollouts import Completion
from swarmd.training.trainer import GRPOTrainer
from tests.bench.common import Common, open_common

NODES = 4
TASKS = 16
"""A node and round: twice the eight that are trained on, so that eight with signal can be found among them."""
OFFERED = 6
"""Groups that a node takes of each peer's record in a round (`network.limits.groups_per_peer`; 4 by default): with
three peers 18, of which six with signal can nearly always be drawn."""

_SWARM = "sapo"

Record = list[Payload]
"""What a node publishes for a round, a group a payload: provenance and plain texts."""


@dataclass(frozen=True)
class Arm:
    """own, peers: groups trained on, None for all (of peers: as many as own ones were made). blind: the own ones are
    drawn whether they have signal or not. frozen: the peers are the untrained model on the same tasks. last: played
    when all others are done."""

    key: str
    title: str
    own: int | None
    peers: int | None
    blind: bool = False
    frozen: bool = False
    last: bool = False


ARMS = {
    arm.key: arm
    for arm in (
        Arm("8-0", "8/0", 8, 0, blind=True),
        Arm("6-2", "6/2", 6, 2),
        Arm("4-4", "4/4", 4, 4),
        Arm("2-6", "2/6", 2, 6),
        Arm("8-0-filtered", "8/0 filtered", 8, 0),
        Arm("4-4-frozen", "4/4 frozen peers", 4, 4, frozen=True),
        Arm("all-0", "all own, no peers", None, 0),
        Arm("all-all", "all own + peers'", None, None, last=True),
    )
}


class ScorerHere:
    """The scorer's own functions in this process: here nobody is a stranger, and a fork for each peer would take more
    time than the training. Each answer to a task is scored once; the functions know nothing but the two."""

    def score(self, requests: Sequence[ScoreRequest], budget_s: float | None = None) -> list[Score]:
        return [self._score(request) for request in requests]

    def _score(self, request: ScoreRequest) -> Score:
        answer = extract_answer(request.completion)
        if answer is None:
            return Score(0.0, NO_ANSWER)
        if len(answer) > MAX_ANSWER_CHARS:
            return Score(0.0, TOO_LONG)
        return _scored(request.dataset, pack_task(request.answer, request.metadata), answer)


@functools.lru_cache(maxsize=65_536)
def _scored(dataset: str, task: bytes, answer: str) -> Score:
    report = score_item(0, Item(scorer_of(dataset), task, answer))
    return Score(report.value, report.reason)


class Node:
    """A node with weights, optimizer, tasks and noise of its own. seed: of all but the weights it starts with.

    agent: its id in the swarm; made of the seed if None. by_question: the task of a peer's group that comes with a
    question instead of a provenance.
    """

    def __init__(
        self,
        common: Common,
        seed: int,
        agent: str | None = None,
        swarm_id: str = _SWARM,
        by_question: Callable[[str], Task | None] | None = None,
    ) -> None:
        self.agent = agent or new_node_id(seed)
        loaded = replace(common.loaded, model=copy.deepcopy(common.loaded.model))
        self.trainer = self._trainer(loaded, replace(common.recipe, seed=seed), common.rows_at_once)
        self.trainer.own = self.agent
        most = PEERS_COMPLETIONS * common.recipe.group_size
        tasks = common.tasks_per_round
        self._data = ReasoningData(
            common.mix, swarm_id, self.agent, tasks, None, 1, 0, by_question=by_question, most_completions=most
        )
        self._rewards = ReasoningRewards(ScorerHere())
        self._state = GameState(round=0, stage=0)
        self._tokens = 0

    def _trainer(self, loaded: LoadedModel, recipe: Recipe, rows_at_once: int) -> GRPOTrainer:
        return GRPOTrainer(loaded, recipe, rows_at_once)

    def answer(self, round: int) -> Record:
        """Draws the round's tasks and samples their groups; what a record would carry of them."""
        self.trainer.begin_round(round)
        self._data.begin_round(round)
        self._state = new_state(round, self._data.get_round_data(), self.agent, Branching(1))
        self._tokens = 0
        answer_stage(self._state, self._data, self._generate)
        return [
            _group(payload) for payloads in self._state.get_latest_communication()[self.agent].values()
            for payload in payloads
        ]  # fmt: skip

    def _generate(self, inputs: Any) -> list[list[Completion]]:
        groups = self.trainer.generate(inputs)
        self._tokens += sum(len(completion.token_ids) for group in groups for completion in group)
        return groups

    def learn(self, arm: Arm, records: Mapping[str, Record]) -> dict[str, float]:
        """Scores own groups and those of the peers' records, selects as the arm says, and trains; what came of it, in
        counts. reward: the sum over own completions."""
        state, own, seed = self._state, self.agent, f"{self._state.round}/{self.agent}"
        gathered = {peer: _drawn(record, f"{seed}/{peer}") for peer, record in records.items()}
        leave_stage(state, self._data, {own: state.get_latest_communication()[own], **gathered})
        self._rewards.update_rewards(state)
        mine = [reward for nodes in self._rewards[0][own].values() for group in nodes for reward in group]
        assert state.trees is not None  # they were made in `answer`
        if arm.blind and arm.own is not None:
            kept = draw_own(list(state.trees[own]), arm.own, f"blind/{seed}")
            state.trees[own] = {batch_id: state.trees[own][batch_id] for batch_id in kept}
        chosen = select(state, self._rewards, own, None if arm.blind else arm.own, arm.peers, seed)
        self.trainer.train(state, self._data, self._rewards)
        update, peers_used = self.trainer.last_update, sum(chosen.used.values())
        self._rewards.reset()
        return dict(
            node_rounds=1,
            sampled_tokens=self._tokens,
            completions=len(mine),
            reward=sum(mine),
            own_groups=update.groups_with_signal - peers_used,
            peer_groups=peers_used,
            trained_tokens=update.tokens,
            implausible=sum(update.implausible.values()) + sum(update.too_long.values()),
            left_out=sum(sum(reasons.values()) for reasons in self._data.refused.values()),
            steps=int(update.stepped),
        )


class Swarm:
    """The four nodes of an arm and seed. What they start with, draw and sample in a round differs between arms only by
    their weights."""

    def __init__(self, common: Common, arm: Arm, seed: int) -> None:
        self.arm = arm
        self.nodes = [Node(common, seed * NODES + number) for number in range(NODES)]
        self._frozen = [Node(common, seed * NODES + number) for number in range(NODES)] if arm.frozen else []

    def play(self, round: int) -> dict[str, float]:
        """One round of all: everybody answers before anybody learns. The sum of what came of it."""
        records = {node.agent: node.answer(round) for node in self.nodes}
        if self._frozen:
            records = {node.agent: node.answer(round) for node in self._frozen}
        if self.arm.peers == 0:
            records = {}
        total: dict[str, float] = {}
        for node in self.nodes:
            others = {peer: record for peer, record in records.items() if peer != node.agent}
            add(total, node.learn(self.arm, others))
        return total


class Yardstick:
    """The held-out tasks of `swarmd eval`, with the same sampling noise for a node in every arm and round."""

    def __init__(self, common: Common, samples: int) -> None:
        environment = open_environment(common.config, EMBEDDED, ScorerHere(), "bench", samples, HELDOUT_SEED)
        self._temperature = common.recipe.temperature
        # One for all: making the tasks takes time.
        self._evaluator = Evaluator(environment, self, self._temperature)
        self._answering: GRPOTrainer | None = None

    def scores(self, nodes: Sequence[Node]) -> tuple[list[float], list[float]]:
        """Of each node: sampled, greedy."""
        found: list[tuple[float, float]] = []
        for node in nodes:
            self._answering = node.trainer
            found.append((self._evaluator.score(self._temperature).mean, self._evaluator.score(0.0).mean))
        return [sampled for sampled, _ in found], [greedy for _, greedy in found]

    def answer(self, inputs: Any, temperature: float, progress: Callable[[int, int], None] | None) -> list[list[str]]:
        """The evaluator's question to the node whose turn it is."""
        assert self._answering is not None
        return [list(group) for group in self._answering.answer(inputs, temperature, progress)]


def add(total: dict[str, float], counts: Mapping[str, float]) -> None:
    for name, count in counts.items():
        total[name] = total.get(name, 0) + count


@functools.cache
def common() -> Common:
    """The default configuration but for the number of tasks."""
    return open_common(seed=0, tasks=TASKS)


@functools.cache
def yardstick(samples: int) -> Yardstick:
    return Yardstick(common(), samples)


def _group(payload: Payload) -> Payload:
    provenance = payload.world_state.environment_states["provenance"]
    return Payload(WorldState({"provenance": provenance}, None, None), [str(text) for text in payload.actions], None)


def _drawn(record: Record, seed: str) -> dict[str, Record]:
    """Some groups of a record, drawn as admission does: before anybody has looked at their rewards."""
    some = random.Random(seed).sample(record, min(OFFERED, len(record)))
    return {str(number): [payload] for number, payload in enumerate(some)}
