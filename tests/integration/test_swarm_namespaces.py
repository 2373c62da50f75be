"""Three hosts with a bad network between them: 200 ms there and back, a packet in twenty lost each way, one host
behind NAT, and a partition that heals."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import saved
from tests.integration.namespaces import DELAY, LOSS, Host, Internet, missing
from tests.integration.node import until
from tests.integration.swarm import Member, all_are_training, all_train_on

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

ROUND_SECONDS = 8.0
PORT = 38751
# A node that is cut off knows it 40 s after the last word of its last peer.
CUT_SECONDS = 45.0
# After a cut as short as that one a node tries again within 30 s, and a search leaves a silent peer alone for as long.
HEALED_ROUNDS = 8


class Swarm:
    """The hosts and, in their order, a node on each. The last host is the one behind NAT."""

    def __init__(self, internet: Internet, folder: Path) -> None:
        self.internet = internet
        self.hosts: list[Host] = internet.hosts
        self.members: list[Member] = []
        for number, host in enumerate(self.hosts):
            member = Member(folder, number, before=host.before)
            member.settings["network"] = {}  # it listens on all its addresses, at the usual port
            member.write()
            self.members.append(member)

    def start(self) -> None:
        invite = self.members[0].found("trial", "--round-seconds", f"{ROUND_SECONDS:g}")
        for member in self.members[1:]:
            member.command("join", invite)
        for member in self.members:
            member.start()

    def peer_ids(self) -> list[str]:
        return [member.status()["peer_id"] for member in self.members]


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    with Internet() as internet:
        swarm = Swarm(internet, tmp_path_factory.mktemp("swarm"))
        try:
            swarm.start()
            yield swarm
        finally:
            for member in swarm.members:
                member.stop()
    carried, lost = internet.frames["carried"], internet.frames["lost"]
    print(f"the wires carried {carried} frames and lost {lost}")
    assert carried > 1000 and 0.5 * LOSS < lost / carried < 1.5 * LOSS, (carried, lost)


def test_all_train_on_each_other_in_spite_of_delay_and_loss(swarm: Swarm) -> None:
    all_train_on(swarm.members, 2, "trains on both others")
    all_are_training(swarm.members)


def test_the_network_is_as_bad_as_it_is_said_to_be(swarm: Swarm) -> None:
    first, second, hidden = swarm.hosts
    took = [first.can_connect(second.address, PORT), hidden.can_connect(first.address, PORT)]
    print("connecting took", took)
    assert all(seconds is not None and seconds >= 2 * DELAY for seconds in took)
    assert first.can_connect(hidden.seen_at, PORT) is None and first.can_connect(hidden.address, PORT) is None


def test_a_node_behind_nat_knows_it_and_takes_part(swarm: Swarm) -> None:
    *others, hidden = swarm.members
    for member in others:
        until(lambda m=member: m.status()["network"]["reachable"] is True, every=0.2, why="others can call it")
    until(lambda: hidden.status()["network"]["reachable"] is False, every=0.2, why="nobody can call it")
    assert "; none of them can call this node" in hidden.command("status")
    told = _finding(hidden, "reachable")
    assert told["result"] == "warning" and str(PORT) in told["fix"]
    assert told["message"].startswith("peers cannot open a connection to this node; ")
    assert _finding(others[0], "reachable")["result"] == "ok"
    name = hidden.status()["peer_id"]
    since = [member.last_round() for member in others]
    for member, first in zip(others, since, strict=True):
        until(lambda m=member, r=first: name in _used(m, r), every=0.2, why=f"{member.state.name} trains on it")
    all_train_on([hidden], 2, "trains on both others")


def test_a_partition_stops_nobody_and_heals(swarm: Swarm) -> None:
    members = swarm.members
    lone, *others = members
    names = swarm.peer_ids()
    for member in members:  # else two of them may not have met yet, and only the third knows both
        until(lambda m=member: m.status()["network"]["connected"] == 2, every=0.2, why="they know each other")
    before = [member.last_round() for member in members]
    begun = time.monotonic()
    swarm.internet.cut(0)
    until(lambda: lone.status().get("state") == "degraded", every=0.2, why="the node that is cut off knows it")
    print(f"the node that was cut off knew it after {time.monotonic() - begun:.0f} s")
    all_train_on(others, 1, "goes on with the other one on its side")
    time.sleep(max(0.0, begun + CUT_SECONDS - time.monotonic()))
    seconds = time.monotonic() - begun
    all_are_training(others)
    for member, first in zip(members, before, strict=True):
        assert member.node is not None
        played = [number for number in member.node.rounds() if number > first]
        assert len(played) >= 0.5 * seconds / ROUND_SECONDS, played
        assert max(later - earlier for earlier, later in itertools.pairwise([first, *played])) <= 3, played

    since = [member.last_round() for member in members]
    swarm.internet.mend(0)
    for member, last in zip(members, since, strict=True):
        until(lambda m=member, r=last: m.trains_on(2, r), every=0.2, why=f"{member.state.name} trains on both again")
        healed = next(number for number, used, _ in member.peers_of_rounds(last) if used == 2) - last
        print(f"{member.state.name} trained on both others again {healed} rounds after the partition")
        assert healed <= HEALED_ROUNDS
    assert swarm.peer_ids() == names
    all_are_training(members)


def test_what_the_exchange_took_is_told(swarm: Swarm) -> None:
    for member in swarm.members:
        used = {number: count for number, count, _ in member.peers_of_rounds()}
        took = [json.loads(seconds)["share"] for _, seconds in saved.rows(member.state, "round, seconds")]
        full = sum(count == 2 for count in used.values())
        print(
            f"{member.state.name}: exchange p50 {statistics.median(took):.2f} s, longest {max(took):.2f} s; "
            f"{full} of {len(used)} rounds trained on both others"
        )
        # Longer than the quarter of the round that it may take, by what it takes to admit what came at the end of it.
        assert statistics.median(took) < ROUND_SECONDS / 2


def _finding(member: Member, check: str) -> dict[str, Any]:
    """What `swarmd doctor` says of this; it runs on the member's host, and finds nothing that has failed."""
    findings = json.loads(member.command("doctor", "--json"))["findings"]
    return next(finding for finding in findings if finding["check"] == check)


def _used(member: Member, since: int) -> set[str]:
    """The peer ids whose groups it trained on in a round after `since`."""
    rows = saved.rows(member.state, "round, peers", "exchanges")
    return {
        peer for number, peers in rows if number > since
        for peer, verdicts in json.loads(peers).items() if verdicts.get("used")
    }  # fmt: skip
