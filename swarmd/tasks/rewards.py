"""Rewards of a round: each completion's score, from the scorer process."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from genrl.rewards import RewardManager
from genrl.state import GameState

from swarmd.tasks.environment import Scoring
from swarmd.tasks.peer_groups import UNSCORABLE, UNSCORED
from swarmd.tasks.peer_scoring import PeerGroup, score_peers
from swarmd.tasks.scorer import ScoreRequest
from swarmd.tasks.verdicts import BUDGET, CRASH

# The scorer's fault, not the answer's.
_NOT_JUDGED = frozenset({CRASH, BUDGET})

_log = logging.getLogger("swarmd")

StageRewards = dict[Any, dict[Any, list[list[float]]]]


class ReasoningRewards(RewardManager):
    """`rewards[stage][agent][batch id][node]`: one number in 0..1 for each completion of that node.

    `last_reasons` counts, for the round rewarded last, why own completions were not scored ("timeout", ...);
    `unjudged` how many of them were not for a fault of their own. A group with such a one gets equal rewards.

    Peers' groups, those whose state names a "peer", are scored after the own ones. Of a group that is not scored as a
    whole the rewards are an empty list; `refused` counts them for the round rewarded last, {peer: {reason: groups}}.
    """

    def __init__(self, scorer: Scoring, peer_seconds: float = 60.0) -> None:
        """peer_seconds: for scoring what peers answered in a round; what is left over then stays unscored."""
        self._scorer = scorer
        self._peer_seconds = peer_seconds
        self.rewards: list[StageRewards] = []
        self.last_reasons: Counter[str] = Counter()
        self.unjudged = 0
        self.refused: Mapping[str, Mapping[str, int]] = {}

    def update_rewards(self, game_state: GameState) -> None:
        """Rewards all stages that are done, the own answers with a single call of the scorer for the whole round.

        What the scorer raises goes through, and the rewards stay as they were.
        """
        requests: list[ScoreRequest] = []
        stages: list[StageRewards] = []
        places: list[list[float]] = []
        peers: list[tuple[PeerGroup, list[float]]] = []
        for stage in range(game_state.stage):
            states, actions = game_state.get_stage_state(stage), game_state.get_stage_actions(stage)
            rewards: StageRewards = {}
            for agent, trees in states.items():
                rewards[agent] = {}
                for tree, nodes in trees.items():
                    rewards[agent][tree] = [[] for _ in nodes]
                    for node, state in enumerate(nodes):
                        world, place = state.environment_states, rewards[agent][tree][node]
                        asked = [_request(world, completion) for completion in actions[agent][tree][node] or ()]
                        if "peer" in world:
                            peers.append((PeerGroup(str(world["peer"]), asked), place))
                            continue
                        requests += asked
                        places += [place] * len(asked)
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
        self._score_peers(peers)
        self.rewards = stages
        self.last_reasons = Counter(score.reason for score in scores if score.reason)

    def _score_peers(self, peers: list[tuple[PeerGroup, list[float]]]) -> None:
        score_peers([group for group, _ in peers], self._scorer.score, self._peer_seconds)
        refused: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for group, place in peers:
            place[:] = group.values
            if len(group.values) != len(group.requests):
                refused[group.peer][UNSCORABLE if group.at_fault else UNSCORED] += 1
        self.refused = dict(refused)

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
