"""A real node that hangs, in each phase: noticed within its deadline, told, ended with all stacks."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import saved
from tests.integration.node import Node, Preloaded
from tests.service_manager import ServiceManager

# Longer than any step of this small node takes on a machine with much else to do.
DEADLINE = 5.0
WATCHDOG_SECONDS = 2.0
# Between the deadline and the request lie two looks of the watchdog and its last words, on such a machine. Every
# other deadline is ten times as far away.
LATEST = 60.0
# The scorer is started meanwhile, and imports much.
START_DEADLINE = 40.0
OTHERS = dict.fromkeys(
    ("start", "coordinate", "generate", "share", "admit", "train", "checkpoint", "evaluate", "between"), 600.0
)


def settings(deadlines: dict[str, float]) -> dict[str, Any]:
    return {
        "training": {"seed": 11, "tasks_per_round": 4, "evaluate_samples": 8, "evaluate_every": 1000},
        "tasks": {"environment": "tests.integration.hanging:factory"},
        "watchdog": {**OTHERS, **deadlines},
    }


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    with ServiceManager(tmp_path / "notify", WATCHDOG_SECONDS) as manager:
        yield manager


PHASES = [
    ("start", "in the start", "factory"),
    ("coordinate", "in phase coordinate", "next_round|hanging"),
    ("generate", "in phase generate of round 0", "_sample_slice"),
    ("share", "in phase share of round 0", "run_game_round"),
    ("admit", "in phase admit of round 0", "run_game_round"),
    ("admit with the log", "in phase admit of round 0", "with_the_log"),
    ("train", "in phase train of round 0", "_accumulate"),
    ("checkpoint", "in phase checkpoint of round 0", "_save"),
    ("evaluate", "in phase evaluate", "_sample_slice"),
    ("between", "between two phases of round 0", "_play"),
]


@pytest.mark.parametrize(("where", "told", "frame"), PHASES, ids=lambda value: value.replace(" ", "-"))
def test_a_hang_is_noticed_within_its_deadline_and_ends_with_all_stacks(
    tmp_path: Path, manager: ServiceManager, preloaded: Preloaded, where: str, told: str, frame: str
) -> None:
    phase, note = where.split()[0], tmp_path / "note"
    deadline = START_DEADLINE if phase == "start" else DEADLINE
    variables = {**manager.variables, "HANG_IN": where, "HANG_NOTE": str(note)}
    with Node(tmp_path / "state", settings({phase: deadline}), preloaded=preloaded, variables=variables) as node:
        request = manager.field("WATCHDOG", "trigger")
        began = float(note.read_text())
        assert request.time - began < deadline + LATEST
        assert re.fullmatch(rf"hung {told}: \d+ s without progress", request.fields["STATUS"])
        time.sleep(WATCHDOG_SECONDS)
        assert manager.of("WATCHDOG")[-1] == request, "no ping vouches for it any more"
        last_begun = {"start": "", "between": "coordinate"}.get(phase, phase)
        assert saved.status(tmp_path / "state")["phase"] == last_begun
        node.send(signal.SIGABRT)
        assert node.end() == -signal.SIGABRT
    stacks = node.text().partition("Fatal Python error: Aborted")[2]
    assert "in hang_here" in stacks and re.search(rf"in ({frame})\b", stacks)
    assert stacks.count("hread 0x") >= 2, "those of all threads"
    if "log" not in where:
        assert node.line(f"critical: hung {told}: .+ s without progress; all stacks follow")


def test_outside_a_service_a_hung_node_ends_itself(tmp_path: Path, preloaded: Preloaded) -> None:
    variables = {"HANG_IN": "train", "HANG_NOTE": str(tmp_path / "note")}
    with Node(tmp_path / "state", settings({"train": DEADLINE}), preloaded=preloaded, variables=variables) as node:
        assert node.end() == -signal.SIGABRT
    assert "hung in phase train of round 0" in node.text()
    assert "in hang_here" in node.text().partition("Fatal Python error: Aborted")[2]


def test_what_takes_long_but_ends_in_time_is_no_hang(
    tmp_path: Path, manager: ServiceManager, preloaded: Preloaded
) -> None:
    variables = {**manager.variables, "HANG_IN": "share", "HANG_NOTE": str(tmp_path / "note"), "HANG_SECONDS": "3"}
    slow = settings({})
    with Node(tmp_path / "state", slow, "--rounds", "1", preloaded=preloaded, variables=variables) as node:
        assert node.end() == 0, node.text()
    assert {message.fields["WATCHDOG"] for message in manager.of("WATCHDOG")} == {"1"}


def test_the_round_after_a_hang_is_played_from_the_last_checkpoint(
    tmp_path: Path, manager: ServiceManager, preloaded: Preloaded
) -> None:
    """The service manager's whole part: it ends the node when it asks for it, and starts it again."""
    normal = {**settings({}), "tasks": {"environment": "reasoning_gym"}}
    with Node(tmp_path / "state", normal, "--rounds", "2", preloaded=preloaded, variables=manager.variables) as node:
        assert node.end() == 0, node.text()
    variables = {**manager.variables, "HANG_IN": "train", "HANG_NOTE": str(tmp_path / "note")}
    with Node(tmp_path / "state", settings({"train": 1.0}), preloaded=preloaded, variables=variables) as node:
        manager.abort = node.pid
        assert node.end() == -signal.SIGABRT
        assert "hung in phase train of round 2" in node.text()
    with Node(tmp_path / "state", normal, "--rounds", "1", preloaded=preloaded, variables=manager.variables) as node:
        assert node.end() == 0, node.text()
        assert node.rounds() == [2]
