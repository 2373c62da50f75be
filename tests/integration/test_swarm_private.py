"""A private swarm of real nodes on loopback: the invite lets in, and who knows all that it says but the secret does not
get in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from swarmd.network.invite import decode
from tests.integration import saved
from tests.integration.node import Preloaded, until
from tests.integration.swarm import Member, all_are_training, all_train_on

ROUNDS = 4


class Private:
    """Two members, who train on each other, and a stranger, whom the test starts."""

    def __init__(self, folder: Path, preloaded: Preloaded) -> None:
        first, second, self.stranger = (Member(folder, number, preloaded) for number in range(3))
        self.members = [first, second]
        self.all = [first, second, self.stranger]
        self.invite = first.found("x", "--private")
        second.command("join", self.invite)
        told = decode(self.invite)
        assert told.secret is not None and told.peers
        self.known = {
            "swarm": {"name": told.name, "id": told.swarm_id, "shards": told.shards, "peers": list(told.peers)},
            "coordinator": {"kind": "clock", "epoch": told.epoch, "round_seconds": told.round_seconds},
            "tasks": {"datasets": told.datasets},
        }


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory, preloaded: Preloaded) -> Iterator[Private]:
    swarm = Private(tmp_path_factory.mktemp("private"), preloaded)
    for member in swarm.members:
        member.start()
    yield swarm
    for member in swarm.all:
        member.stop()


def peers_taken_from(member: Member) -> set[str]:
    """The ids of the peers of whom it ever took a group, whatever came of it."""
    return {peer for _, peers in saved.rows(member.state, "round, peers", "exchanges") for peer in json.loads(peers)}


def is_connected_to(caller: Member, called: Member) -> bool:
    """Whether the caller's p2pd has a connection to where the other one listens."""
    pid, port = caller.child("p2pd"), int(called.settings["network"]["listen"][0].split("/")[4])
    try:
        ends = [] if pid is None else psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return False  # it has been replaced just now
    return any(end.raddr and end.raddr.port == port and end.status == psutil.CONN_ESTABLISHED for end in ends)


def rounds_of_all(nodes: list[Member], since: int) -> set[int]:
    """The rounds from `since` on that each of them has played."""
    return set.intersection(
        *({number for number in member.node.rounds() if number >= since} for member in nodes if member.node is not None)
    )


def test_members_of_a_private_swarm_train_on_each_other(private: Private) -> None:
    all_train_on(private.members, 1, "trains on the other")
    all_are_training(private.members)


def test_who_knows_all_but_the_secret_is_used_by_nobody_and_uses_nobody(private: Private) -> None:
    first, second = private.members
    stranger = private.stranger
    stranger.settings |= private.known
    stranger.start()
    until(lambda: is_connected_to(stranger, first), every=0.2, why="the stranger calls the node that it knows")
    until(lambda: stranger.last_round() >= 0, every=0.2, why="the stranger plays")
    last = max(member.last_round() for member in private.all)
    until(lambda: len(rounds_of_all(private.all, last)) >= ROUNDS, every=0.2, why="all three play the same rounds")
    until(lambda: is_connected_to(stranger, first), every=0.2, why="the stranger still calls the node that it knows")

    exchanged = saved.rows(stranger.state, "round, seen, used, admitted", "exchanges")
    assert len(exchanged) >= ROUNDS and {row[1:] for row in exchanged} == {(0, 0, 0)}
    assert stranger.status()["state"] == "degraded" and stranger.status()["network"]["connected"] == 0
    all_train_on(private.members, 1, "goes on with the other")
    for member, other in ((first, second), (second, first)):
        assert peers_taken_from(member) == {other.status()["peer_id"]}
        assert member.status()["network"]["connected"] == 1


def test_the_invite_lets_in_whom_nothing_but_the_secret_kept_out(private: Private) -> None:
    stranger = private.stranger
    name = stranger.status()["peer_id"]
    stranger.stop()
    for section in private.known:
        del stranger.settings[section]
    stranger.write()
    stranger.command("join", private.invite)
    stranger.start()
    all_train_on(private.all, 2, "trains on both others")
    for member in private.members:
        assert name in peers_taken_from(member)
