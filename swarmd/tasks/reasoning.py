"""reasoning-gym as a GenRL environment: the tasks of a round as game trees, and the model's answers back into them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from genrl.data import DataManager
from genrl.state import GameState, WorldState
from reasoning_gym.utils import SYSTEM_PROMPTS

from swarmd.system.exits import SettingProblem
from swarmd.tasks.dataset_settings import MixError
from swarmd.tasks.environment import Environment, EnvironmentContext
from swarmd.tasks.mix import TaskMix
from swarmd.tasks.mix_files import mix_of
from swarmd.tasks.peer_groups import PeerGroups
from swarmd.tasks.provenance import SLOTS_PER_TASK, Task, task_seed
from swarmd.tasks.rewards import ReasoningRewards

Messages = list[dict[str, str]]
NodeIndex = tuple[Any, Any, int]  # agent, batch id, node within the stage
Prompts = list[dict[str, Messages]]

PEERS_COMPLETIONS = 2
"""Completions of a peer's group that are scored and trained on at most, as a multiple of this node's group size. So the
time that training takes follows from this node's settings; peers that sample twice as many lose nothing."""


class ReasoningData(DataManager):
    """The tasks of one node, one stage a round.

    A tree's batch id is the MD5 of its question, as in GenRL 0.3. The state at a node is
    {"question", "answer", "metadata", "provenance", "prompt"}, and "peer" where a peer answered; its actions are the
    list of completions.

    refused: what of the peers' groups was left out in this round, {peer: {reason: groups}} (`tasks.peer_groups`).
    """

    def __init__(
        self,
        mix: TaskMix,
        swarm_id: str,
        node_id: str,
        tasks_per_round: int,
        system_prompt: str | None,
        evaluate_samples: int,
        evaluate_seed: int,
        peer_seconds: float = 60.0,
        by_question: Callable[[str], Task | None] | None = None,
        most_completions: int | None = None,
    ) -> None:
        """peer_seconds, by_question: as in EnvironmentContext. most_completions: taken of a peer's group, None for
        all."""
        self.mix = mix
        self._swarm_id = swarm_id
        self._node_id = node_id
        self._tasks_per_round = tasks_per_round
        self._system_prompt = system_prompt
        self._evaluate_samples = evaluate_samples
        self._evaluate_seed = evaluate_seed
        self._peers = PeerGroups(mix.regenerate, by_question, self.root, peer_seconds, most_completions)
        self._round: int | None = None
        self.refused: Mapping[str, Mapping[str, int]] = {}

    def begin_round(self, round: int) -> None:
        """Names the round whose tasks `get_round_data` gives: the swarm's number for it, not a count of calls."""
        self._round = round
        self.refused = {}

    def get_round_data(self) -> list[tuple[str, WorldState]]:
        """The round's tasks, the same ones each time. RuntimeError before begin_round."""
        if self._round is None:
            raise RuntimeError("no round has begun")
        tasks = draw_round(self.mix, self._swarm_id, self._round, self._node_id, self._tasks_per_round)
        return [self.root(task) for task in tasks]

    def get_eval_data(self) -> list[tuple[str, WorldState]]:
        """The held-out tasks, always the same ones, `evaluate_samples` of them.

        Where a dataset has too few questions some come again; those have a batch id of their own, and so a tree.
        """
        seen: Counter[str] = Counter()
        data = []
        for task in self.mix.heldout(self._evaluate_samples, self._evaluate_seed):
            tree, state = self.root(task)
            data.append((f"{tree}-{seen[tree]}" if seen[tree] else tree, state))
            seen[tree] += 1
        return data

    def root(self, task: Task) -> tuple[str, WorldState]:
        """Batch id and state of the tree that starts with this task."""
        state = {
            "question": task.question,
            "answer": task.answer,
            "metadata": task.metadata,
            "provenance": task.provenance,
            "prompt": self.prompt(task.question),
        }
        return batch_id(task.question), WorldState(environment_states=state, opponent_states=None, personal_states=None)

    def prompt(self, question: str) -> Messages:
        """The chat messages that put the question to the model."""
        system = [{"role": "system", "content": self._system_prompt}] if self._system_prompt is not None else []
        return [*system, {"role": "user", "content": question}]

    def prepare_input(
        self, inputs: Mapping[Any, Mapping[Any, Sequence[WorldState]]], stage: int | None = None
    ) -> tuple[Prompts, dict[int, NodeIndex]]:
        """A prompt for each node of the stage, and for each prompt the place of its node."""
        prompts: Prompts = []
        places: dict[int, NodeIndex] = {}
        for agent, trees in inputs.items():
            for tree, nodes in trees.items():
                for node, state in enumerate(nodes):
                    places[len(prompts)] = (agent, tree, node)
                    prompts.append({"prompt": state.environment_states["prompt"]})
        return prompts, places

    def prepare_actions(
        self, outputs: Sequence[Sequence[str]], index_mapping: Mapping[int, NodeIndex]
    ) -> dict[Any, dict[Any, list[list[str]]]]:
        """actions[agent][batch id][node]: the completions of each prompt, put where the prompt came from.

        ValueError where there are more or fewer outputs than prompts.
        """
        if len(outputs) != len(index_mapping):
            raise ValueError(f"{len(outputs)} outputs for {len(index_mapping)} prompts")
        actions: dict[Any, dict[Any, list[list[str]]]] = {}
        for position, (agent, tree, _) in sorted(index_mapping.items(), key=lambda entry: entry[1][2]):
            actions.setdefault(agent, {}).setdefault(tree, []).append(list(outputs[position]))
        return actions

    def prepare_states(
        self, current_state: GameState, swarm_states: Mapping[Any, Any]
    ) -> dict[Any, dict[Any, list[WorldState]]]:
        """The states to start the next stage with: those of this one, since a task stays what it is.

        swarm_states: what GenRL's Communication gathers, {agent: {batch id: [Payload]}}. A peer's payload says which
        task it answered, by "provenance" or "question", and what; its groups become trees of their own.
        """
        refused = self._peers.transplant(current_state, swarm_states, f"{self._round}/{self._node_id}")
        if refused:
            self.refused = refused
        states: dict[Any, dict[Any, list[WorldState]]] = current_state.get_latest_state()
        return states


