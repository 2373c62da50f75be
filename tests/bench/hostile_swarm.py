"""Seven honest nodes and three other peers in one process: the arms, the nodes, a round."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarmd.network.admission_rules import RawRecord
from swarmd.network.dialects import WireLimits, dialect_for
from swarmd.network.strict_bounds import Bounds
from swarmd.training.trainer import GRPOTrainer
from tests.bench.common import Common, open_common
from tests.bench.hostile_audit import Audit
from tests.bench.hostile_nodes import SWARM_ID, HonestNode, Saboteur, WatchedTrainer
from tests.bench.sapo_swarm import Yardstick, add
from tests.hostile.authors import NOW
from tests.hostile.forging import FORGING
from tests.hostile.misleading import INSIDER, POISONING
from tests.hostile.peers import Behaviour, Claim, HostilePeer, Published, Sent, World
from tests.hostile.seeded import seeded_author

HONEST, OTHERS = 7, 3
ROUND_SECONDS = 300.0
"""The default of a clock's round: what a quarantine of ten minutes is measured against."""

BEHAVIOURS: Mapping[str, Sequence[Behaviour]] = {"forger": FORGING, "poisoner": POISONING, "insider": INSIDER}


@dataclass(frozen=True)
class Arm:
    """others: what the three peers are that are not scored, "honest" or of BEHAVIOURS; none: each node is alone.
    believing: nodes take what peers claim for true, admit everything, and hold no text for implausible. last: played
    when all others are done."""

    key: str
    title: str
    others: tuple[str, ...]
    believing: bool = False
    last: bool = False


ARMS = {
    arm.key: arm
    for arm in (
        Arm("clean", "clean: 10 honest", ("honest",) * OTHERS),
        Arm("hostile", "hostile: 7 honest, 3 hostile", ("forger", "poisoner", "insider")),
        Arm("alone", "alone: 7 without peers", ()),
        Arm("believing", "believing: the same 3, nothing checked", ("forger", "poisoner", "insider"), believing=True),
        Arm("insiders", "insiders: 7 honest, 3 that break no rule", ("insider",) * OTHERS, last=True),
    )
}


