"""Admission as a whole: who gets how much, what is looked at twice, and what is told of it."""

import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swarmd.network.admission import Admission
from swarmd.network.admission_rules import RawRecord
from swarmd.network.names import name_of
from swarmd.network.refusals import Reason
from swarmd.network.reputation import FIRST_QUARANTINE, Reputation
from tests.hostile.admitting import LIMITS, admission, attacker, dialect_named, me, others, victim
from tests.hostile.authors import (
    NOW,
    ROUND,
    Author,
    answers,
    honest,
    honest_groups,
    own_group,
    own_task,
    prose,
    published,
    under,
)
from tests.hostile.legacy import asked, record, stock
from tests.hostile.own import signed_group

OWN, LEGACY = dialect_named("swarmd"), dialect_named("genrl-0.1")


def good(author: Author, round: int = ROUND, seed: int = 1, count: int = 2) -> RawRecord:
    return honest(OWN, author, random.Random(f"{seed} {author.peer_id}"), round, count)


def false_claim(author: Author) -> RawRecord:
    return signed_group(OWN, author, ["a", "b"], seed=1)


def test_an_honest_record_is_admitted_with_its_completions_and_provenance() -> None:
    groups = honest_groups(attacker, ROUND, random.Random(1))
    admitted = admission(OWN).admit([published(OWN, attacker, groups)], ROUND, NOW)
    assert {group.provenance: group.completions for group in admitted} == {
        group.task.provenance: group.completions for group in groups
    }
    assert {(group.peer_id, group.round, group.question) for group in admitted} == {(attacker.peer_id, ROUND, None)}


def test_a_record_is_admitted_once_however_often_it_is_read() -> None:
    admitting, raw = admission(OWN), good(attacker)
    assert len(admitting.admit([raw, raw], ROUND, NOW)) == 2
    assert admitting.admit([raw], ROUND, NOW) == []
    assert admitting.admit([raw], ROUND + 1, NOW) == []
    assert admitting.totals == {}


def test_a_late_record_of_the_last_round_is_still_admitted() -> None:
    admitting, early = admission(OWN), good(attacker)
    admitting.admit([early], ROUND, NOW)
    assert len(admitting.admit([early, good(victim)], ROUND + 1, NOW)) == 2
    assert admitting.admit([good(others[0])], ROUND + 2, NOW) == []
    assert admitting.totals == {Reason.OLD_ROUND: 1}


def test_late_records_take_no_place_of_their_address_block_in_the_next_round() -> None:
    admitting, block = admission(OWN), others[:4]
    late = [replace(good(author), address=f"8.8.8.{number}") for number, author in enumerate(block)]
    now = [replace(good(author, ROUND + 1), address=f"8.8.8.{number}") for number, author in enumerate(block)]
    assert len(admitting.admit([*late, *now], ROUND + 1, NOW)) == 16
    assert admitting.totals == {}


def test_a_thread_of_an_exchange_that_was_given_up_brings_nothing_and_nothing_is_forgotten_for_it() -> None:
    admitting, found = admission(OWN), [good(attacker, ROUND + 1)]
    assert len(admitting.admit(found, ROUND + 1, NOW)) == 2
    assert admitting.sift([good(victim)], ROUND) == admitting.admit([good(victim)], ROUND, NOW) == []
    assert admitting.admit(found, ROUND + 1, NOW) == []
    admitting.start_over()
    assert len(admitting.admit([good(victim)], ROUND, NOW)) == 2, "the rounds are counted anew"


def test_a_second_record_of_a_peer_for_one_round_is_a_duplicate() -> None:
    admitting = admission(OWN)
    assert len(admitting.admit([good(attacker), good(attacker, seed=2)], ROUND, NOW)) == 2
    assert admitting.refused == {attacker.peer_id: {Reason.DUPLICATE: 1}}
    assert len(admitting.admit([good(attacker, ROUND + 1)], ROUND + 1, NOW)) == 2


def test_a_peers_bytes_with_another_expiration_do_not_keep_its_record_out() -> None:
    admitting, raw = admission(OWN), good(attacker)
    assert admitting.admit([replace(raw, expires=raw.expires + 50)], ROUND, NOW) == []
    assert len(admitting.admit([raw], ROUND, NOW)) == 2