def batch_id(question: str) -> str:
    """The name of a question's tree, as GenRL 0.3 makes it (hexadecimal MD5)."""
    return hashlib.md5(question.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def draw_round(mix: TaskMix, swarm_id: str, round: int, node_id: str, count: int) -> list[Task]:
    """A node's tasks in a round, in the order of their slots, with `count` different questions.

    A slot whose question an earlier one has is passed over: two tasks with one question would share a tree, and
    one of them would vanish. Raises MixError where the mix has fewer questions than that.
    """
    tasks: dict[str, Task] = {}
    for slot in range(count * SLOTS_PER_TASK):
        task = mix.draw(task_seed(swarm_id, round, node_id, slot))
        tasks.setdefault(task.question, task)
        if len(tasks) == count:
            return list(tasks.values())
    message = (
        f"only {len(tasks)} different questions in {count * SLOTS_PER_TASK} draws, and a round has {count} "
        "(training.tasks_per_round); widen the datasets or lower that"
    )
    raise MixError([SettingProblem("tasks.datasets", message)])


def resolve_system_prompt(setting: str, *, embedded: bool) -> str | None:
    """The system prompt for `tasks.system_prompt`; "auto": none for the embedded model, which was made without, and
    for others reasoning-gym's instruction to think and to answer in <answer> tags. None for an empty text."""
    if setting != "auto":
        return setting or None
    return None if embedded else SYSTEM_PROMPTS["default"]


def reasoning_environment(settings: Any, context: EnvironmentContext) -> Environment:
    """The environment `reasoning_gym`, for the mix in `tasks.datasets`. Raises MixError for a broken mix."""
    data = ReasoningData(
        mix_of(settings.datasets),
        context.swarm_id,
        context.node_id,
        context.tasks_per_round,
        context.system_prompt,
        context.evaluate_samples,
        context.seed,
        context.peer_seconds,
        context.by_question,
        PEERS_COMPLETIONS * context.group_size,
    )
    return Environment("reasoning_gym", data, ReasoningRewards(context.scorer, context.peer_seconds))
