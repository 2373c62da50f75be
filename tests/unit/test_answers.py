"""extract_answer gives what reasoning_gym.utils.extract_answer gives, and never takes more than linear time."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from reasoning_gym.utils import extract_answer as original

from swarmd.tasks.answers import extract_answer

PIECES = (
    "<answer>", "</answer>", "<answer", "/answer>", "<", ">", "</", "<ANSWER>", "</think>", "<answer>\n", "\n</answer>",
    "a", "42", " ", "\n", "\t", "\r\n", "\x1c", "\x85", "\xa0", "\u2003", "\u200b", "\0", "é", "\ud800", ".", "*",
)  # fmt: skip


def test_the_twin_agrees_with_the_original_on_200_000_random_texts():
    rng = random.Random(20)
    for _ in range(200_000):
        text = "".join(rng.choices(PIECES, k=rng.randrange(12)))
        assert extract_answer(text) == original(text), repr(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=30).map("".join))
def test_the_twin_agrees_with_the_original_on_texts_that_hypothesis_looks_for(text):
    assert extract_answer(text) == original(text)


def test_the_last_complete_answer_counts_without_the_space_around_it():
    assert extract_answer("<answer>1</answer> no, <answer>\n 2 \n</answer> <answer>3") == "2"
    assert extract_answer("<answer>1<answer>2</answer>3</answer>") == "1<answer>2"
    assert extract_answer("<answer></answer>") == ""
    assert extract_answer("answer: 2") is None


def test_megabytes_of_tags_are_read_in_linear_time():
    # Milliseconds for the twin, hours for the original: it is the end of this test that shows the rule.
    assert extract_answer("<answer>" * 500_000) is None
    assert extract_answer("</answer>" * 500_000) is None
    assert extract_answer("<answer" * 500_000) is None
    assert extract_answer("<answer>x</answer>" * 200_000) == "x"
    assert extract_answer("<answer>" * 500_000 + "</answer>") == "<answer>" * 499_999
