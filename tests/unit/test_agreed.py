"""A member whose configuration is no longer what its swarm agreed on is told so: which key, where, what mends it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from swarmd.agreed import compare, warn_of_disagreement
from swarmd.membership import change
from swarmd.membership.place import Place

LISTEN = "network: {listen: [/ip4/203.0.113.7/tcp/38751]}\n"


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(logging.getLogger("swarmd"), "propagate", True)
    caplog.set_level(logging.WARNING, "swarmd")


def member(folder: Path, name: str = "config", **given: Any) -> Place:
    """A node that has founded a swarm."""
    main = folder / f"{name}.yaml"
    main.write_text(LISTEN)
    (folder / "state").mkdir()
    place = Place(main, main, folder / "state", {})
    usual: dict[str, Any] = {
        "round_seconds": 60.0, "datasets": None, "private": False, "announce": (), "bootnode": False, "nodes": None
    }  # fmt: skip
    change.found(place, "our-swarm", **{**usual, **given})
    return place


def warned(place: Place, caplog: pytest.LogCaptureFixture, **environ: str) -> str:
    """What the node says at its start; the log has it as a warning, or nothing."""
    caplog.clear()
    said = warn_of_disagreement(place.load(), place.config, environ)
    # By number: hivemind, where another test has loaded it, gives the level another name.
    kinds = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert kinds == ([(logging.WARNING, said)] if said else [])
    return said


def test_a_member_with_the_settings_of_its_swarm_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = member(tmp_path)
    (tmp_path / "config.d" / "60-mine.yaml").write_text(
        "tasks: {datasets: embedded, environment: reasoning_gym}\nswarm: {shards: 32}\n"
    )
    assert warned(place, caplog) == ""


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("swarm: {shards: 7}\n", "swarm.shards"),
        ("swarm: {id: abcdef12}\n", "swarm.id"),
        ("coordinator: {round_seconds: 30}\n", "coordinator.round_seconds"),
        ("tasks: {datasets: rl-swarm}\n", "tasks.datasets"),
    ],
)
@pytest.mark.parametrize("bootnode", [False, True])
def test_what_goes_over_the_swarms_settings_is_named_with_its_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, key: str, bootnode: bool
) -> None:
    place = member(tmp_path, bootnode=bootnode)
    later = tmp_path / "config.d" / "60-mine.yaml"
    later.write_text(text)
    said = warned(place, caplog)
    if bootnode and key == "tasks.datasets":  # it makes no tasks
        assert said == ""
        return
    assert f"set over the swarm's settings: {key} in {later}:1." in said
    assert "take it out there" in said and "the same swarm.id, swarm.dialect, swarm.shards, coordinator.epoch" in said


def test_a_variable_is_named_too(tmp_path: Path) -> None:
    place = member(tmp_path)
    environ = {"SWARMD_SWARM__SHARDS": "9"}
    there = Place(place.config, place.main, place.state, environ)
    said = compare(there.load(), place.config, environ).disagreement
    assert "swarm.shards in environment SWARMD_SWARM__SHARDS" in said


def test_a_drop_in_changed_by_hand_disagrees_with_its_own_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = member(tmp_path)
    place.drop_in.write_text(place.drop_in.read_text().replace("shards: 32", "shards: 16"))
    said = warned(place, caplog)
    assert f"{place.drop_in} was changed by hand, or the versions" in said and "join anew with an invite" in said


def test_an_instance_is_held_against_the_swarm_of_all_nodes_where_it_has_none_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = member(tmp_path)
    second = tmp_path / "second.yaml"
    second.write_text(LISTEN)
    (tmp_path / "second.d").mkdir()
    (tmp_path / "second.d" / "60-mine.yaml").write_text("swarm: {shards: 7}\n")
    instance = Place(second, second, place.state, {})
    assert "swarm.shards in" in warned(instance, caplog)


def test_a_membership_by_hand_has_nothing_to_be_held_against(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    main = tmp_path / "config.yaml"
    main.write_text("swarm: {id: abcdef12, shards: 7}\ncoordinator: {kind: clock}\n")
    assert warned(Place(main, main, tmp_path, {}), caplog) == ""
