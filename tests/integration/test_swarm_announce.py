"""A node behind NAT with a port that is forwarded to it, which no address of its own tells: network.announce does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swarmd.network.invite import Invite, decode, encode
from tests.integration.exchange_process import MemberProcess
from tests.integration.namespaces import PUBLIC, Internet, missing
from tests.integration.node import until
from tests.integration.swarm import Member

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

# The router's is another one than the node's: where they are the same, others would see the node call from the very
# address at which it can be called, and find it without being told.
PORT, OUTSIDE = 38751, 4001
EXPIRES = 800.0


class Swarm:
    """A founder behind a router, a newcomer with a public address, and one more that listens nowhere: it can only call.

    word: the founder's invite. The newcomer was given it, and the last one an invite that names the newcomer alone.
    """

    def __init__(self, internet: Internet, folder: Path, stack: ExitStack) -> None:
        self.public, self.calling, self.behind = internet.hosts
        internet.forward(2, OUTSIDE, PORT)
        self.announced = f"/ip4/{self.behind.seen_at}/tcp/{OUTSIDE}"
        founder, newcomer, caller = self.members = [
            Member(folder, number, before=host.before)
            for number, host in enumerate((self.behind, self.public, self.calling))
        ]
        listen = [f"/ip4/0.0.0.0/tcp/{PORT}"]
        for member, network in (
            (founder, {"listen": listen, "announce": [self.announced]}),
            (newcomer, {"listen": listen}),
            (caller, {"listen": []}),
        ):
            member.settings["network"] = network
            member.write()
        self.word = founder.found()
        newcomer.command("join", self.word)
        self.founder = stack.enter_context(MemberProcess(self.behind, founder))
        self.newcomer = stack.enter_context(MemberProcess(self.public, newcomer))
        known = f"/ip4/{self.public.address}/tcp/{PORT}/p2p/{self.newcomer.peer_id}"
        caller.command("join", encode(replace(self.invite, peers=(known,))))
        self._stack, self._caller = stack, caller

    @property
    def invite(self) -> Invite:
        return decode(self.word)

    def start_caller(self) -> MemberProcess:
        return self._stack.enter_context(MemberProcess(self.calling, self._caller))


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    with ExitStack() as stack:
        internet = stack.enter_context(Internet(routers=1, net=PUBLIC, delay=0.01, loss=0.0))
        yield Swarm(internet, tmp_path_factory.mktemp("swarm"), stack)


def state(member: MemberProcess) -> dict[str, Any]:
    return dict(member.do("state"))


def addresses(member: MemberProcess, peer: MemberProcess) -> set[str]:
    """At which a peer is connected to a member; none where it is not."""
    return set(member.do("peers").get(peer.peer_id, ()))


def test_the_router_passes_on_the_announced_port_and_no_other(swarm: Swarm) -> None:
    assert swarm.public.can_connect(swarm.behind.seen_at, OUTSIDE) is not None
    assert swarm.public.can_connect(swarm.behind.seen_at, PORT, 2.0) is None
    assert swarm.public.can_connect(swarm.behind.address, PORT, 2.0) is None


def test_invite_and_node_name_the_announced_address_and_none_of_its_own(swarm: Swarm) -> None:
    there = f"{swarm.announced}/p2p/{swarm.founder.peer_id}"
    assert swarm.invite.peers == (there,)
    told = until(lambda: state(swarm.founder)["addresses"], every=0.2, why="it knows its addresses")
    assert told == [there]


def test_a_newcomer_that_has_this_address_alone_connects_and_each_takes_the_others_record(swarm: Swarm) -> None:
    founder, newcomer = swarm.founder, swarm.newcomer
    there = {swarm.announced}
    until(lambda: addresses(newcomer, founder) == there, every=0.2, why="the newcomer is connected to it")
    until(lambda: addresses(founder, newcomer), every=0.2, why="and it to the newcomer")
    round, expires = 1000, time.time() + EXPIRES
    for member in (founder, newcomer):
        member.do("open", round=round)
    admitted: dict[str, set[str]] = {founder.peer_id: set(), newcomer.peer_id: set()}

    def each_has_the_others() -> bool:
        for member in (founder, newcomer):
            admitted[member.peer_id] |= member.share(round, expires)
        return all(admitted.values())

    until(each_has_the_others, every=0.5, why="each has admitted groups of the other")
    assert admitted == {founder.peer_id: {newcomer.peer_id}, newcomer.peer_id: {founder.peer_id}}


def test_a_node_behind_nat_that_announces_a_forwarded_port_finds_that_it_can_be_called(swarm: Swarm) -> None:
    until(lambda: state(swarm.founder)["reachable"] is True, every=0.2, why="others have called it")


def test_who_hears_of_the_node_from_another_one_calls_it_where_it_announces_to_be(swarm: Swarm) -> None:
    founder, caller, round = swarm.founder, swarm.start_caller(), 1001
    expires = time.time() + EXPIRES

    def is_called() -> bool:
        caller.share(round, expires)  # nodes hear of each other when they look for records
        return bool(addresses(caller, founder))

    until(is_called, every=0.5, why="it is connected to the node that it was not told of")
    assert addresses(caller, founder) == {swarm.announced}, "nobody can call it, so it has called"
