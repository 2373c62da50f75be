"""What a call of admission may cost at most, and who is looked at where that does not suffice for all."""

import os
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from swarmd.network import admission as admission_module
from swarmd.network.admission_rules import RawRecord
from swarmd.network.looked_at import in_turns
from swarmd.network.refusals import Reason, Refused
from swarmd.network.reputation import GOOD, Reputation
from tests.hostile.admitting import admission, attacker, dialect_named, others, victim
from tests.hostile.authors import NOW, ROUND, Author, honest, honest_groups, own_group, published

OWN, LEGACY = dialect_named("swarmd"), dialect_named("genrl-0.3")


def good(author: Author, round: int = ROUND) -> RawRecord:
    return honest(OWN, author, random.Random(author.peer_id), round)


def test_what_there_was_no_time_for_is_looked_at_when_it_is_read_again() -> None:
    admitting = admission(OWN, looking_seconds=0.0)
    assert admitting.sift([good(attacker)], ROUND) == []
    assert admitting.admit([good(attacker)], ROUND, NOW) == [] and admitting.met(ROUND) == frozenset()
    assert admitting.totals == {Reason.NO_TIME: 2}
    admitting._looking_seconds = 60.0
    assert len(admitting.sift([good(attacker)], ROUND)) == 1
    assert len(admitting.admit([good(attacker)], ROUND, NOW)) == 2


def test_a_call_ends_when_its_answer_must_be_there() -> None:
    admitting = admission(OWN)
    assert admitting.admit([good(attacker)], ROUND, NOW, time.monotonic() - 1.0) == []
    assert admitting.totals == {Reason.NO_TIME: 1}


def test_those_whose_groups_were_taken_before_are_looked_at_in_turns_with_newcomers() -> None:
    admitting, rng = admission(OWN), random.Random(1)
    admitting.admit([good(victim)], ROUND, NOW)
    flood = [good(author, ROUND + 1) for author in (attacker, *others)]
    for _ in range(20):
        assert in_turns([*flood, good(victim, ROUND + 1)], admitting.reputation, rng)[0].subkey == victim.peer_id
    admitting.admit([good(others[0])], ROUND, NOW)
    ordered = in_turns([*flood, good(victim, ROUND + 1)], admitting.reputation, rng)
    assert [raw.subkey in (victim.peer_id, others[0].peer_id) for raw in ordered[:4]] == [True, False, True, False]


def test_a_flood_of_names_does_not_keep_those_known_from_being_found_worth_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    admitting = admission(OWN)
    admitting.admit([good(victim)], ROUND, NOW)
    known = good(victim, ROUND + 1)
    flood = [replace(known, subkey="Qm" + f"{n:0>44}".replace("0", "z"), value=b"junk") for n in range(500)]
    looks: Iterator[int]

    def in_time(until: float) -> None:
        if next(looks, None) is None:
            raise Refused(Reason.NO_TIME, "there was time for four")

    monkeypatch.setattr(admission_module, "in_time", in_time)
    for _ in range(5):
        looks = iter(range(4))
        assert admitting.sift([*flood, known], ROUND + 1) == [known]


def test_a_round_brings_so_many_bytes_of_completions_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "ANSWER_BYTES", 5000)
    admitting = admission(OWN)
    groups = [
        own_group(author, ROUND, 0, [f"{n} {author.peer_id} " + "ä" * 1000 for n in range(2)]) for author in others
    ]
    admitted = admitting.admit(
        [published(OWN, author, [group]) for author, group in zip(others, groups, strict=True)], ROUND, NOW
    )
    assert len(admitted) == 1, "each has 4000 bytes and more"
    assert admitting.totals == {Reason.QUOTA_ROUND: len(others) - 1}
    assert all(not row["quarantined"] and row["reputation"] == 1.0 for row in admitting.peers(NOW))
    assert len(admitting.admit([good(attacker, ROUND + 1)], ROUND + 1, NOW)) == 2


def test_the_same_groups_published_anew_are_no_second_record() -> None:
    admitting = admission(OWN)
    groups = honest_groups(attacker, ROUND, random.Random(1))
    assert len(admitting.admit([published(OWN, attacker, groups)], ROUND, NOW)) == 2
    later = OWN.encode(groups[::-1], ROUND, attacker, NOW + 400.0)
    anew = replace(published(OWN, attacker, groups), value=later.value, expires=NOW + 400.0)
    assert admitting.admit([anew], ROUND, NOW) == [] and admitting.totals == {}


def test_a_forged_record_is_not_worth_reading_and_is_counted_once() -> None:
    admitting, raw = admission(OWN), good(victim)
    forged = [
        replace(raw, value=b"junk"), replace(raw, value=raw.value[:-1]), replace(raw, expires=raw.expires + 1.0),
        replace(raw, expires=float("nan")), replace(raw, key=raw.key + "0"), replace(raw, subkey=attacker.peer_id),
    ]  # fmt: skip
    for _ in range(3):
        assert admitting.sift([*forged, raw], ROUND) == [raw]
    assert sum(admitting.totals.values()) == len(forged) and admitting.met(ROUND) == frozenset()
    assert admitting.reputation.score(victim.peer_id, NOW) == 1.0


def test_a_record_of_a_later_version_is_told_as_such() -> None:
    admitting, raw = admission(OWN), good(victim)
    assert admitting.sift([replace(raw, value=raw.value[:7] + b"\x02" + raw.value[8:])], ROUND) == []
    assert admitting.totals == {Reason.OTHER_VERSION: 1}


def test_in_a_legacy_swarm_who_cannot_sign_is_read_all_the_same() -> None:
    raw = honest(LEGACY, attacker, random.Random(1))
    assert admission(LEGACY).sift([replace(raw, value=raw.value[:10])], ROUND) != []


def test_who_has_signed_but_claims_false_tasks_is_not_met() -> None:
    admitting = admission(OWN)
    group = replace(own_group(attacker, ROUND, 0, ["x", "y"]), slot=1)
    assert admitting.admit([published(OWN, attacker, [group]), good(victim)], ROUND, NOW)
    assert admitting.met(ROUND) == {victim.peer_id}


def test_the_reputation_waits_for_the_disk_once_a_minute_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    path = tmp_path / "reputation.json"
    reputation = Reputation(path)
    for number in range(5):
        reputation.report("peer", GOOD, NOW + number)
        reputation.save()
        assert Reputation(path).score("peer", NOW) == 1.0 and len(Reputation(path)) == 1
    assert len(synced) == 1