class Swarm:
    """Of an arm and a seed. What the seven start with, draw and sample in a round differs between arms only by their
    weights. folder: where the nodes' reputations are kept, by number. honest: how many are scored."""

    def __init__(
        self, common: Common, arm: Arm, seed: int, folder: Path | None = None, honest: int = HONEST
    ) -> None:
        self.arm = arm
        self._common = common
        limits = common.config.network.limits
        self._dialect = dialect_for(  # as the network process makes it
            "swarmd", SWARM_ID, common.config.swarm.shards, "", limits.record_bytes,
            WireLimits(completion_chars=limits.completion_chars, bounds=Bounds(values=1500)),
        )  # fmt: skip
        first = seed * (HONEST + OTHERS)
        authors = [seeded_author(first + number) for number in range(honest + len(arm.others))]
        self._everybody = [
            HonestNode(
                common, self._dialect, first + number, author, arm.believing,
                None if folder is None else folder / str(number),
            )
            for number, author in enumerate(authors)
            if number < honest or arm.others[number - honest] == "honest"
        ]  # fmt: skip
        self.nodes = self._everybody[:honest]
        self._hostile: list[HostilePeer] = []
        self._public: list[Saboteur] = []
        self._wrong: list[Saboteur] = []
        for number, character in enumerate(arm.others):
            if character == "honest":
                continue
            author = authors[honest + number]
            model, wrong = (Saboteur(common, first + honest + number, author.peer_id, SWARM_ID) for _ in range(2))
            self._public.append(model)
            if character == "insider":
                self._wrong.append(wrong)
            peer = HostilePeer(author, BEHAVIOURS[character], number, model.completions, wrong.completions)
            self._hostile.append(peer)
        self._characters = {
            author.peer_id: character for author, character in zip(authors[honest:], arm.others, strict=True)
        }
        self._names = {node.agent: "honest" for node in self._everybody} | {"own": "own"}
        self._before: tuple[Published, ...] = ()
        self._sent_before: Mapping[str, Sequence[RawRecord]] = {}
        self.shut_out: list[tuple[int, int, str]] = []
        """Round, a node's number, and what it has put into quarantine: "honest", or an other's kind in the arm."""
        self.audit = Audit(SWARM_ID, self.nodes[0].trainer.tokens)

    @property
    def trainers(self) -> list[GRPOTrainer]:
        return [node.trainer for node in (*self._everybody, *self._wrong)]

    def save(self) -> None:
        for node in self._everybody:
            node.reputation.save()

    def play(self, round: int) -> dict[str, float]:
        """One round of all: everybody publishes before anybody learns. The sum of what came of it at the seven: by
        behaviour ("honest", "own" or a Sent's kind) and what became of groups."""
        now = NOW + ROUND_SECONDS * round
        expires = now + 1.5 * ROUND_SECONDS
        published = tuple(node.publish(round, expires) for node in self._everybody)
        world = World(
            SWARM_ID, self._common.mix, self._dialect, round, now, expires, published, self._before or published
        )
        for model in (*self._public, *self._wrong):
            model.trainer.begin_round(round)
        sent = {peer.peer_id: peer.send(world) for peer in self._hostile}
        records = {one.peer_id: [one.raw] for one in published} | {peer: list(one.raws) for peer, one in sent.items()}
        # Only what a peer sent under its own name is its word.
        said = {
            peer: [raw for raw in (*raws, *self._sent_before.get(peer, ())) if raw.subkey == peer]
            for peer, raws in records.items()
        }
        found = [raw for raws in records.values() for raw in raws] if self.arm.others else []
        total: dict[str, float] = {}
        for node in self._everybody:
            counts = self._learn(node, round, now, found, published, sent)
            if node in self.nodes:
                add(total, self._by_behaviour(counts, sent))
                add(total, self._audited(node, said, sent))
        for model in self._wrong:
            model.learn_wrong(round)
        self._before, self._sent_before = published, records
        return total

    def _learn(
        self, node: HonestNode, round: int, now: float, found: Sequence[RawRecord], published: Sequence[Published],
        sent: Mapping[str, Sent],
    ) -> Counter[str]:  # fmt: skip
        claims = {one.peer_id: [Claim(group.task, group.completions) for group in one.groups] for one in published}
        claims |= {peer: list(one.claims) for peer, one in sent.items()}
        others = [peer for peer in claims if self.arm.others and peer != node.agent]
        in_quarantine = {peer: node.reputation.quarantined(peer, now) for peer in others}
        before = node.refused()
        counts = node.take_part(round, now, found, claims if self.arm.others else {})
        counts.update(node.refused() - before)
        for peer in others:
            counts.update({f"{peer}/node-rounds": 1, f"{peer}/in quarantine": int(in_quarantine[peer])})
            if node in self.nodes and not in_quarantine[peer] and node.reputation.quarantined(peer, now):
                counts[f"{peer}/shut out"] += 1
                self.shut_out.append((round, self.nodes.index(node), self._characters.get(peer, "honest")))
        return counts

    def _audited(
        self, node: HonestNode, said: Mapping[str, Sequence[RawRecord]], sent: Mapping[str, Sent]
    ) -> dict[str, float]:
        trainer = node.trainer
        assert isinstance(trainer, WatchedTrainer)
        counts: Counter[str] = Counter()
        for group in trainer.given:
            counts[f"{group.peer}/given"] += 1
        for group in trainer.trained:
            counts[f"{group.peer}/trained"] += 1
            counts[f"{group.peer}/tokens"] += sum(map(len, group.completions))
        for violation in self.audit.violations(trainer.given, trainer.trained, said):
            counts[f"{violation.peer}/violation: {violation.kind}"] += 1
        return self._by_behaviour(counts, sent)

    def _by_behaviour(self, counts: Mapping[str, float], sent: Mapping[str, Sent]) -> dict[str, float]:
        total: dict[str, float] = {}
        for name, count in counts.items():
            who, what = name.split("/", 1)
            kind = sent[who].kind if who in sent else self._names.get(who, "nobody")
            total[f"{kind}/{what}"] = total.get(f"{kind}/{what}", 0) + count
        return total


@functools.cache
def common() -> Common:
    """The default configuration."""
    return open_common(seed=0)


@functools.cache
def yardstick(samples: int) -> Yardstick:
    return Yardstick(common(), samples)
