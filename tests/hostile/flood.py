"""Very many hostile records, with honest ones between them, through one node's admission; and what it cost."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, replace
from itertools import islice

from swarmd.network.admission_rules import RawRecord
from swarmd.network.dialects import Dialect
from swarmd.network.dialects.genrl_payload import GenrlDialect
from swarmd.network.dialects.own import OwnDialect
from swarmd.network.records import AdmittedGroup
from swarmd.system.memory import rss_bytes
from tests.hostile.admitting import LIMITS, admission, attacker, dialect_named, not_our_own, others, victim
from tests.hostile.authors import NOW, ROUND, honest
from tests.hostile.corpus import corpus_samples
from tests.hostile.legacy import legacy_samples
from tests.hostile.mutations import mutations
from tests.hostile.own import own_samples

_CALL = 2500
"""Records in a call: forty times as many as a node reads in a round."""


@dataclass(frozen=True)
class FloodResult:
    """seconds: of admission alone. growth: bytes of resident memory from the first call's end to the highest later.
    honest_lost: groups of honest peers that were not admitted."""

    records: int
    seconds: float
    growth: int
    peers: int
    honest_lost: int
    wrong: tuple[str, ...]
    refused: Counter[str]

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.records / self.seconds


def base(dialect_name: str, seed: int) -> list[RawRecord]:
    """The records that the flood is made from: every kind, the corpus, and honest ones, which are damaged too."""
    dialect = dialect_named(dialect_name)
    rng = random.Random(seed)
    records = [sample.raw for sample in corpus_samples(dialect, attacker.peer_id)]
    for number in (seed, seed + 1):
        if isinstance(dialect, OwnDialect):
            records += [sample.raw for sample in own_samples(dialect, attacker, victim, number, "/nowhere/marker")]
        elif isinstance(dialect, GenrlDialect):
            records += [sample.raw for sample in legacy_samples(dialect, attacker, victim, number, "/nowhere/marker")]
    records += [honest(dialect, author, rng) for author in (attacker, victim)]
    # A few of them are megabytes: alone they show that they are refused, a thousand times over they show no more.
    return [raw for raw in records if not isinstance(raw.value, bytes) or len(raw.value) < 100_000]


def flood(dialect_name: str, records: int, seed: int) -> FloodResult:
    """`records` hostile ones in calls of 2500, with the records of two honest peers in each."""
    dialect = dialect_named(dialect_name)
    rng = random.Random(seed)
    damaged = mutations(base(dialect_name, seed), seed, records)
    lasting, refused = admission(dialect, seed=seed), Counter[str]()
    seconds, first, highest, sent, lost = 0.0, 0, 0, 0, 0
    wrong: list[str] = []
    for call in range(-(-records // _CALL)):
        # Every other call is in the round that the signatures are for, and at a node that knows nobody yet, so that
        # what it would never decode of peers in quarantine is looked at in full. The others come to one node, in new
        # rounds.
        round = ROUND + call * (call % 2)
        admitting = admission(dialect, seed=seed + call) if round == ROUND else lasting
        hostile = [_moved(raw, round - ROUND, dialect) for raw in islice(damaged, min(_CALL, records - sent))]
        good = [honest(dialect, author, rng, round) for author in rng.sample(others, 2)]
        found = [*hostile, *good]
        rng.shuffle(found)
        started = time.process_time()
        groups = admitting.admit(found, round, NOW)
        seconds += time.process_time() - started
        sent += len(hostile)
        lost += 2 * len(good) - _from_peers(groups, [raw.subkey for raw in good])
        wrong += not_our_own(groups)
        if admitting is not lasting:
            refused.update(admitting.totals)
        now_used = rss_bytes()
        first, highest = first or now_used, max(highest, now_used)
    peers = len(lasting.peers(NOW))
    refused.update(lasting.totals)
    assert len(groups) <= LIMITS.peers_per_round * LIMITS.groups_per_peer * 2
    return FloodResult(sent, seconds, highest - first, peers, lost, tuple(wrong), refused)


def _moved(raw: RawRecord, rounds: int, dialect: Dialect) -> RawRecord:
    """The record so many rounds later, under the key where it belongs then; a signature that it has is for ROUND."""
    if not rounds or not isinstance(raw.subkey, str) or not isinstance(raw.key, str):
        return raw
    round = raw.round + rounds
    return replace(raw, round=round, key=dialect.key_for(round, raw.subkey))


def _from_peers(groups: list[AdmittedGroup], peers: list[str]) -> int:
    return sum(group.peer_id in peers for group in groups)
