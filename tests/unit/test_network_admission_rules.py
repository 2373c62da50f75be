"""Each rule of admission by itself, at its border."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.network import admission_rules as rules
from swarmd.network.quotas import block_of
from swarmd.network.records import ClaimedGroup, Record
from swarmd.network.refusals import Reason, Refused
from swarmd.network.reputation import Reputation
from swarmd.tasks.provenance import SEEDS, Provenance, is_heldout, task_seed
from tests.hostile.authors import EXPIRES, NOW, ROUND, SWARM_ID, mix, table, table_questions

PEER, OTHER = "Qm" + "a" * 44, "Qm" + "b" * 44
RAW = rules.RawRecord(ROUND, "key", PEER, b"value", EXPIRES)
RECORD = Record(PEER, ROUND, "swarmd", True, EXPIRES, "", (), 100)
SEED = task_seed(SWARM_ID, ROUND, PEER, 3)
GROUP = ClaimedGroup(("a", "b"), mix().draw(SEED).provenance, 3)


def reason_of(rule: Any, *arguments: Any) -> Reason | None:
    """Why the rule refuses; None where it does not."""
    try:
        rule(*arguments)
    except Refused as refused:
        return refused.reason
    return None


@pytest.mark.parametrize("subkey", [None, 5, b"Qm", "", "Qm", "Qm" + "0" * 44, PEER + "\n", "l" * 46, ("a",)])
def test_a_subkey_that_is_no_peer_id_is_refused(subkey: Any) -> None:
    assert reason_of(rules.has_the_form_of_a_record, replace(RAW, subkey=subkey)) == Reason.WRONG_KEY


@pytest.mark.parametrize("value", [None, "text", bytearray(b"x"), {}, 5])
def test_a_value_that_is_not_bytes_is_refused(value: Any) -> None:
    assert reason_of(rules.has_the_form_of_a_record, replace(RAW, value=value)) == Reason.NOT_DECODABLE
    assert reason_of(rules.has_the_form_of_a_record, RAW) is None


def test_size_is_limited_to_the_byte() -> None:
    assert reason_of(rules.is_small_enough, replace(RAW, value=b"x" * 100), 100) is None
    assert reason_of(rules.is_small_enough, replace(RAW, value=b"x" * 101), 100) == Reason.TOO_LARGE


@pytest.mark.parametrize("expires", [NOW + 900.1, math.inf, math.nan, 1e300, 10**400, None, "x", True, [1]])
def test_what_expires_too_late_or_at_no_time_is_refused(expires: Any) -> None:
    assert reason_of(rules.expires_soon, expires, NOW) == Reason.EXPIRES_TOO_LATE


@pytest.mark.parametrize("expires", [NOW, 0, -1.0, -math.inf, -(10**400)])
def test_what_has_expired_is_refused(expires: Any) -> None:
    assert reason_of(rules.expires_soon, expires, NOW) == Reason.EXPIRED


def test_what_lives_for_a_quarter_of_an_hour_is_taken() -> None:
    assert reason_of(rules.expires_soon, NOW + 900.0, NOW) is None
    assert reason_of(rules.expires_soon, int(NOW) + 1, NOW) is None


def test_this_round_and_the_last_are_taken_and_no_other() -> None:
    expected = {-2: Reason.OLD_ROUND, -1: None, 0: None, 1: Reason.FUTURE_ROUND}
    for distance, reason in expected.items():
        raw = replace(RAW, round=ROUND + distance)
        assert reason_of(rules.is_of_this_round_or_the_last, raw, ROUND) == reason
    assert reason_of(rules.is_of_this_round_or_the_last, replace(RAW, round=-1), 0) == Reason.OLD_ROUND


def test_a_swarmd_record_must_be_signed_and_a_legacy_one_need_not() -> None:
    reputation = Reputation(None)
    unsigned = replace(RECORD, signed=False)
    assert reason_of(rules.is_signed_as_it_must, RECORD, OTHER, reputation) is None
    assert reason_of(rules.is_signed_as_it_must, unsigned, OTHER, reputation) == Reason.UNSIGNED
    legacy = replace(unsigned, dialect="genrl-0.1")
    assert reason_of(rules.is_signed_as_it_must, legacy, OTHER, reputation) is None


def test_who_has_signed_once_is_not_believed_unsigned_again() -> None:
    reputation = Reputation(None)
    reputation.note_signed(PEER, NOW)
    legacy = replace(RECORD, signed=False, dialect="genrl-0.3")
    assert reason_of(rules.is_signed_as_it_must, legacy, OTHER, reputation) == Reason.UNSIGNED


def test_under_this_nodes_own_peer_id_only_its_own_signature_counts() -> None:
    legacy = replace(RECORD, signed=False, dialect="genrl-0.1")
    assert reason_of(rules.is_signed_as_it_must, legacy, PEER, Reputation(None)) == Reason.OTHER_PEER
    assert reason_of(rules.is_signed_as_it_must, RECORD, PEER, Reputation(None)) is None


def test_unsigned_records_leave_a_quarter_of_the_places_to_signed_ones() -> None:
    unsigned = replace(RECORD, signed=False, dialect="genrl-0.1")
    places = {(f"peer {number}", False) for number in range(6)}
    assert reason_of(rules.finds_a_place, unsigned, places, 9) is None
    assert reason_of(rules.finds_a_place, unsigned, places, 8) == Reason.QUOTA_ROUND
    assert reason_of(rules.finds_a_place, RECORD, places, 8) is None
    assert reason_of(rules.finds_a_place, RECORD, places, 6) == Reason.QUOTA_ROUND


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("8.8.8.8", "8.8.8.0/24"),
        ("2a00:1450:4001:82a::200e", "2a00:1450:4001::/48"),
        ("::ffff:8.8.8.8", "8.8.8.0/24"),
        ("127.0.0.1", None),
        ("192.168.1.7", None),
        ("fe80::1", None),
        ("fd00::1", None),
        ("no address", None),
        (None, None),
    ],
)
def test_a_public_address_belongs_to_a_block_and_others_to_none(address: str | None, block: str | None) -> None:
    assert block_of(address) == block


def test_an_address_block_gets_its_quota() -> None:
    taken: Counter[str] = Counter()
    assert [reason_of(rules.is_within_its_blocks_quota, f"8.8.8.{n}", taken, 2) for n in range(3)] == [
        None, None, Reason.QUOTA_ADDRESS,
    ]  # fmt: skip
    assert reason_of(rules.is_within_its_blocks_quota, "8.8.9.1", taken, 2) is None
    assert all(reason_of(rules.is_within_its_blocks_quota, None, taken, 2) is None for _ in range(9))


@pytest.mark.parametrize(
    ("completions", "logprobs", "reason"),
    [
        (("a", "b"), None, None),
        (("", ""), (-1.0, 0.0), None),
        (("a" * 100, "b"), None, None),
        ((), None, Reason.TOO_FEW_COMPLETIONS),
        (("a",), None, Reason.TOO_FEW_COMPLETIONS),
        (("a",) * 65, None, Reason.TOO_MANY_COMPLETIONS),
        (("a" * 101, "b"), None, Reason.COMPLETION_TOO_LONG),
        (("\ud800", "b"), None, Reason.WRONG_SHAPE),
        (("a", "b"), (-1.0,), Reason.WRONG_SHAPE),
        (("a", "b"), (-1.0, math.nan), Reason.WRONG_SHAPE),
        (("a", "b"), (-1.0, -math.inf), Reason.WRONG_SHAPE),
    ],
)
def test_a_group_has_2_to_64_texts_of_limited_length(completions: Any, logprobs: Any, reason: Reason | None) -> None:
    group = replace(GROUP, completions=completions, mean_logprobs=logprobs)
    assert reason_of(rules.has_a_groups_form, group, 100) == reason


def test_the_seed_is_that_of_this_swarm_round_peer_and_slot() -> None:
    rule = rules.is_its_peers_own_seed
    assert reason_of(rule, RECORD, GROUP, SWARM_ID) is None
    assert reason_of(rule, RECORD, GROUP, "another swarm") == Reason.OTHER_TASK
    assert reason_of(rule, replace(RECORD, round=ROUND + 1), GROUP, SWARM_ID) == Reason.OTHER_TASK
    assert reason_of(rule, replace(RECORD, peer_id=OTHER), GROUP, SWARM_ID) == Reason.OTHER_TASK
    assert reason_of(rule, RECORD, replace(GROUP, slot=4), SWARM_ID) == Reason.OTHER_TASK


@pytest.mark.parametrize("slot", [None, -1, rules.MOST_SLOTS, 2**70])
def test_a_slot_out_of_range_is_refused_though_its_seed_is_right(slot: int | None) -> None:
    seed = SEED if slot is None else task_seed(SWARM_ID, ROUND, PEER, slot)
    assert GROUP.provenance is not None
    group = replace(GROUP, slot=slot, provenance=replace(GROUP.provenance, seed=seed))
    assert reason_of(rules.is_its_peers_own_seed, RECORD, group, SWARM_ID) == Reason.OTHER_TASK


def test_a_dataset_outside_the_mix_is_unknown_and_one_the_seed_does_not_choose_is_false() -> None:
    drawn = mix().draw(SEED).provenance
    assert reason_of(rules.is_of_this_mix, drawn, mix()) is None
    for field in ("environment", "dataset", "config_hash"):
        assert reason_of(rules.is_of_this_mix, replace(drawn, **{field: "x"}), mix()) == Reason.UNKNOWN_TASK
    for part in mix().parts:
        if part.name != drawn.dataset:
            other = replace(drawn, dataset=part.name, config_hash=part.config_hash)
            assert reason_of(rules.is_of_this_mix, other, mix()) == Reason.OTHER_TASK


def test_the_task_is_made_anew_and_must_be_the_claimed_one_in_every_field() -> None:
    task = mix().draw(SEED)
    assert rules.is_the_task_drawn(task.provenance, None, mix()) == task
    assert rules.is_the_task_drawn(task.provenance, task.question, mix()) == task
    assert reason_of(rules.is_the_task_drawn, task.provenance, "another question", mix()) == Reason.OTHER_TASK
    other = replace(task.provenance, index=task.provenance.index + 1)
    assert reason_of(rules.is_the_task_drawn, other, None, mix()) == Reason.OTHER_TASK


def test_a_question_is_looked_up_in_our_own_table() -> None:
    question = table_questions(heldout=False)[0]
    assert rules.is_a_question_of_the_table(question, table()).question == question
    for asked, known in ((question + " ", table()), (None, table()), (question, None)):
        assert reason_of(rules.is_a_question_of_the_table, asked, known) == Reason.UNKNOWN_TASK


def test_questions_kept_for_evaluation_are_never_trained_on() -> None:
    for heldout in (False, True):
        task = table().find(table_questions(heldout=heldout)[0])
        assert task is not None
        assert reason_of(rules.is_not_held_out, task) == (Reason.HELD_OUT if heldout else None)
    assert not any(is_heldout(mix().draw(seed).question) for seed in range(50))


def test_no_message_of_a_rule_holds_a_strangers_control_characters() -> None:
    place = Provenance("reasoning_gym", "\x1b[2J\nforged line", "x", SEEDS - 1, 1)
    with pytest.raises(Refused) as refused:
        rules.is_of_this_mix(place, mix())
    assert str(refused.value).isprintable() and str(refused.value).isascii()


@given(st.sets(st.integers(0, rules.MOST_SLOTS - 1), min_size=1, max_size=64), st.integers(1, 64), st.data())
def test_to_show_only_some_draws_brings_no_more_of_them_in_than_to_show_all(
    shown: set[int], most: int, data: st.DataObject
) -> None:
    """On the average, but for the quarter that may be left out: those of the draws up to the last one shown that are
    wanted are as many of what is taken as they are of these draws."""
    wanted = data.draw(st.sets(st.sampled_from(sorted(shown))))
    chances = [(number + 0.5) / 200 for number in range(200)]
    taken = sum(rules.groups_due(shown, most, chance) for chance in chances) / len(chances)
    assert taken * len(wanted) / len(shown) <= most * len(wanted) / (max(shown) + 1) / 0.75 + 0.01


@pytest.mark.parametrize("slots", [{0}, {0, 1, 2}, {0, 1, 3}, {1, 2, 3, 4}, set(range(64)), set()])
def test_a_record_with_hardly_a_gap_is_taken_whole(slots: set[int]) -> None:
    assert {rules.groups_due(slots, 4, chance) for chance in (0.0, 0.5, 0.999)} == {4}
