"""A node's own count of rounds goes on whatever swarm it moves to, and the swarm's count is kept beside it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.coordination.clock import ClockCoordinator
from swarmd.coordination.continued import Continued


class Kept:
    """What a state directory keeps, and a clock to be set."""

    def __init__(self, now: float = 1000.0) -> None:
        self.text: str | None = None
        self.now = now

    def remember(self, text: str) -> None:
        self.text = text

    def swarm(self, name: str, epoch: float, seconds: float) -> Continued:
        def wait(seconds: float) -> bool:
            self.now += seconds
            return False

        clock = ClockCoordinator(epoch, seconds, lambda: self.now, wait)
        return Continued(clock, name, lambda: self.text, self.remember)


def test_who_has_trained_alone_plays_at_once_and_counts_on() -> None:
    kept = Kept(now=1000.0)
    rounds = kept.swarm("a", epoch=940.0, seconds=10.0)  # the swarm is in its round 6
    rounds.resume(5000)
    assert rounds.next_round(5000) == 5001 and kept.now == 1000.0
    assert rounds.shared(5001) == 6
    assert rounds.deadline(5001) == 1010.0
    assert rounds.next_round(5001) == 5002 and kept.now >= 1010.0


def test_a_new_node_counts_as_its_swarm_does() -> None:
    kept = Kept(now=1000.0)
    rounds = kept.swarm("a", epoch=940.0, seconds=10.0)
    rounds.resume(None)
    assert rounds.next_round(None) == 6 == rounds.shared(6)


def test_after_a_restart_in_the_same_swarm_no_round_comes_twice() -> None:
    kept = Kept(now=1000.0)
    first = kept.swarm("a", 940.0, 10.0)
    first.resume(5000)
    done = first.next_round(5000)
    again = kept.swarm("a", 940.0, 10.0)
    again.resume(done)
    later = again.next_round(done)
    assert later == done + 1 and again.shared(later) == first.shared(done) + 1


def test_a_clock_that_was_set_back_is_waited_for() -> None:
    kept = Kept(now=1000.0)
    rounds = kept.swarm("a", 940.0, 10.0)
    rounds.resume(5000)
    done = rounds.next_round(5000)
    kept.now = 960.0
    again = kept.swarm("a", 940.0, 10.0)
    again.resume(done)
    assert again.shared(again.next_round(done)) == 7 and kept.now >= 1010.0


@pytest.mark.parametrize("text", ["", "[", "[1]", '["a", -5]', '["a", "x"]', "null", "7"])
def test_what_was_kept_may_be_damaged(text: str) -> None:
    kept = Kept(now=1000.0)
    kept.text = text
    rounds = kept.swarm("a", 940.0, 10.0)
    rounds.resume(50)
    assert rounds.next_round(50) == 51


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 900.0), st.floats(1.0, 500.0)), max_size=8))
def test_wherever_it_goes_its_rounds_grow_and_start_without_a_wait(moves: list[tuple[str, float, float]]) -> None:
    kept, done = Kept(), 12
    for name, epoch, seconds in moves:
        rounds = kept.swarm(f"{name} {epoch} {seconds}", epoch, seconds)
        rounds.resume(done)
        before = kept.now
        round = rounds.next_round(done)
        assert round > done
        assert kept.now - before <= seconds + 0.01, "at most to the end of the round that is in work"
        done = round
