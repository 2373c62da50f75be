"""Forks nodes as `preloaded` does, whose trainers write down what they are given: for a judge outside the node.

    python -m tests.integration.audited

A plug-in (`tasks.environment`) cannot tell that: a node with an environment of its own exchanges nothing with others,
since they could not make its tasks again. So the trainer is looked at, from outside and at two places: what `train` is
handed, and which of it reaches the gradient. Nothing is changed on its way, and nothing else of the node is touched.

Each round is a line of JSON in AUDIT_FOLDER/<peer id>.jsonl:
  {"round", "groups": [{"agent", "prompt", "prompt_ids", "completions", "ids": of each completion, "rewards"}],
   "rows": [[prompt's ids, completion's ids, advantage]], "implausible": {peer: groups}, "too_long": {peer: groups}}
and what it has its network process publish one in AUDIT_FOLDER/shared/<peer id>.jsonl:
  {"round", "groups": [{"slot", "provenance", "completions", ...}]}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from swarmd.system.startup import prepare_process
from tests.integration.preloaded import serve

FOLDER = "AUDIT_FOLDER"
_MOST_IDS = 512  # of a completion: more than is ever sampled here


def look_at_training() -> None:
    """From now on the nodes of this process and its forks write down what they share, and what they train on."""
    from swarmd.network.swarm_link import Swarm
    from swarmd.training import trainer as room

    exchange = Swarm._exchange

    def exchange_seen(self: Any, round: int, groups: list[dict[str, Any]]) -> Any:
        folder = Path(os.environ[FOLDER]) / "shared"
        folder.mkdir(exist_ok=True)
        with open(folder / f"{self._peer_id}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"round": round, "groups": groups}) + "\n")
        return exchange(self, round, groups)

    train, accumulate = room.GRPOTrainer.train, room.accumulate_gradient
    rows: list[Any] = []

    def accumulate_seen(model: Any, given: Sequence[Any], *rest: Any) -> Any:
        rows.extend(given)
        return accumulate(model, given, *rest)

    def train_seen(self: Any, state: Any, data: Any, rewards: Any) -> None:
        rows.clear()
        groups = list(handed(state, data, rewards, self.tokens))
        train(self, state, data, rewards)
        line = {
            "round": state.round,
            "groups": groups,
            "rows": [[row.prompt_ids, row.completion_ids, row.advantage] for row in rows],
            "implausible": dict(self.last_update.implausible),
            "too_long": dict(self.last_update.too_long),
        }
        with open(Path(os.environ[FOLDER]) / f"{self.own}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    Swarm._exchange = exchange_seen  # type: ignore[method-assign]
    room.accumulate_gradient = accumulate_seen
    room.GRPOTrainer.train = train_seen  # type: ignore[method-assign]


def handed(state: Any, data: Any, rewards: Any, tokens: Any) -> Iterator[dict[str, Any]]:
    """The groups of a finished game as they come to the trainer."""
    for stage in range(state.stage):
        inputs, places = data.prepare_input(state.get_stage_state(stage), stage)
        actions, given = state.get_stage_actions(stage), rewards[stage]
        for index, row in enumerate(inputs):
            agent, batch, node = places[index]
            group = actions[agent][batch][node]
            yield {
                "agent": str(agent),
                "prompt": row["prompt"],
                "prompt_ids": tokens.prompt_ids(row["prompt"]),
                "completions": [str(completion) for completion in group],
                "ids": [
                    # Own ones carry the tokens that were sampled; what came as text becomes tokens in the trainer.
                    getattr(completion, "token_ids", None) or tokens.completion_ids(str(completion), _MOST_IDS)
                    for completion in group
                ],
                "rewards": list(given[agent][batch][node]),
            }


if __name__ == "__main__":
    prepare_process()
    look_at_training()
    serve()
