"""A bootnode: two nodes that know nobody else find each other through it; it trains nothing and loads no model."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmd.system.exits import EXIT_CONFIG
from swarmd.system.memory import rss_bytes
from tests.integration.node import Node, Preloaded, until
from tests.integration.swarm import Member, all_train_on

READY = "ready after .* bootnode "


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory, preloaded: Preloaded) -> Iterator[list[Member]]:
    """A bootnode in an interpreter of its own, so that one sees what it loads; and two nodes that know only it."""
    folder = tmp_path_factory.mktemp("bootnode")
    members = [Member(folder, 0), *(Member(folder, number, preloaded) for number in (1, 2))]
    invite = members[0].found("with-bootnode", "--bootnode")
    for member in members[1:]:
        member.command("join", invite)
    for member in members:
        member.start()
    yield members
    for member in members:
        member.stop()


def bootnode(swarm: list[Member]) -> Node:
    assert swarm[0].node is not None
    return swarm[0].node


def test_two_nodes_find_each_other_through_it(swarm: list[Member]) -> None:
    bootnode(swarm).line(READY)
    all_train_on(swarm[1:], 1, "trains on the other")
    drop_in = swarm[1].state.with_name("n1.d").joinpath("50-swarm.yaml").read_text()
    assert f"/p2p/{swarm[0].status()['peer_id']}" in drop_in and drop_in.count("/p2p/") == 1


def test_it_loads_nothing_for_a_model(swarm: list[Member]) -> None:
    pid = bootnode(swarm).pid
    network = until(lambda: swarm[0].child("network"), why="its network process")
    for process in (pid, network):
        mapped = Path(f"/proc/{process}/maps").read_text()
        assert "libtorch" not in mapped and "/torch/" not in mapped and "/transformers/" not in mapped
        assert rss_bytes(process) < 150 << 20
    assert not (swarm[0].state / "checkpoints").exists()


def test_its_status_says_that_it_serves(swarm: list[Member]) -> None:
    status = until(lambda: (s := swarm[0].status()).get("state") == "training" and s, why="it serves")
    assert (status["role"], status["phase"], status["model"]) == ("bootnode", "serve", None)
    until(lambda: swarm[0].status()["network"]["connected"] == 2, why="both nodes are connected")
    lines = swarm[0].command("status").splitlines()
    assert lines[0].startswith("state       serving, bootnode, up ")
    assert any(line.startswith("network     2 peers connected; ") for line in lines)
    assert not any(line.startswith(("model", "reward", "speed", "peers")) for line in lines)


def test_it_tells_who_is_connected_and_has_no_opinion_of_them(swarm: list[Member]) -> None:
    others = {member.status()["peer_id"] for member in swarm[1:]}
    rows = until(
        lambda: len(found := json.loads(swarm[0].command("peers", "--json"))) == 2 and found, why="both are told of"
    )
    assert {row["peer_id"] for row in rows} == others
    assert all(row["connected"] and row["reputation"] is None and not row["quarantined"] for row in rows)


def test_doctor_finds_nothing_wrong_with_it(swarm: list[Member]) -> None:
    found = json.loads(swarm[0].command("doctor", "--json"))
    assert found["ok"] and not {"torch", "memory"} & {finding["check"] for finding in found["findings"]}


def test_stopped_it_ends_with_0_the_nodes_go_on_and_it_comes_back_as_itself(swarm: list[Member]) -> None:
    peer_id = swarm[0].status()["peer_id"]
    node = bootnode(swarm)
    node.send(signal.SIGTERM)
    assert node.end(30) == 0
    assert swarm[0].status()["state"] == "stopped"
    assert swarm[0].command("status").startswith("state       stopped, bootnode, up ")
    all_train_on(swarm[1:], 1, "goes on without the bootnode")
    swarm[0].start().line(READY)
    until(lambda: (swarm[0].status().get("network") or {}).get("connected") == 2, why="the nodes are back")
    assert swarm[0].status()["peer_id"] == peer_id
    all_train_on(swarm[1:], 1, "goes on with the bootnode")


def test_a_child_of_it_that_dies_is_replaced(swarm: list[Member]) -> None:
    old = until(lambda: swarm[0].child("network"), why="its network process")
    os.kill(old, signal.SIGKILL)
    until(lambda: swarm[0].child("network") not in (None, old), why="another one")
    until(lambda: swarm[0].status()["network"]["connected"] == 2, why="the nodes are back")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"swarm": {"role": "bootnode"}}, "a bootnode serves a swarm, but coordinator.kind is solo"),
        ({"swarm": {"role": "bootnode"}, "coordinator": {"kind": "clock"}}, "clock needs swarm.id; swarmd found"),
    ],
)
def test_without_a_swarm_it_refuses_to_start(
    tmp_path: Path, settings: dict[str, dict[str, str]], sentence: str
) -> None:
    with Node(tmp_path / "n", settings) as node:
        assert node.end(60) == EXIT_CONFIG
        assert sentence in node.text()
