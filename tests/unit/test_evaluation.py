"""When to evaluate, and what counts as a collapse."""

import pytest

from swarmd.game.evaluation import Pace, Scored, collapsed


@pytest.mark.parametrize(
    ("score", "best", "samples", "verdict"),
    [
        (0.40, 0.45, 500, False),  # an ordinary down
        (0.37, 0.45, 500, False),  # less than a fifth below
        (0.35, 0.45, 500, True),
        (0.02, 0.34, 500, True),  # what too high a learning rate does
        (0.30, 0.45, 20, False),  # with few tasks chance may do that
        (0.00, 0.05, 500, True),
        (0.04, 0.05, 500, False),
        (0.50, 0.45, 500, False),  # better than the best
        (0.00, 0.00, 500, False),  # a model that never knew anything
        (0.70, 1.00, 500, True),  # the best has no error at all at 1
        (0.85, 1.00, 500, False),
    ],
)
def test_a_collapse_is_a_drop_that_neither_chance_nor_ordinary_ups_and_downs_explain(
    score: float, best: float, samples: int, verdict: bool
) -> None:
    assert collapsed(score, best, samples) is verdict


def test_a_pace_in_rounds_counts_from_the_last_evaluation() -> None:
    pace = Pace(10)
    assert not pace.due(9, seconds=0.0)
    assert pace.due(10, seconds=1e9)
    pace.done(14)
    assert not pace.due(23, seconds=0.0)
    assert pace.due(24, seconds=0.0)


def test_an_automatic_pace_waits_as_long_as_keeps_evaluations_a_small_share() -> None:
    pace = Pace(None)
    pace.done(0)
    assert not pace.due(1_000_000, seconds=3600.0)
    assert pace.due(1, seconds=0.0)


def test_a_score_is_the_mean_over_tasks_not_over_datasets() -> None:
    scored = Scored({"easy": [1.0, 1.0, 1.0], "hard": [0.0]})
    assert scored.count == 4
    assert scored.mean == 0.75
    assert scored.means() == {"easy": 1.0, "hard": 0.0}


def test_a_pace_that_is_hurried_is_due_until_it_was_done() -> None:
    pace = Pace(10)
    pace.done(1)
    pace.hurry()
    assert pace.due(2, seconds=0.0)
    pace.done(2)
    assert not pace.due(3, seconds=0.0)
    pace.rounds = 2
    assert pace.due(4, seconds=0.0)
