"""Answers made to run code, to hang, to eat memory or to crash: a verdict in 3.5 s, and nothing else happens."""

import time
from pathlib import Path

import pytest

from swarmd.system.memory import rss_bytes
from swarmd.tasks.scorer import Score, Scorer, ScoreRequest
from swarmd.tasks.verdicts import ScoreLimits
from tests.bad_answers import bad_answers, built

HONEST = ScoreRequest("chain_sum", "<answer>5</answer>", "5", {})
MARKER = Path("/tmp/swarmd-test-marker")
CASES = bad_answers()


@pytest.fixture(scope="module")
def scorer():
    with Scorer() as scorer:
        yield scorer


@pytest.fixture(autouse=True)
def no_marker():
    MARKER.unlink(missing_ok=True)
    yield
    assert not MARKER.exists(), "the answer's code was run"


def request(case: dict) -> ScoreRequest:
    entry = built(case["entry"])
    return ScoreRequest(
        case["dataset"], f"<answer>{built(case['answer'])}</answer>", entry["answer"], entry["metadata"]
    )


@pytest.mark.parametrize("case", CASES, ids=[f"{case['id']} {case['title']}" for case in CASES])
def test_a_bad_answer_gets_a_low_verdict_in_time_and_the_next_is_scored(scorer, case):
    bad = request(case)
    child, memory = scorer.pid, rss_bytes()
    start = time.monotonic()
    [verdict] = scorer.score([bad])
    assert time.monotonic() - start < 3.5
    assert verdict.value <= case["most"]
    assert scorer.score([HONEST]) == [Score(1.0, "")]
    assert (scorer.pid, scorer.restarts) == (child, 0)
    assert rss_bytes() - memory < 64 << 20


def test_bad_answers_among_honest_ones_cost_only_their_own_scores(scorer):
    by_id = {case["id"]: case for case in CASES}
    bad = [request(by_id[name]) for name in ("A01", "A10", "A12", "A23", "A15", "A29")]
    requests = [HONEST]
    for each in bad:
        requests += [each, HONEST]
    scores = scorer.score(requests)
    assert scores[::2] == [Score(1.0, "")] * 7
    reasons = [score.reason for score in scores[1::2]]
    assert reasons[:3] + reasons[4:] == ["", "timeout", "error", "too_long", "error"]
    assert reasons[3] in ("memory", "timeout")  # whichever of the two limits this machine reaches first
    assert scorer.restarts == 0


def test_an_answer_that_wants_more_memory_than_there_is_costs_its_own_score_alone():
    hungry = request(next(case for case in CASES if case["id"] == "A23"))
    with Scorer(ScoreLimits(memory_bytes=200 << 20, cpu_s=20, wall_s=30)) as scorer:
        scores = scorer.score([HONEST, hungry, HONEST, hungry, hungry, HONEST])
        assert scorer.restarts == 0
    assert [score.reason for score in scores] == ["", "memory", "", "memory", "memory", ""]
    assert scores[0] == scores[2] == scores[5] == Score(1.0, "")


def test_after_the_budget_of_a_call_the_rest_is_not_scored_and_the_next_call_is():
    case = next(case for case in CASES if case["id"] == "A10")
    with Scorer(ScoreLimits(cpu_s=0.4, budget_s=1.5)) as scorer:
        start = time.monotonic()
        scores = scorer.score([HONEST, *[request(case)] * 20, HONEST])
        assert time.monotonic() - start < 5
        reasons = [score.reason for score in scores]
        assert reasons[0] == "" and reasons[1] == "timeout" and reasons[-5:] == ["budget"] * 5
        assert scorer.score([HONEST]) == [Score(1.0, "")]
        assert scorer.restarts == 0


def test_a_worker_s_memory_is_given_back(scorer):
    case = next(case for case in CASES if case["id"] == "A23")
    scorer.score([HONEST])
    before = rss_bytes(scorer.pid)
    scorer.score([request(case)])
    assert rss_bytes(scorer.pid) - before < 32 << 20
    # It is ended after its verdict was sent.
    children = Path(f"/proc/{scorer.pid}/task/{scorer.pid}/children")
    deadline = time.monotonic() + 10
    while children.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert children.read_text() == ""
