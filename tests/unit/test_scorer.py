"""Scoring in the scorer process: the scores themselves, and what becomes of answers that cannot be scored."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reasoning_gym.factory import DATASETS, get_score_answer_fn

from swarmd.system.exits import ConfigurationError
from swarmd.tasks.scorable import BOUNDED, HARMLESS, REFUSED, REPLACED, SCORABLE, check_scorable
from swarmd.tasks.scorer import Score, Scorer, ScoreRequest
from swarmd.tasks.scorer_process import scorer_of

HONEST = ScoreRequest("chain_sum", "I add. <answer>5</answer>", "5", {})


@pytest.fixture(scope="module")
def scorer():
    with Scorer() as scorer:
        yield scorer


def request(dataset: str, answer: str, entry: dict) -> ScoreRequest:
    return ScoreRequest(dataset, f"<answer>{answer}</answer>", entry["answer"], entry["metadata"])


def test_every_dataset_of_the_library_is_either_scored_or_refused():
    assert set(DATASETS) == SCORABLE | REFUSED
    assert len(SCORABLE) == len(REPLACED) + len(BOUNDED) + len(HARMLESS) == 105


@pytest.mark.parametrize("dataset", sorted(SCORABLE))
def test_generated_tasks_score_as_in_the_library_itself(scorer, dataset):
    """The right answer, other tasks' answers and garbled ones, against the library's own scorer in this process."""
    dataset_class, config_class = DATASETS[dataset]
    generated = dataset_class(config_class(seed=11, size=100))
    own = get_score_answer_fn(dataset)
    rng = random.Random(dataset)
    entries = [generated[index] for index in range(3)]
    answers = [e["answer"] for e in entries if e["answer"] is not None]
    if dataset not in REPLACED:
        # Replaced scorers are compared on many more texts in test_safe_scorers; their originals run code.
        answers += ["0", "1", "A", "[]", "yes"]
        answers += ["".join(rng.sample(answer, min(len(answer), 40))) for answer in answers]
        answers += [answer.upper() + " " for answer in answers[:3]]
    requests, expected = [], []
    for entry in entries:
        for answer in answers:
            requests.append(request(dataset, answer, entry))
            try:
                expected.append(min(1.0, max(0.0, float(own(answer.strip(), entry)))))
            except Exception:  # the library lets exceptions of any kind escape: that is the point of "error"
                expected.append("error")
    scores = scorer.score(requests)
    assert [score.reason or score.value for score in scores] == expected
    if answers[0] == entries[0]["answer"]:
        assert scores[0] == Score(1.0, "")


@pytest.mark.parametrize("dataset", sorted(SCORABLE))
def test_empty_and_odd_answers_get_a_verdict(scorer, dataset):
    dataset_class, config_class = DATASETS[dataset]
    entry = dataset_class(config_class(seed=3, size=10))[0]
    odd = [request(dataset, a, entry) for a in ("", " ", "\0", "nan", "inf", "-", "\ud800", "𝟙", "None", "[[]]", "{}")]
    without = ScoreRequest(dataset, "no answer", entry["answer"], entry["metadata"])
    scores = scorer.score([*odd, without, HONEST])
    assert scores[-2:] == [Score(0.0, "no_answer"), Score(1.0, "")]
    assert {score.reason for score in scores[:-2]} <= {"", "error"}
    assert scorer.restarts == 0


def test_a_dataset_s_scorer_is_built_once_for_all_answers():
    assert scorer_of("spell_backward") is scorer_of("spell_backward")


def test_scores_come_in_the_order_of_the_requests_also_over_several_batches(scorer):
    rng = random.Random(1)
    wanted = [rng.random() < 0.5 for _ in range(700)]
    requests = [ScoreRequest("chain_sum", f"<answer>{7 if right else 8}</answer>", "7", {}) for right in wanted]
    assert [score.value == 1.0 for score in scorer.score(requests)] == wanted


def test_nothing_to_score_is_no_work(scorer):
    assert scorer.score([]) == []


def test_a_group_shares_its_task_and_a_scorer_that_writes_into_it_does_not_disturb_the_next(scorer):
    dataset_class, config_class = DATASETS["knight_swap"]
    entry = dataset_class(config_class(seed=2, size=10))[0]
    scores = scorer.score([request("knight_swap", entry["answer"], entry)] * 8)
    assert len(set(scores)) == 1 and scores[0].value > 0


def test_completions_without_a_complete_answer_are_not_sent_to_the_scorer(scorer):
    completions = ["", "5", "<answer>5", "5</answer>", "<ANSWER>5</ANSWER>"]
    scores = scorer.score([ScoreRequest("chain_sum", text, "5", {}) for text in completions])
    assert scores == [Score(0.0, "no_answer")] * 5


def test_answers_of_8192_characters_are_scored_and_longer_ones_are_not(scorer):
    texts = ["5" + "0" * 8191, "5" + "0" * 8192, " " * 20_000 + "5"]
    scores = scorer.score([ScoreRequest("chain_sum", f"<answer>{text}</answer>", "5", {}) for text in texts])
    assert [score.reason for score in scores] == ["", "too_long", ""]
    assert scores[2].value == 1.0


@pytest.mark.parametrize("dataset", ["composite", "no_such_dataset", "", "../etc/passwd", "chain_sum\0"])
def test_a_dataset_that_is_not_scored_is_refused_by_name(scorer, dataset):
    assert scorer.score([ScoreRequest(dataset, "<answer>5</answer>", "5", {}), HONEST]) == [
        Score(0.0, "refused"),
        Score(1.0, ""),
    ]
    with pytest.raises(ConfigurationError) as refusal:
        check_scorable(dataset)
    assert repr(dataset) in str(refusal.value)


def test_metadata_that_cannot_be_sent_costs_only_its_own_score(scorer):
    circle: dict = {}
    circle["circle"] = circle
    bad = [ScoreRequest("chain_sum", "<answer>5</answer>", "5", metadata) for metadata in ({"a": {1}}, circle)]
    huge = ScoreRequest("chain_sum", "<answer>5</answer>", "5", {"a": "x" * (20 << 20)})
    assert scorer.score([*bad, huge, HONEST]) == [Score(0.0, "unsendable")] * 3 + [Score(1.0, "")]


def test_tuples_and_large_integers_in_metadata_reach_the_scorer_as_they_are(scorer):
    metadata = {"numbers": [2**70, 1], "target": 2**70 + 1}
    answer = f"<answer>{2**70} + 1</answer>"
    assert scorer.score([ScoreRequest("countdown", answer, "", metadata)]) == [Score(1.0, "")]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(REPLACED)), st.text(max_size=60)), min_size=1, max_size=20))
def test_no_text_makes_the_scorer_raise_or_die(scorer, pairs):
    metadata = {"numbers": [1], "target": 1, "valid_answers": [], "direction": "ascending", "problem": "1"}
    metadata |= {"variable": "x", "integrand": "x", "difficulty": {"value": [1, 10]}}
    scores = scorer.score([ScoreRequest(dataset, f"<answer>{text}</answer>", "1", metadata) for dataset, text in pairs])
    assert len(scores) == len(pairs)
    assert {score.reason for score in scores} <= {""}
    assert all(0 <= score.value <= 1 for score in scores)
    assert scorer.restarts == 0
