"""Four real nodes on loopback: found, joined, late, gone, come back, and their daemons killed at random."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmd.system.exits import EXIT_CONFIG
from tests.integration.node import Node, Preloaded, until
from tests.integration.swarm import ROUND_SECONDS, Member, all_are_training, all_train_on, gone

# Five are promised, on a machine that has time for it; this one may have much else to do. What it took is printed.
MENDED_SECONDS = 20.0
# The whole trial takes five minutes; each run of the tests a fifth of it.
CHAOS_SECONDS = float(os.environ.get("SWARMD_CHAOS_SECONDS", "60"))


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory, preloaded: Preloaded) -> Iterator[list[Member]]:
    """Three nodes that train on each other; the first one is the bootnode of the others. And one that waits."""
    folder = tmp_path_factory.mktemp("swarm")
    members = [Member(folder, number, preloaded) for number in range(4)]
    invite = members[0].found()
    for member in members[1:]:
        member.command("join", invite)
    for member in members[:3]:
        member.start()
    yield members
    for member in members:
        member.stop()


def test_nodes_that_joined_train_on_each_other(swarm: list[Member]) -> None:
    all_train_on(swarm[:3], 2, "trains on both others")
    names = {member.status()["peer_id"] for member in swarm[:3]}
    assert len(names) == 3 and None not in names
    all_are_training(swarm[:3])


def test_a_late_joiner_finds_all_and_is_found(swarm: list[Member]) -> None:
    swarm[3].start()
    all_train_on(swarm, 3, "trains on all three others")


def test_a_leaver_is_not_waited_for_long_and_the_others_go_on(swarm: list[Member]) -> None:
    node = swarm[3].node
    assert node is not None
    node.send(signal.SIGTERM)
    assert node.end() == 0
    all_train_on(swarm[:3], 2, "goes on without the leaver")
    swarm[3].command("leave")
    assert not swarm[3].state.with_name("n3.d").joinpath("50-swarm.yaml").exists()


def test_the_bootnode_may_go_and_come_back(swarm: list[Member]) -> None:
    first = swarm[0]
    name = first.status()["peer_id"]
    assert first.node is not None
    first.node.kill()
    all_train_on(swarm[1:3], 1, "goes on without the bootnode")
    first.start()
    all_train_on(swarm[:3], 2, "trains on the bootnode again")
    assert first.status()["peer_id"] == name


def test_who_has_left_comes_back_with_the_invite_of_today_and_under_its_name(swarm: list[Member]) -> None:
    back, name = swarm[3], swarm[3].status()["peer_id"]
    back.stop()
    back.command("join", json.loads(swarm[0].command("invite", "--json"))["invite"])
    back.start()
    all_train_on(swarm, 3, "trains on all three others")
    assert back.status()["peer_id"] == name


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda number: number.name)
@pytest.mark.parametrize("child", ["network", "p2pd"])
def test_a_child_that_dies_or_hangs_is_replaced_in_seconds(
    swarm: list[Member], child: str, number: signal.Signals
) -> None:
    member = swarm[1]
    node, name, old = member.node, member.status()["peer_id"], member.child(child)
    assert node is not None and old is not None
    begun = time.monotonic()
    os.kill(old, number)
    until(lambda: member.child(child) not in (None, old), every=0.05, why=f"another {child}")
    took = time.monotonic() - begun
    print(f"{child}, {number.name}: another one after {took:.1f} s, told half a second later at most")
    assert took <= MENDED_SECONDS
    until(gone(old), why=f"the old {child} is gone")
    assert node.code() is None, "the node itself lives on"
    all_train_on([member], 2, f"trains on the others after its {child} was replaced")
    assert member.status()["peer_id"] == name


def test_daemons_killed_at_random_stop_no_round(swarm: list[Member]) -> None:
    members, chance = swarm, random.Random(4)
    names = [member.status()["peer_id"] for member in members]
    since = [member.last_round() for member in members]
    begun, kills = time.monotonic(), 0
    while time.monotonic() - begun < CHAOS_SECONDS:
        pid = chance.choice(members).child("p2pd")
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):  # the status was a moment old
                os.kill(pid, signal.SIGKILL)
                kills += 1
        time.sleep(chance.uniform(0.5, 4.0))
    seconds = time.monotonic() - begun
    assert kills >= CHAOS_SECONDS / 10
    for member, first in zip(members, since, strict=True):
        assert member.node is not None
        played = [number for number in member.node.rounds() if number > first]
        # A round of the clock that a busy machine has no time for is passed over; none is lost to the network.
        assert len(played) >= 0.5 * seconds / ROUND_SECONDS, played
        longest = max(later - earlier for earlier, later in itertools.pairwise([first, *played]))
        share = len(played) * ROUND_SECONDS / seconds
        print(f"{member.state.name}: {kills} kills, {share:.0%} of the rounds of {seconds:.0f} s, {longest} apart")
        assert longest <= 5, f"{longest} rounds without one"
    all_train_on(members, 3, "rollouts flow again")
    assert [member.status()["peer_id"] for member in members] == names


def test_a_second_node_with_the_same_identity_is_refused_by_name_of_the_first(
    swarm: list[Member], tmp_path: Path, preloaded: Preloaded
) -> None:
    first = swarm[0]
    assert first.node is not None
    twin = Member(tmp_path, 0, preloaded)
    twin.settings["swarm"] = {"id": "5eed1e55"}
    twin.settings["coordinator"] = {"kind": "clock", "round_seconds": ROUND_SECONDS}
    twin.settings["network"]["identity_file"] = str(first.state / "identity.key")
    with Node(twin.state, twin.settings, preloaded=preloaded) as node:
        assert node.end() == EXIT_CONFIG
        assert f"the identity is in use by process {first.node.pid}" in node.text()


def test_who_has_trained_alone_goes_on_in_a_swarm_at_once(tmp_path: Path, preloaded: Preloaded) -> None:
    member = Member(tmp_path, 0, preloaded)
    with Node(member.state, member.settings, "--rounds", "30", preloaded=preloaded) as alone:
        assert alone.end() == 0
        assert alone.rounds() == list(range(30))
    member.found()  # its first round is going on now
    node = member.start()
    try:
        node.after_round(32)
        assert node.rounds()[0] == 30, "the node's count goes on"
        assert "going on after round 29" in node.text()
    finally:
        member.stop()


def test_no_peer_is_a_state_and_no_end(tmp_path: Path, preloaded: Preloaded) -> None:
    alone = Member(tmp_path, 0, preloaded)
    alone.found()
    node = alone.start()
    try:
        until(lambda: alone.status().get("state") == "degraded", every=0.1)
        first = alone.last_round()
        until(lambda: alone.last_round() > first + 2, every=0.1)
        assert alone.status()["peers"] == {"seen": 0, "used": 0}
        assert node.code() is None
    finally:
        alone.stop()
