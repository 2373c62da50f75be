"""The phases of a round."""

import gc
import time

import pytest

from swarmd.system.phases import Phases


def test_a_phase_is_announced_at_its_beginning_and_taken_back_at_its_end() -> None:
    told: list[str] = []
    phases = Phases(told.append)
    with phases.enter("generate"):
        assert phases.current == "generate"
    assert phases.current == ""
    assert told == ["generate", ""]


def test_a_phase_that_fails_is_over_as_well() -> None:
    phases = Phases(lambda phase: None)
    with pytest.raises(OSError), phases.enter("checkpoint"):
        raise OSError
    with phases.enter("report"):
        assert phases.current == "report"


def test_an_interruption_between_the_announcement_of_a_phase_and_its_block_leaves_room_for_others() -> None:
    """A signal handler may raise there; the block's end is then never reached."""
    told: list[str] = []
    phases = Phases(told.append)
    lost = phases.enter("train")
    lost.__enter__()  # and no __exit__, as when the interruption comes right behind it
    phases.abandon()
    assert (phases.current, told) == ("", ["train", ""])
    with phases.enter("checkpoint"):
        beats = phases.beats
        del lost  # collected inside another phase
        gc.collect()
        assert (phases.current, phases.beats) == ("checkpoint", beats)
    assert told == ["train", "", "checkpoint", ""]
    phases.abandon()
    assert told == ["train", "", "checkpoint", ""], "there was nothing to abandon"


def test_phases_do_not_nest() -> None:
    phases = Phases(lambda phase: None)
    inside = pytest.raises(RuntimeError, match="phase share begins inside phase train")
    with phases.enter("train"), inside, phases.enter("share"):
        pass


def test_what_is_in_work_has_a_name_between_phases_too() -> None:
    phases = Phases(lambda phase: None)
    assert (phases.name, phases.begun) == ("start", False)
    with phases.enter("generate"):
        assert (phases.name, phases.begun) == ("generate", True)
    assert (phases.name, phases.begun) == ("between", True)


def test_the_observer_can_tell_the_first_phase_from_the_others() -> None:
    begun: list[bool] = []
    phases = Phases(lambda phase: begun.append(phases.begun))
    for _ in range(2):
        with phases.enter("generate"):
            pass
    assert begun == [False, True, True, True]


def test_each_beat_and_each_edge_of_a_phase_counts_as_progress() -> None:
    phases = Phases(lambda phase: None)
    seen = [phases.beats]
    with phases.enter("generate"):
        seen.append(phases.beats)
        phases.beat()
        seen.append(phases.beats)
    seen.append(phases.beats)
    assert seen == sorted(set(seen))


def test_seconds_of_a_phase_that_comes_twice_are_added_up_and_taken_once() -> None:
    phases = Phases(lambda phase: None)
    for _ in range(2):
        with phases.enter("generate"):
            time.sleep(0.01)
    with phases.enter("train"):
        pass
    seconds = phases.take_seconds()
    assert list(seconds) == ["generate", "train"]
    assert seconds["generate"] >= 0.02
    assert phases.take_seconds() == {}
