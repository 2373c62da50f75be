"""Two nodes of one machine that would listen on one port are found when the second of them gets into a swarm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarmd.config import load_config
from swarmd.membership.neighbours import port_notes

SWARM = "swarm: {id: abcdef12}\ncoordinator: {kind: clock}\n"


def node(folder: Path, name: str, *listen: str, text: str = SWARM) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(f"{text}network: {{listen: [{', '.join(listen)}]}}\n")
    return file


def notes(main: Path) -> list[str]:
    return port_notes(main, load_config(main, {}))


def test_an_instance_with_the_port_of_another_node_is_told_to_take_its_own(tmp_path: Path) -> None:
    first = node(tmp_path, "config", "/ip4/0.0.0.0/tcp/4001")
    node(tmp_path, "third", "/ip4/0.0.0.0/tcp/4002")
    second = node(tmp_path, "second", "/ip4/0.0.0.0/tcp/4001")
    (note,) = notes(second)
    assert note.startswith(f"{first} says to listen on port 4001 too") and "give this node a port of its own" in note
    fix = f"`network: {{listen: [/ip4/0.0.0.0/tcp/4003]}}` into {tmp_path}/second.d/60-port.yaml"
    assert fix in note, "4002 is the third's"
    assert "`swarmd invite` then prints the new address" in note
    (tmp_path / "second.d").mkdir()
    (tmp_path / "second.d" / "60-port.yaml").write_text(fix.split("`")[1])
    assert notes(second) == [] and notes(first) == []


def test_of_the_main_node_it_is_the_other_that_changes(tmp_path: Path) -> None:
    first = node(tmp_path, "config", "/ip4/0.0.0.0/tcp/4001")
    node(tmp_path, "second", "/ip4/0.0.0.0/tcp/4001")
    (note,) = notes(first)
    assert "give that one a port of its own" in note and f"{tmp_path}/second.d/60-port.yaml" in note
    assert "prints the new address" not in note


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("/ip4/0.0.0.0/tcp/4001", "/ip4/127.0.0.1/tcp/4001", True),
        ("/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/4001", True),
        ("/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.2/tcp/4001", False),
        ("/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/tcp/4002", False),
        ("/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001", False),
        ("/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/tcp/0", False),
    ],
)
def test_addresses_that_cannot_both_be_listened_on(tmp_path: Path, one: str, other: str, clash: bool) -> None:
    node(tmp_path, "config", one)
    second = node(tmp_path, "second", "/ip4/127.0.0.1/tcp/7", other)
    assert bool(notes(second)) is clash


def test_what_is_in_no_swarm_or_no_configuration_is_passed_over(tmp_path: Path) -> None:
    node(tmp_path, "alone", "/ip4/0.0.0.0/tcp/4001", text="")
    (tmp_path / "other.yaml").write_text("services: {web: {image: nginx}}\n")
    (tmp_path / "broken.yaml").write_text("swarm: [")
    os.mkfifo(tmp_path / "pipe.yaml")
    assert notes(node(tmp_path, "config", "/ip4/0.0.0.0/tcp/4001")) == []