def test_what_comes_too_early_is_counted_once_and_taken_in_its_time() -> None:
    admitting, raw = admission(OWN), good(attacker, ROUND + 1)
    for _ in range(5):
        assert admitting.admit([raw], ROUND, NOW) == []
        assert admitting.admit([good(victim)], ROUND, NOW - 700) == []
    assert admitting.totals[Reason.FUTURE_ROUND] == 1
    assert len(admitting.admit([raw], ROUND + 1, NOW)) == 2
    long_lived = good(others[0], ROUND + 1)
    for _ in range(5):
        admitting.admit([long_lived], ROUND + 1, NOW - 700)
    assert admitting.totals[Reason.EXPIRES_TOO_LATE] == 6
    assert len(admitting.admit([long_lived], ROUND + 1, NOW)) == 2


def test_the_status_may_be_asked_for_while_records_are_admitted(tmp_path: Path) -> None:
    admitting, rng = admission(LEGACY, tmp_path / "reputation.json"), random.Random(1)
    alphabet = "abcdefghijkmnopqrstuvwxyz"
    found = [stock(LEGACY, "Qm" + "".join(rng.choices(alphabet, k=44)), rng) for _ in range(300)]
    working = threading.Thread(target=lambda: [admitting.admit([raw], ROUND, NOW) for raw in found])
    working.start()
    asked_for = 0
    while working.is_alive():
        assert len(admitting.peers(NOW)) <= len(found) and len(admitting.refused) <= len(admitting.totals) * len(found)
        admitting.report(attacker.peer_id, "unscored", NOW)
        admitting.reputation.save()
        asked_for += 1
    working.join()
    assert asked_for > 0 and admitting.totals["unscored"] == asked_for and len(admitting.peers(NOW)) == len(found)


def test_a_task_twice_in_a_record_is_taken_once() -> None:
    group = own_group(attacker, ROUND, 0, ["x", "y"])
    admitting = admission(OWN)
    assert len(admitting.admit([published(OWN, attacker, [group, group])], ROUND, NOW)) == 1
    assert admitting.totals == {Reason.DUPLICATE: 1}


def test_of_each_peer_as_many_groups_as_configured_are_taken_and_the_rest_is_no_fault() -> None:
    admitting = admission(OWN)
    assert len(admitting.admit([good(attacker, count=7)], ROUND, NOW)) == LIMITS.groups_per_peer
    assert admitting.totals == {Reason.QUOTA_PEER: 3}
    assert admitting.reputation.score(attacker.peer_id, NOW) == 1.0


class Told(random.Random):
    """Chance as it is told."""

    chance = 0.0

    def random(self) -> float:
        return self.chance


def taken(slots: Sequence[int], rng: random.Random) -> int:
    """How many groups are taken of a record that shows these draws."""
    groups = [own_group(attacker, ROUND, slot, answers(own_task(attacker, ROUND, slot), rng)) for slot in slots]
    return len(admission(OWN, rng=rng).admit([published(OWN, attacker, groups)], ROUND, NOW))


def test_who_shows_only_some_of_its_draws_has_fewer_of_them_taken() -> None:
    rng = random.Random(1)
    assert taken([0, 1, 3, 4], rng) == LIMITS.groups_per_peer, "one was a question that came before"
    told = Told(1)
    chosen = []
    for chance in range(60):
        told.chance = (chance + 0.5) / 60
        chosen.append(taken([60, 71, 83, 90], told))
    # 4 x 4 / (0.75 x 91) = 0.23 of each record, whatever tasks its new author has drawn.
    assert max(chosen) <= 1 and sum(chosen) == 14, chosen


def test_a_record_with_gaps_of_which_nothing_was_taken_is_not_tried_again() -> None:
    rng = random.Random(1)
    groups = [own_group(attacker, ROUND, slot, answers(own_task(attacker, ROUND, slot), rng)) for slot in (60, 71, 83)]
    first, other = published(OWN, attacker, groups[:2]), published(OWN, attacker, groups)
    told = Told()
    admitting = admission(OWN, rng=told)
    assert admitting.admit([first], ROUND, NOW) == []
    told.chance = 0.999
    assert admitting.admit([first, other], ROUND, NOW) == []
    assert admitting.totals == {Reason.QUOTA_PEER: 2, Reason.DUPLICATE: 1}


def test_what_is_left_out_of_a_record_with_gaps_is_no_fault() -> None:
    groups = [own_group(attacker, ROUND, slot, ["x", "y"]) for slot in (0, 1, 2, 90)]
    admitting = admission(OWN, rng=random.Random(1))
    assert len(admitting.admit([published(OWN, attacker, groups)], ROUND, NOW)) <= 1
    assert set(admitting.totals) == {Reason.QUOTA_PEER}
    assert admitting.reputation.score(attacker.peer_id, NOW) == 1.0


