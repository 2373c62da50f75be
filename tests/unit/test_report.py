"""The status file follows the game: every phase that lasts is seen, and the last word is the end."""

import logging
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swarmd.game.checkpoint import CheckpointStore
from swarmd.game.history import BASE_ROUND, HeldoutRow, History, RoundRow
from swarmd.game.history_exchange import ExchangeRow
from swarmd.game.keeper import Best, Keeper
from swarmd.game.report import Reporter, _of_peers
from swarmd.monitor.status import STATUS_FILE, ChildStatus, MemoryStatus, ModelStatus, Status, StatusFile, read_status

BEFORE = Status("starting", name="n", model=ModelStatus("embedded", 1_000_000, "fp32"), memory=MemoryStatus(limit=7))
ROUND = RoundRow(3, 1e9, 0.25, 0.5, 0.1, 1.0, 64, 320.0, {"generate": 0.1, "train": 0.1}, 1 << 28)
AGES = 30.0


class Untrained:
    """A learner that nobody asks to learn, save or restore here."""

    learning_rate_scale = 1.0

    def save(self, directory: Path) -> dict[str, Any]:
        raise NotImplementedError

    def restore(self, directory: Path, counters: dict[str, Any]) -> None:
        raise NotImplementedError


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def lines() -> Iterator[list[str]]:
    logger, handler = logging.getLogger("swarmd"), Lines()
    before = logger.handlers[:], logger.level
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    yield handler.lines
    logger.handlers[:] = before[0]
    logger.setLevel(before[1])


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History(tmp_path / "state.sqlite")
    yield history
    history.close()


@pytest.fixture
def announced() -> list[str]:
    return []


@pytest.fixture
def troubles() -> list[str]:
    """What ails the node, for the test to fill."""
    return []


@pytest.fixture
def reporter(tmp_path: Path, history: History, announced: list[str], troubles: list[str]) -> Iterator[Reporter]:
    store = CheckpointStore(tmp_path / "checkpoints", 2)
    keeper = Keeper(store, history, Untrained(), lambda: None, "embedded", "rollback", 1)
    children = {"scorer": ChildStatus(1, 2)}
    status_file = StatusFile(tmp_path / STATUS_FILE)
    reporter = Reporter(
        BEFORE, status_file, history, keeper, lambda: children, announced.append, lambda: "; ".join(troubles)
    )
    reporter.state("training")
    yield reporter
    reporter.state("stopped")


def shows(directory: Path, key: str, value: object) -> bool:
    end = time.monotonic() + AGES
    while (found := read_status(directory)[key]) != value and time.monotonic() < end:
        time.sleep(0.01)
    return bool(found == value)


def test_a_phase_that_lasts_is_seen_though_much_was_written_just_before(tmp_path: Path, reporter: Reporter) -> None:
    for phase in ("coordinate", "", "generate", "", "checkpoint", "", "coordinate"):
        reporter.phase(phase, 3)
    assert shows(tmp_path, "phase", "coordinate")
    reporter.phase("", 3)
    reporter.phase("generate", 3)
    assert shows(tmp_path, "phase", "generate")


def test_a_request_to_stop_is_seen_and_nothing_that_follows_hides_it(tmp_path: Path, reporter: Reporter) -> None:
    reporter.phase("generate", 7)
    reporter.stopping()
    reporter.phase("", 7)
    reporter.phase("share", 7)
    assert shows(tmp_path, "state", "stopping")
    assert shows(tmp_path, "phase", "share")


def test_of_a_node_that_failed_it_stays_known_where(tmp_path: Path, reporter: Reporter) -> None:
    reporter.phase("train", 7)
    reporter.state("failed")
    found = read_status(tmp_path)
    assert (found["state"], found["phase"], found["round"]) == ("failed", "train", 7)


def test_the_line_is_announced_as_it_changes_with_what_people_should_know(
    reporter: Reporter, announced: list[str]
) -> None:
    end = time.monotonic() + AGES
    reporter.notice = "reload refused: why"
    for phase in ("generate", "train"):
        reporter.phase(phase, 7)
        while not any(f"round 7, {phase};" in line for line in announced) and time.monotonic() < end:
            time.sleep(0.01)
    assert announced[-1].startswith("training: round 7, train; memory ")
    assert announced[-1].endswith("; alone; reload refused: why")
    assert len(announced) == len(set(announced))


def test_the_line_of_a_node_without_peers_names_that_once(reporter: Reporter, troubles: list[str]) -> None:
    reporter.phase("train", 7)
    at_work = r"round 7, train; memory \d+ of \d+ MiB; "
    assert re.fullmatch(f"training: {at_work}alone", reporter.line())
    for trouble in ("0 peers", "the network process is being replaced"):
        troubles[:] = [trouble]
        assert re.fullmatch(f"degraded: {at_work}{trouble}", reporter.line())
    reporter.notice = "reload refused: why"
    assert reporter.line().endswith(" MiB; the network process is being replaced; reload refused: why")
    reporter.round_done(replace(ROUND, exchange=ExchangeRow(seen=2, used=1)))
    troubles.clear()
    assert reporter.line().startswith("training: ")
    assert reporter.line().endswith(" MiB; 2 peers, 1 used; reload refused: why")


