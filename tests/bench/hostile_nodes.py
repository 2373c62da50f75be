"""The nodes of hostile_swarm: an honest one with an identity and an admission of its own, and a model made to fail."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from genrl.communication.communication import Payload
from genrl.state import WorldState

from swarmd.game.exchange import USED, joined
from swarmd.game.selection import select
from swarmd.game.stages import leave_stage
from swarmd.network.admission import Admission
from swarmd.network.admission_rules import RawRecord
from swarmd.network.dialects import Dialect, OutgoingGroup
from swarmd.network.records import AdmittedGroup
from swarmd.network.reputation import REPUTATION_FILE, Reputation
from swarmd.network.settings import ExchangeLimits
from swarmd.tasks.provenance import SLOTS_PER_TASK, Task, task_seed
from swarmd.training.gathering import rows_of
from swarmd.training.models import LoadedModel
from swarmd.training.plausibility import IMPLAUSIBLE, TOO_LONG
from swarmd.training.recipe import Recipe
from swarmd.training.rollouts import Rollout
from swarmd.training.trainer import GRPOTrainer, UpdateReport
from tests.bench.common import Common
from tests.bench.sapo_swarm import Node, Record
from tests.hostile.authors import Author
from tests.hostile.peers import Claim, Published

SWARM_ID = "5eed" * 8

_PATIENCE = 60.0  # what is not found out in time on a busy machine would make runs differ


class WatchedTrainer(GRPOTrainer):
    """Keeps what it is given of peers in a round, and what of that it trained on. believing: it takes peers' text for
    its own, which is never implausible."""

    believing = False
    given: list[Rollout]
    trained: list[Rollout]
    _looked_at: Sequence[Rollout]

    def update(self, rollouts: Sequence[Rollout]) -> UpdateReport:
        self.given = [group for group in rollouts if group.peer]
        self._looked_at = []
        if self.believing:
            report = super().update([replace(rollout, peer="") for rollout in rollouts])
            self.trained = [group for group in self.given if rows_of(group)]
            return report
        report = super().update(rollouts)
        self.trained = [group for group in self._looked_at if group.peer] if report.tokens else []
        return report

    def _rows(self, groups: Sequence[Rollout]) -> list[Any]:
        self._looked_at = groups  # the last ones that it asks for are those of the gradient
        return super()._rows(groups)


class HonestNode(Node):
    """A node with an identity, which signs what it shares and admits what others do. folder: where its reputation is
    kept, None for nowhere."""

    def __init__(
        self, common: Common, dialect: Dialect, seed: int, author: Author, believing: bool, folder: Path | None
    ) -> None:
        self._claims: dict[str, Task] = {}
        self._believing = believing
        super().__init__(common, seed, author.peer_id, SWARM_ID, self._claims.get)
        limits = common.config.network.limits
        self._groups_per_peer = limits.groups_per_peer
        self._common, self._dialect, self._author = common, dialect, author
        self.reputation = Reputation(folder / REPUTATION_FILE if folder is not None else None)
        self._admission = Admission(
            SWARM_ID, author.peer_id, dialect, common.mix, None,
            ExchangeLimits(
                limits.record_bytes, limits.peers_per_round, limits.groups_per_peer, limits.completion_chars
            ),
            self.reputation, _PATIENCE, _PATIENCE, random.Random(f"admission/{seed}"),
        )  # fmt: skip

    def _trainer(self, loaded: LoadedModel, recipe: Recipe, rows_at_once: int) -> WatchedTrainer:
        trainer = WatchedTrainer(loaded, recipe, rows_at_once)
        trainer.believing = self._believing
        return trainer

    def publish(self, round: int, expires: float) -> Published:
        """Answers the round's tasks; the record that it shares of them."""
        payloads = {payload.world_state.environment_states["provenance"]: payload for payload in self._own(round)}
        groups = []
        for slot in range(self._common.tasks_per_round * SLOTS_PER_TASK):
            task = self._common.mix.draw(task_seed(SWARM_ID, round, self.agent, slot))
            if (payload := payloads.pop(task.provenance, None)) is not None:
                logprobs = tuple(sum(one.logprobs) / max(1, len(one.logprobs)) for one in payload.actions)
                groups.append(OutgoingGroup(task, slot, tuple(map(str, payload.actions)), logprobs))
            if not payloads:
                break
        encoded = self._dialect.encode(groups, round, self._author, expires, "embedded")
        self._admission.remember_own(round, [group.completions for group in groups])
        raw = RawRecord(round, self._dialect.key_for(round, self.agent), self.agent, encoded.value, expires)
        return Published(self.agent, raw, tuple(groups))

    def _own(self, round: int) -> Record:
        self.answer(round)
        own = self._state.get_latest_communication()[self.agent]
        return [payload for payloads in own.values() for payload in payloads]

    def take_part(
        self, round: int, now: float, found: Sequence[RawRecord], claims: Mapping[str, Sequence[Claim]]
    ) -> Counter[str]:
        """Takes in what others sent and trains. Counts "own/..." of itself and "<peer id>/..." of each peer."""
        gathered = self._believed(round, claims) if self._believing else self._admitted(round, now, found)
        state, own = self._state, self.agent
        leave_stage(state, self._data, {own: state.get_latest_communication()[own], **gathered})
        self._rewards.update_rewards(state)
        mine = [reward for nodes in self._rewards[0][own].values() for group in nodes for reward in group]
        chosen = select(state, self._rewards, own, None, None, f"{round}/{own}")
        self.trainer.train(state, self._data, self._rewards)
        update = self.trainer.last_update
        judged = [
            {peer: {reason: count} for peer, count in counts.items()}
            for reason, counts in ((IMPLAUSIBLE, update.implausible), (TOO_LONG, update.too_long), (USED, chosen.used))
        ]
        verdicts = joined(self._data.refused, self._rewards.refused, *judged)
        for peer, reasons in verdicts.items():
            for reason, count in reasons.items():
                if reason != USED:
                    self._admission.report(peer, reason, now, count)
        self._rewards.reset()
        counts = Counter({
            "own/rounds": 1, "own/completions": len(mine), "own/reward": sum(mine), "own/groups": chosen.own_used,
            "own/with signal": chosen.own_with_signal, "own/tokens trained on": update.tokens,
        })  # fmt: skip
        for peer, payloads in gathered.items():
            counts[f"{peer}/admitted"] += len(payloads)
        for peer, reasons in verdicts.items():
            counts.update({f"{peer}/{reason}": count for reason, count in reasons.items()})
        return counts

    def _admitted(self, round: int, now: float, found: Sequence[RawRecord]) -> dict[str, dict[str, list[Payload]]]:
        """As the network process reads them: what is worth it of this round and of the last one."""
        others = [raw for raw in found if raw.subkey != self.agent]
        groups: list[AdmittedGroup] = []
        for last in (False, True):
            some = [raw for raw in others if (raw.round == round - 1) == last]
            groups += self._admission.admit(self._admission.sift(some, round), round, now)
        gathered: dict[str, dict[str, list[Payload]]] = {}
        for group in groups:
            peer = gathered.setdefault(group.peer_id, {})
            peer[f"{group.round}-{len(peer)}"] = [_payload({"provenance": group.provenance}, group.completions)]
        return gathered

    def _believed(self, round: int, claims: Mapping[str, Sequence[Claim]]) -> dict[str, dict[str, list[Payload]]]:
        """As GenRL's nodes take it in: question, answer and all."""
        self._claims.clear()
        gathered: dict[str, dict[str, list[Payload]]] = {}
        for peer, theirs in claims.items():
            if peer == self.agent:
                continue
            rng = random.Random(f"{round}/{self.agent}/{peer}")
            for claim in rng.sample(list(theirs), min(self._groups_per_peer, len(theirs))):
                name = f"claim {len(self._claims)}"
                self._claims[name] = claim.task
                gathered.setdefault(peer, {})[name] = [_payload({"question": name}, claim.completions)]
        return gathered

    def forgive(self) -> None:
        """Forgets what it holds against anybody, quarantines too."""
        self.reputation = self._admission._verdicts.reputation = Reputation(None)

    def refused(self) -> Counter[str]:
        """Records and groups that admission has refused since the start: "<peer id>/refused: <reason>"."""
        return Counter({
            f"{peer}/refused: {reason}": count
            for peer, reasons in self._admission.refused.items() for reason, count in reasons.items()
        })  # fmt: skip


class Saboteur(Node):
    """Trains a model as an honest node does, but to be wrong."""

    def learn_wrong(self, round: int) -> None:
        self.answer(round)
        state, own = self._state, self.agent
        leave_stage(state, self._data, {own: state.get_latest_communication()[own]})
        self._rewards.update_rewards(state)
        for nodes in self._rewards[0][own].values():
            for group in nodes:
                group[:] = [1.0 - reward for reward in group]
        self.trainer.train(state, self._data, self._rewards)
        self._rewards.reset()

    def completions(self, tasks: Sequence[Task]) -> list[list[str]]:
        asked = [{"prompt": self._data.prompt(task.question)} for task in tasks]
        return [list(map(str, group)) for group in self.trainer.generate(asked)] if asked else []


def _payload(state: dict[str, Any], completions: Sequence[str]) -> Payload:
    return Payload(WorldState(state, None, None), list(completions), None)
