"""Rewards of a round: each completion's score, from the scorer process."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from genrl.rewards import RewardManager
from genrl.state import GameState

from swarmd.tasks.environment import Scoring
from swarmd.tasks.scorer import ScoreRequest
from swarmd.tasks.verdicts import BUDGET, CRASH

# The scorer's fault, not the answer's.
_NOT_JUDGED = frozenset({CRASH, BUDGET})

_log = logging.getLogger("swarmd")

StageRewards = dict[Any, dict[Any, list[list[float]]]]


class ReasoningRewards(RewardManager):
    """`rewards[stage][agent][batch id][node]`: one number in 0..1 for each completion of that node.

    `last_reasons` counts, for the round rewarded last, why completions were not scored ("timeout", ...); `unjudged`
    how many of them were not for a fault of their own. A group with such a one gets equal rewards.
    """

    def __init__(self, scorer: Scoring) -> None:
        self._scorer = scorer
        self.rewards: list[StageRewards] = []
        self.last_reasons: Counter[str] = Counter()
        self.unjudged = 0

    def update_rewards(self, game_state: GameState) -> None:
        """Rewards all stages that are done, with a single call of the scorer for the whole round.

        What the scorer raises goes through, and the rewards stay as they were.
        """
        requests: list[ScoreRequest] = []
        stages: list[StageRewards] = []
        places: list[list[float]] = []
        for stage in range(game_state.stage):
            states, actions = game_state.get_stage_state(stage), game_state.get_stage_actions(stage)
            rewards: StageRewards = {}
            for agent, trees in states.items():
                rewards[agent] = {}
                for tree, nodes in trees.items():
                    rewards[agent][tree] = [[] for _ in nodes]
                    for node, state in enumerate(nodes):
                        for completion in actions[agent][tree][node] or ():
                            requests.append(_request(state.environment_states, completion))
                            places.append(rewards[agent][tree][node])
            stages.append(rewards)
        scores = self._scorer.score(requests) if requests else []
        unjudged: list[list[float]] = []
        for place, score in zip(places, scores, strict=True):
            place.append(score.value)
            if score.reason in _NOT_JUDGED:
                unjudged.append(place)
        for place in unjudged:
            # Equal rewards teach nothing. A zero among others would teach against an answer that nobody looked at.
            place[:] = [0.0] * len(place)
        self.unjudged = len(unjudged)
        if unjudged:
            _log.warning("%d of %d completions were not scored: the scorer failed", len(unjudged), len(scores))
        self.rewards = stages
        self.last_reasons = Counter(score.reason for score in scores if score.reason)

    def reset(self) -> None:
        """Forgets the rewards, as GenRL asks at the end of a round; `last_reasons` stays until the next ones."""
        self.rewards = []

    def __getitem__(self, stage: int) -> StageRewards:
        return self.rewards[stage]

    def __call__(self) -> list[StageRewards]:
        """The rewards of all stages of the round."""
        return self.rewards


def _request(state: dict[str, Any], completion: str) -> ScoreRequest:
    # str(): a completion carries its tokens and log-probs along, which are nothing to the scorer process.
    return ScoreRequest(
        dataset=state["provenance"].dataset,
        completion=str(completion),
        answer=state["answer"],
        metadata=state["metadata"],
    )