def test_what_was_reached_before_the_start_stands_in_the_status(
    tmp_path: Path, history: History, reporter: Reporter
) -> None:
    history.record_heldout(HeldoutRow(BASE_ROUND, 1e9, 0.3, 0.35, 50, {"gcd": 0.3}))
    history.record_heldout(HeldoutRow(8, 1e9, 0.4, None, 50, {"gcd": 0.4}))
    reporter.resumed(9)
    assert shows(tmp_path, "round", 9)
    assert read_status(tmp_path)["heldout"]["last"] is None, "a measure that nobody vouches for"
    reporter._keeper.best = Best(8, 0.4)
    reporter.resumed(9)
    assert shows(tmp_path, "heldout", {"base": 0.3, "last": 0.4, "best": 0.4, "round": 8})


def test_the_end_is_written_at_once_and_is_the_last_word(tmp_path: Path, reporter: Reporter) -> None:
    reporter.phase("train", 3)
    reporter.state("stopped")
    assert (read_status(tmp_path)["state"], read_status(tmp_path)["phase"]) == ("stopped", "")
    time.sleep(1.0)  # the writing thread would have come by twice
    assert read_status(tmp_path)["state"] == "stopped"


def test_a_round_is_in_the_curves_before_its_checkpoint_and_told_after_it(
    tmp_path: Path, reporter: Reporter, history: History, lines: list[str]
) -> None:
    reporter.round_played(ROUND)
    last = history.last()
    assert last is not None and last.round == 3
    assert lines == []
    reporter.round_done(ROUND)
    assert lines == [
        "round 3: reward 0.250, signal 50%, loss +0.1000, 64 tokens at 320/s, 256 MiB; "
        "seconds: generate 0.10 train 0.10"
    ]
    assert shows(tmp_path, "round", 3)
    found = read_status(tmp_path)
    assert found["reward"] == {"last": 0.25, "mean_100": 0.25}
    assert found["children"] == {"scorer": {"pid": 1, "restarts": 2}}
    assert found["memory"]["limit"] == 7
    assert found["memory"]["peak"] >= found["memory"]["used"] > 0


def test_a_held_out_score_is_told_beside_the_base_and_the_best(
    tmp_path: Path, reporter: Reporter, history: History, lines: list[str]
) -> None:
    base = HeldoutRow(BASE_ROUND, 1e9, 0.3, 0.35, 50, {"gcd": 0.3})
    history.record_heldout(base)
    reporter.evaluated(base)
    later = HeldoutRow(8, 1e9, 0.4, None, 50, {"gcd": 0.4})
    history.record_heldout(later)
    reporter.evaluated(later)
    assert lines == [
        "held-out score before training: 0.300 sampled, 0.350 greedy over 50 tasks, best 0.300 before training "
        "(gcd 0.30)",
        "held-out score after round 8: 0.400 sampled, - greedy over 50 tasks, base 0.300, best 0.400 after round 8 "
        "(gcd 0.40)",
    ]
    assert shows(tmp_path, "heldout", {"base": 0.3, "last": 0.4, "best": 0.4, "round": 8})


def test_with_a_swarm_the_line_tells_of_peers_and_the_status_adds_up_what_came(
    tmp_path: Path, reporter: Reporter, history: History, lines: list[str]
) -> None:
    verdicts = {"QmA": {"used": 9, "implausible": 2}, "QmB": {"used": 3, "quota-peer": 1}}
    exchange = ExchangeRow(4, 2, 14, 24, 12, 0.3, {"expired": 1}, verdicts)
    for round in (3, 4):
        row = replace(ROUND, round=round, exchange=exchange)
        reporter.round_played(row)
        reporter.round_done(row)
    assert ", loss +0.1000, peers 2/4, 12 groups, 64 tokens at 320/s, " in lines[0]
    assert _of_peers(replace(exchange, peer_groups=1)) == "peers 2/4, 1 group, "
    assert history.exchange(4) == exchange
    assert lines[1] == "left out of what peers sent in round 3: expired 1, implausible 2"
    assert shows(tmp_path, "rejected", {"expired": 2, "implausible": 4, "quota-peer": 2})
    found = read_status(tmp_path)
    assert (found["peers"], found["admitted"]) == ({"seen": 4, "used": 2}, 28)


def test_what_is_only_more_than_is_taken_of_a_peer_is_no_rejection(reporter: Reporter, lines: list[str]) -> None:
    reporter.round_done(replace(ROUND, exchange=ExchangeRow(4, 2, 14, 24, 12, 0.3, {"quota-peer": 5})))
    assert [line for line in lines if "left out" in line] == []
