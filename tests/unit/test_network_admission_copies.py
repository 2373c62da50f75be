"""Which equal texts are a copy, and whose."""

import random

import pytest

from swarmd.network.copies import Copies, distinctive
from swarmd.network.refusals import Reason, Refused
from tests.hostile.authors import prose

RNG = random.Random(5)
THOUGHTS = [prose(RNG, 40) for _ in range(8)]


def verdict(copies: Copies, peer: str, round: int, texts: list[str]) -> Reason | None:
    try:
        copies.check(peer, round, distinctive(texts))
    except Refused as refused:
        return refused.reason
    return None


def seen(peer: str, round: int, texts: list[str]) -> Copies:
    copies = Copies()
    copies.remember(peer, round, distinctive(texts))
    return copies


@pytest.mark.parametrize(
    "text", ["", "3", "<answer>3</answer>", "I think that the answer is <answer>12</answer>", "ha" * 4000, "\n" * 900,
             "The sum of 3 and 4 is 7. The answer is <answer>7</answer>", "0 1 0 1 0 1 0 1\n" * 300],
)  # fmt: skip
def test_a_short_answer_and_a_loop_are_no_evidence(text: str) -> None:
    assert distinctive([text, text + "."]) == set()


def test_some_fifty_words_are_evidence() -> None:
    assert len(distinctive(THOUGHTS)) == len(THOUGHTS)


def test_in_one_round_a_copy_is_dropped_without_saying_whose() -> None:
    copies = seen("alice", 10, THOUGHTS[:4])
    assert verdict(copies, "bob", 10, THOUGHTS[:4]) == Reason.COPIED
    assert verdict(copies, "bob", 11, THOUGHTS[:4]) == Reason.COPIED, "clocks differ"
    assert verdict(copies, "bob", 12, THOUGHTS[:4]) == Reason.REPUBLISHED


def test_ones_own_texts_may_come_again() -> None:
    assert verdict(seen("alice", 10, THOUGHTS[:4]), "alice", 15, THOUGHTS[:4]) is None


def test_one_equal_text_is_an_accident_and_half_of_them_are_not() -> None:
    copies = seen("alice", 10, THOUGHTS[:2])
    assert verdict(copies, "bob", 10, [THOUGHTS[0], *THOUGHTS[4:7]]) is None
    assert verdict(copies, "bob", 10, [*THOUGHTS[:2], *THOUGHTS[4:6]]) == Reason.COPIED
    assert verdict(copies, "bob", 10, [*THOUGHTS[:2], *THOUGHTS[4:7]]) is None


def test_the_same_text_many_times_is_one_text() -> None:
    assert verdict(seen("alice", 10, [THOUGHTS[0]] * 8), "bob", 10, [THOUGHTS[0]] * 8) is None


def test_one_text_of_each_of_two_others_is_no_copy_of_either() -> None:
    copies = seen("alice", 10, THOUGHTS[:1])
    copies.remember("carol", 10, distinctive(THOUGHTS[1:2]))
    assert verdict(copies, "bob", 10, THOUGHTS[:2]) is None


def test_the_copier_does_not_become_the_author() -> None:
    copies = seen("alice", 10, THOUGHTS[:4])
    copies.remember("bob", 11, distinctive(THOUGHTS[:4]))
    assert verdict(copies, "alice", 12, THOUGHTS[:4]) is None


def test_old_texts_are_forgotten_and_memory_is_bounded() -> None:
    copies = seen("alice", 10, THOUGHTS)
    copies.remember("bob", 27, distinctive([prose(RNG, 50)]))
    assert len(copies) == 1
    rng = random.Random(1)
    for _ in range(40):
        copies.remember("bob", 28, {rng.randbytes(16) for _ in range(1000)})
    assert len(copies) == 32_768
