"""How much of a round one address block gets, of nodes that are really there: on addresses that are public ones to
libp2p and to Python, behind real connections, read by a member as the network process has it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.exchange_process import MIX, LightNodes, MemberProcess
from tests.integration.namespaces import PUBLIC, Internet, missing
from tests.integration.node import until
from tests.integration.swarm import Member

_NO_IPV6 = "" if os.path.exists("/proc/net/if_inet6") else "the kernel has no IPv6"

pytestmark = pytest.mark.skipif(bool(missing() or _NO_IPV6), reason=missing() or _NO_IPV6)

SWARM_ID, SHARDS, PORT = "b10c" * 8, 4, 38751
# An eighth of it is less than the four places that each block has.
PEERS_PER_ROUND, PLACES = 24, 4
ROUNDS = (1000, 1001)
# Long enough that no record is gone before it was read.
EXPIRES = 800.0

# All but the private ones are blocks of AS112 (RFC 7534 and 7535), as PUBLIC is: public, and no provider's.
OTHER_PUBLIC, SITE, PRIVATE = "192.31.196", "2620:4f:8000", "10.88.0"
ADDRESSES = {
    "a block": [f"/ip4/{PUBLIC}.{number}" for number in (20, 60, 100, 140, 180, 220)],
    "another block": [f"/ip4/{OTHER_PUBLIC}.20"],
    "a site": [f"/ip6/{SITE}:{number}::20" for number in (1, 2, 3, 100, 8000)],  # a /64 each, of one /48
    "private": [f"/ip4/{PRIVATE}.{number}" for number in (20, 60, 100, 140, 180)],
}
"""Where the nodes that publish are, all on one host."""

_LENGTHS = {PUBLIC: 24, OTHER_PUBLIC: 24, PRIVATE: 24, SITE: 48}


@dataclass(frozen=True)
class Round:
    """What came of the peers' records in a round: peer ids. refused: for their address. admitted: groups of theirs."""

    placed: set[str]
    refused: set[str]
    admitted: set[str]


class Played:
    """The peers of each block, and what a reader that is connected to all of them made of their records."""

    def __init__(self, internet: Internet, folder: Path, stack: ExitStack) -> None:
        reader_host, host = internet.hosts
        internet.add_addresses(0, *(_with_length(f"{net}::1" if ":" in net else f"{net}.1") for net in _LENGTHS
                                    if net != PUBLIC))  # fmt: skip
        internet.add_addresses(1, *(_with_length(ip) for ip in map(_ip, sum(ADDRESSES.values(), []))))
        listen = [f"{address}/tcp/{PORT}" for addresses in ADDRESSES.values() for address in addresses]
        self._nodes = stack.enter_context(LightNodes(host, folder / "light", SWARM_ID, SHARDS, listen))
        self.peers = {
            block: {self._nodes.peers[f"{address}/tcp/{PORT}"] for address in addresses}
            for block, addresses in ADDRESSES.items()
        }
        reader = Member(folder, 0, before=reader_host.before)
        reader.settings |= {
            "swarm": {
                "id": SWARM_ID, "shards": SHARDS,
                "peers": [f"{address}/p2p/{peer}" for address, peer in self._nodes.peers.items()],
            },
            "coordinator": {"kind": "clock"},
            "tasks": {"datasets": MIX},
            "network": {
                "listen": [f"/ip4/{reader_host.address}/tcp/{PORT}"], "limits": {"peers_per_round": PEERS_PER_ROUND},
            },
        }  # fmt: skip
        reader.write()
        self._reader = stack.enter_context(MemberProcess(reader_host, reader))
        self.known = self._addresses_known()
        self.rounds = {number: self._play(number) for number in ROUNDS}

    def _addresses_known(self) -> dict[str, str]:
        """The address at which the reader has each peer, as soon as it has all."""
        peers = [peer for block in self.peers.values() for peer in block]
        found = until(
            lambda: None not in (known := self._reader.do("address_of", peers=peers)) and known,
            every=0.2, why="the reader is connected to all",
        )  # fmt: skip
        return dict(zip(peers, found, strict=True))

    def _play(self, number: int) -> Round:
        everybody = set.union(*self.peers.values())
        expires = time.time() + EXPIRES
        before, admitted = self._refused(), set[str]()
        self._reader.do("open", round=number)
        assert all(self._nodes.do("publish", round=number, expires=expires)), "others have taken all records"

        def all_are_read() -> Round | None:
            """On a busy machine one exchange has not always time for all of them."""
            admitted.update(self._reader.share(number, expires))
            placed = set(self._reader.do("places", round=number))
            refused = {peer for peer, count in self._refused().items() if count > before.get(peer, 0)}
            return Round(placed, refused, admitted) if placed | refused >= everybody else None

        return until(all_are_read, every=0.5, why=f"the reader has read all records of round {number}")

    def _refused(self) -> dict[str, int]:
        """How often each peer was refused for its address."""
        return {peer: reasons.get("quota-address", 0) for peer, reasons in self._reader.do("refused").items()}


def _ip(address: str) -> str:
    return address.split("/")[2]


def _with_length(ip: str) -> str:
    return next(f"{ip}/{length}" for net, length in _LENGTHS.items() if ip.startswith((f"{net}.", f"{net}:")))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    with ExitStack() as stack:
        internet = stack.enter_context(Internet(routers=0, net=PUBLIC, delay=0.01, loss=0.0))
        yield Played(internet, tmp_path_factory.mktemp("played"), stack)


def test_a_reader_knows_its_peers_by_the_addresses_at_which_they_are_connected(played: Played) -> None:
    for block, addresses in ADDRESSES.items():
        assert sorted(played.known[peer] for peer in played.peers[block]) == sorted(map(_ip, addresses))


@pytest.mark.parametrize("number", ROUNDS)
@pytest.mark.parametrize("block", ["a block", "a site"])
def test_of_a_public_block_four_get_a_place_in_a_round_and_the_others_are_refused_for_their_address(
    played: Played, block: str, number: int
) -> None:
    peers, round = played.peers[block], played.rounds[number]
    assert len(peers & round.placed) == PLACES
    assert peers & round.refused == peers - round.placed
    assert round.admitted and round.admitted <= round.placed, "nothing of the others' is trained on"


@pytest.mark.parametrize("number", ROUNDS)
def test_a_block_that_has_its_share_takes_nothing_from_another_one(played: Played, number: int) -> None:
    assert played.peers["another block"] <= played.rounds[number].placed - played.rounds[number].refused


@pytest.mark.parametrize("number", ROUNDS)
def test_private_addresses_have_no_limit(played: Played, number: int) -> None:
    assert len(played.peers["private"]) > PLACES
    assert played.peers["private"] <= played.rounds[number].placed - played.rounds[number].refused
