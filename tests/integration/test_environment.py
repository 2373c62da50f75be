"""A GenRL environment of somebody else's, named in the configuration, in a real node."""

import json
from pathlib import Path

from tests.integration.node import ROOT, Node
from tests.unit.test_tasks_rounds import TWO_STAGES


def test_a_two_stage_environment_plays_its_rounds_in_the_node(tmp_path: Path) -> None:
    (tmp_path / "second_look.py").write_text(TWO_STAGES)
    settings = {
        "training": {"tasks_per_round": 2, "group_size": 4, "evaluate_samples": 8},
        "tasks": {"environment": "second_look:make"},
        "monitor": {"listen": None},
    }
    path = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with Node(tmp_path / "state", settings, "--rounds", "2", variables=path) as node:
        assert node.end() == 0, node.text()
    assert node.rounds() == [0, 1]
    status = json.loads((tmp_path / "state" / "status.json").read_text())
    assert status["rounds_done"] == 2
    assert status["heldout"]["base"] is not None
    # Two tasks, each answered by a group of four in both stages.
    assert "generate" in node.line("^swarmd: round 1: ")


def test_an_environment_that_fails_ends_the_node_with_its_trace(tmp_path: Path) -> None:
    (tmp_path / "broken_game.py").write_text("def make(settings, context):\n    raise KeyError('my own bug')\n")
    settings = {"tasks": {"environment": "broken_game:make"}, "monitor": {"listen": None}}
    with Node(tmp_path / "state", settings, variables={"PYTHONPATH": f"{ROOT}:{tmp_path}"}) as node:
        assert node.end() == 75, "a fault that a restart may mend, for all the node knows"
    assert "my own bug" in node.text() and "broken_game.py" in node.text()
    assert json.loads((tmp_path / "state" / "status.json").read_text())["state"] == "failed"