def test_a_round_has_places_for_so_many_peers_and_rubbish_takes_none() -> None:
    admitting = admission(OWN, limits=replace(LIMITS, peers_per_round=2))
    found = [false_claim(attacker), good(victim), good(others[0]), good(others[1])]
    assert len({group.peer_id for group in admitting.admit(found, ROUND, NOW)}) == 2
    assert admitting.totals == {Reason.OTHER_TASK: 1, Reason.QUOTA_ROUND: 1}


def test_one_address_block_gets_an_eighth_of_the_places_and_four_at_least() -> None:
    found = [replace(good(author), address=f"8.8.8.{number}") for number, author in enumerate(others)]
    admitting = admission(OWN, limits=replace(LIMITS, peers_per_round=8))
    assert len({group.peer_id for group in admitting.admit(found, ROUND, NOW)}) == 4
    assert admitting.totals == {Reason.QUOTA_ADDRESS: len(others) - 4}


def test_who_claims_false_tasks_is_shut_out_until_its_quarantine_ends() -> None:
    admitting = admission(OWN)
    for number in range(3):
        admitting.admit([signed_group(OWN, attacker, ["a", "b"], slot=number, seed=1)], ROUND, NOW)
    assert admitting.totals == {Reason.OTHER_TASK: 3}
    assert admitting.admit([good(attacker)], ROUND, NOW + 1) == []
    assert admitting.totals[Reason.QUARANTINED] == 1
    after = NOW + FIRST_QUARANTINE + 1
    late = replace(good(attacker, ROUND + 1), expires=after + 10)
    assert admitting.admit([late], ROUND + 1, after) == []
    assert admitting.totals[Reason.BAD_SIGNATURE] == 1, "it is listened to again"


def test_what_others_publish_under_a_peers_name_is_not_held_against_it() -> None:
    admitting, rng = admission(OWN), random.Random(4)
    raw = good(victim)
    forged = [replace(raw, value=rng.randbytes(200)) for _ in range(50)]
    forged += [under(good(attacker, seed=n), OWN, victim) for n in range(20)]
    admitting.admit(forged, ROUND, NOW)
    assert sum(admitting.refused[victim.peer_id].values()) == 70
    assert len(admitting.admit([raw], ROUND, NOW)) == 2
    assert admitting.reputation.score(victim.peer_id, NOW) == 1.0


def test_an_unsigned_name_has_no_reputation_to_lose() -> None:
    admitting, peer = admission(LEGACY), others[0].peer_id
    mark = f"1 0 reasoning_gym chain_sum {'0' * 32} 5 1 - -"
    for number in range(9):
        value = asked(LEGACY, f"question {number}", ["a", "b"], metadata={"swarmd": mark})
        admitting.admit([replace(record(LEGACY, peer, value), key=str(ROUND + number), round=ROUND + number)],
                        ROUND + number, NOW)  # fmt: skip
    assert admitting.totals == {Reason.OTHER_TASK: 9}
    last = replace(stock(LEGACY, peer, random.Random(1)), round=ROUND + 9, key=str(ROUND + 9))
    assert len(admitting.admit([last], ROUND + 9, NOW)) == 2


def test_a_forged_unsigned_record_gives_way_to_the_signed_one_of_its_peer() -> None:
    """Whichever is read first."""
    peer = others[0]
    signed = honest(LEGACY, peer, random.Random(2))
    for seed in range(8):
        admitting = admission(LEGACY, seed=seed)
        groups = admitting.admit([stock(LEGACY, peer.peer_id, random.Random(1)), signed], ROUND, NOW)
        assert len(groups) == 2 and all(group.provenance is not None for group in groups)
        assert admitting.totals[Reason.UNSIGNED] >= 1


def test_this_nodes_own_record_is_passed_over_and_a_forged_one_is_counted() -> None:
    admitting = admission(LEGACY)
    assert admitting.admit([honest(LEGACY, me, random.Random(1))], ROUND, NOW) == []
    assert admitting.totals == {}
    assert admitting.admit([stock(LEGACY, me.peer_id, random.Random(1))], ROUND, NOW) == []
    assert admitting.totals == {Reason.OTHER_PEER: 1}


def test_when_the_time_for_making_tasks_is_over_the_rest_is_left_out_and_nobody_is_to_blame() -> None:
    admitting = admission(OWN, regeneration_seconds=0.0)
    assert admitting.admit([good(author) for author in others], ROUND, NOW) == []
    assert admitting.totals == {Reason.NO_TIME: 2 * len(others)}
    assert all(not row["quarantined"] and row["reputation"] == 1.0 for row in admitting.peers(NOW))


