"""`swarmd peers`, `swarmd doctor` and `swarmd status` of real nodes in a swarm, while they run and afterwards."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.node import ROOT, Preloaded, environment, until
from tests.integration.swarm import Member, all_train_on

KEYS = ["peer_id", "name", "dialect", "last_round", "admitted", "rejected", "reputation", "quarantined"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, preloaded: Preloaded) -> Iterator[list[Member]]:
    """A swarm of two, who have trained on each other; the second one stops at the end."""
    folder = tmp_path_factory.mktemp("two")
    members = [Member(folder, number, preloaded) for number in range(2)]
    members[1].command("join", members[0].found("pair"))
    for member in members:
        member.start()
    all_train_on(members, 1, "trains on the other")
    yield members
    for member in members:
        member.stop()


def told(member: Member, command: str) -> tuple[int, Any, str]:
    """Exit code, the JSON on stdout, and stderr."""
    config = member.state.with_name(member.state.name + ".yaml")
    done = subprocess.run(
        [sys.executable, "-m", "swarmd", command, "--json", "--config", str(config), "--state", str(member.state)],
        capture_output=True, text=True, cwd=ROOT, env=environment(),
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout), done.stderr


def findings(member: Member) -> tuple[int, dict[str, dict[str, Any]]]:
    code, document, _ = told(member, "doctor")
    assert document["ok"] is (code == 0)
    return code, {finding["check"]: finding for finding in document["findings"]}


def test_peers_of_a_running_node(two: list[Member]) -> None:
    first, second = two
    (row,) = until(
        lambda: [row for row in told(first, "peers")[1] if row["admitted"] and row["clock_skew_s"] is not None],
        why="its groups and its clock are told",
    )
    assert list(row)[: len(KEYS)] == KEYS
    assert row["peer_id"] == second.status()["peer_id"] and row["name"] == second.status()["name"]
    # It shares eight groups a round, of which four are taken; and once in a while a policy at this temperature writes
    # what another some updates away from it would not.
    assert set(row["rejected"]) <= {"quota-peer", "implausible"}
    assert (row["dialect"], row["quarantined"]) == ("swarmd", False)
    assert row["last_round"] >= 0 and row["reputation"] > 0.6 and row["connected"] is True
    assert any("/tcp/" in address for address in row["addresses"]) and abs(row["clock_skew_s"]) < 1.0
    text = first.command("peers")
    assert text.startswith("1 peer, 1 connected; as of ") and row["peer_id"] in text


def test_status_tells_of_the_swarm(two: list[Member]) -> None:
    first, second = two
    network = until(lambda: (found := first.status()["network"])["known"] and found, why="the peer is known")
    assert (network["swarm"], network["connected"], network["known"], network["problem"]) == ("pair", 1, 1, "")
    own = first.status()["peer_id"]
    assert network["addresses"] and all(address.endswith(f"/p2p/{own}") for address in network["addresses"])
    lines = first.command("status").splitlines()
    assert "swarm       pair" in lines and f"node        {first.status()['name']} ({own})" in lines
    assert any(line.startswith("network     1 peer connected, 1 published lately; ") for line in lines)


def test_doctor_finds_nothing_wrong_with_a_running_node(two: list[Member]) -> None:
    until(lambda: two[0].status()["network"]["reachable"], why="the other has called back")
    until(lambda: two[0].status()["network"]["clock_skew_s"] is not None, why="the other has told its time")
    code, found = findings(two[0])
    assert code == 0, found
    wanted = ("config", "state", "memory", "torch", "swarm", "identity", "agreement", "reasoning-gym", "p2pd", "peers",
              "reachable", "clock-skew")
    assert {check: found[check]["result"] for check in wanted} == dict.fromkeys(wanted, "ok")
    assert two[0].status()["peer_id"] in found["identity"]["message"] and "mode 0600" in found["identity"]["message"]
    assert found["addresses"]["result"] == "warning" and "only this machine" in found["addresses"]["message"]


def test_doctor_says_what_is_wrong_with_a_stopped_node_and_what_mends_it(two: list[Member]) -> None:
    member = two[1]
    member.stop()
    key, port = member.state / "identity.key", int(member.settings["network"]["listen"][0].split("/")[4])
    code, found = findings(member)
    assert code == 0, found
    assert found["ports"]["result"] == found["p2pd"]["result"] == "ok"
    assert [found[check]["result"] for check in ("peers", "reachable", "clock-skew")] == ["skipped"] * 3
    assert "swarmd run" in found["peers"]["fix"]
    os.chmod(key, 0o644)
    with socket.create_server(("127.0.0.1", port)):
        code, found = findings(member)
    os.chmod(key, 0o600)
    assert code == 1
    assert found["identity"]["result"] == found["ports"]["result"] == "failed"
    assert found["identity"]["fix"] == f"chmod 0600 {key}" and found["ports"]["fix"] == f"ss -ltnp 'sport = :{port}'"


def test_doctor_sees_that_a_file_overrules_what_the_swarm_agreed_on(two: list[Member], tmp_path: Path) -> None:
    later = two[1].state.with_name("n1.d") / "60-mine.yaml"
    later.write_text("swarm: {shards: 7}\n")
    try:
        code, found = findings(two[1])
    finally:
        later.unlink()
    assert code == 1 and found["agreement"]["result"] == "failed"
    assert f"swarm.shards in {later}:1" in found["agreement"]["message"]


def test_peers_of_a_stopped_node_are_those_it_saw_last(two: list[Member]) -> None:
    first, second = two
    second.stop()
    code, (row,), _ = told(second, "peers")
    assert code == 0 and row["peer_id"] == first.status()["peer_id"] and row["admitted"] > 0
    assert row["connected"] is False
    assert "the node is not running" in second.command("peers")


def test_peers_of_a_node_in_no_swarm_says_how_to_get_into_one(tmp_path: Path) -> None:
    code, rows, errors = told(Member(tmp_path, 0), "peers")
    assert (code, rows) == (1, [])
    assert "in no swarm" in errors and "`swarmd found NAME`" in errors and "`swarmd join INVITE`" in errors