def test_peers_come_in_random_order_and_in_turns() -> None:
    firsts = set()
    for seed in range(30):
        admitted = admission(OWN, seed=seed).admit([good(author) for author in others], ROUND, NOW)
        firsts.add(admitted[0].peer_id)
        assert len({group.peer_id for group in admitted[: len(others)]}) == len(others), "one group of each in turn"
    assert len(firsts) == len(others)


def test_a_copy_of_another_peers_thoughts_is_dropped_and_short_equal_answers_are_not() -> None:
    rng = random.Random(9)
    thoughts = [f"{prose(rng, 40)} <answer>1</answer>" for _ in range(4)]
    short = ["<answer>3</answer>", "<answer>4</answer>", "\n" * 500, "ab" * 900]
    for texts, admitted in ((thoughts, 1), (short, 2)):
        admitting = admission(OWN)
        found = [published(OWN, author, [own_group(author, ROUND, 0, texts)]) for author in (attacker, victim)]
        assert len(admitting.admit(found, ROUND, NOW)) == admitted
        assert admitting.totals == ({Reason.COPIED: 1} if admitted == 1 else {})
        assert all(not row["quarantined"] for row in admitting.peers(NOW))


def test_republishing_this_nodes_own_completions_is_found_out() -> None:
    admitting, rng = admission(OWN), random.Random(9)
    mine = answers(own_task(me, ROUND - 3, 0), rng)
    admitting.remember_own(ROUND - 3, [mine])
    found = [published(OWN, attacker, [own_group(attacker, ROUND, 0, mine)])]
    assert admitting.admit(found, ROUND, NOW) == []
    assert admitting.totals == {Reason.REPUBLISHED: 1}
    assert admitting.reputation.score(attacker.peer_id, NOW) < 1.0


def test_the_account_of_a_peer_has_what_the_peers_command_prints() -> None:
    admitting = admission(OWN)
    admitting.admit([good(attacker), good(victim)], ROUND, NOW)
    admitting.report(attacker.peer_id, "implausible", NOW, 4)
    rows = {row["peer_id"]: row for row in admitting.peers(NOW)}
    assert set(rows) == {attacker.peer_id, victim.peer_id}
    assert rows[attacker.peer_id] == {
        "peer_id": attacker.peer_id,
        "name": name_of(attacker.peer_id),
        "dialect": "swarmd",
        "last_round": ROUND,
        "admitted": 2,
        "rejected": {"implausible": 4},
        "reputation": 0.6,  # (2 + 1) / (2 + 4 * 0.5 + 1)
        "quarantined": False,
    }
    assert rows[victim.peer_id]["reputation"] == 1.0


@pytest.mark.parametrize("peer", ["", "x", "Qm" + "\x1b" * 44, None, 7])
def test_a_verdict_on_nobody_is_passed_over(peer: Any) -> None:
    admitting = admission(OWN)
    admitting.report(peer, "implausible", NOW)
    assert admitting.peers(NOW) == [] and admitting.totals == {}


def test_thousands_of_invented_peer_ids_do_not_push_out_those_met() -> None:
    admitting, raw = admission(OWN), good(attacker)
    admitting.admit([good(victim)], ROUND, NOW)
    alphabet = "abcdefghijkmnopqrstuvwxyz"
    invented = ["Qm" + "".join(random.Random(n).choices(alphabet, k=44)) for n in range(3000)]
    admitting.admit([replace(raw, subkey=peer, value=b"\xc1") for peer in invented], ROUND, NOW)
    assert [row["peer_id"] for row in admitting.peers(NOW)] == [victim.peer_id]
    assert len(admitting.refused) <= 1024
    assert sum(admitting.totals.values()) == 3000
    assert sum(sum(reasons.values()) for reasons in admitting.refused.values()) == 3000


def test_a_coordinator_that_begins_anew_does_not_confuse_it() -> None:
    admitting = admission(OWN)
    assert len(admitting.admit([good(attacker, 5)], 5, NOW)) == 2
    admitting.start_over()
    assert len(admitting.admit([good(attacker, 1)], 1, NOW)) == 2
    assert len(admitting.admit([good(attacker, 0), good(attacker, 2)], 2, NOW)) == 2


def test_what_was_learned_of_a_peer_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "reputation.json"
    first: Admission = admission(OWN, path)
    first.admit([good(attacker)], ROUND, NOW)
    first.report(attacker.peer_id, "implausible", NOW, 40)
    first.reputation.save()
    again = admission(OWN, reputation=path)
    assert again.admit([good(attacker, ROUND + 1)], ROUND + 1, NOW) == []
    assert again.totals == {Reason.QUARANTINED: 1}
    assert Reputation(path).has_signed(attacker.peer_id)
