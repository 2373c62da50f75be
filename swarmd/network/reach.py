"""Whether others can call this node: peers try it, each with a new connection to where the node is called from.

What hivemind's ping tells as `available` is whether the peer could call back over whatever connection there is: to a
node behind NAT there is the one that it has itself opened. So, as in libp2p's AutoNAT (github.com/libp2p/specs,
autonat/autonat-v1.md), the asked peer tries a TCP connection of its own. libp2p calls others from the port that it
listens on, so that the address at the other end of its connection is the one to try.

The method stands beside hivemind's under `DHTProtocol.rpc_reach`; stock nodes do not have it, and are of no use here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import time
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence

from swarmd.network.addresses import is_circuit
from swarmd.network.dht_calls import DhtCalls
from swarmd.network.hivemind_dht import P2PDaemonError
from swarmd.network.p2p_daemon import Daemon

_TRY_SECONDS = 4.0
_ANSWER_SECONDS = 8.0
_LIST_SECONDS = 2.0
_TRIES_AT_ONCE = 4
# Who asks again sooner is told what was found then: nobody is to make this node knock at a door all the time.
_TRIED_AGAIN_SECONDS = 10.0
_MOST_TRIED = 256
_ASK_SECONDS = 15.0
# Once the last answers were all the same, or nobody answered, a node is asked more rarely: until it is told otherwise.
_SETTLED_FACTOR = 4
_NOBODY_SECONDS = 1.0
_RECENT_SECONDS = 40.0
_VERDICTS = 4
# Who offers to keep records is asked for them by all, also by those that cannot connect to it, and records that lie on
# such nodes alone are lost to them. So a node that nobody has reached while peers that its user named tried so often
# does not offer it. What others say counts for it, never against it: a few liars, who keep the honest from answering,
# could talk all nodes out of it and be the only ones left.
_STEADY_NOES = 8
_TRUSTED_SHARE = 0.5

_log = logging.getLogger("swarmd")


class Reach:
    """Asks others, and tries for others.

    trusted: ids of peers that are believed when they say that they cannot connect to here. Empty for a node with
    announced addresses, since it is another one that they try.
    """

    def __init__(self, calls: DhtCalls, trusted: Collection[str] = ()) -> None:
        self._calls, self._trusted = calls, trusted
        self._verdicts: deque[bool] = deque(maxlen=_VERDICTS)
        self._noes = self._untold = 0
        self._tried: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        self._under_way = 0

    def verdict(self) -> bool | None:
        """Whether one of the last peers that tried has reached this node; None while none has tried."""
        return any(self._verdicts) if self._verdicts else None

    @property
    def relays(self) -> bool:
        """Whether there may be connections through relays."""
        return isinstance(self._calls.p2p, Daemon) and self._calls.p2p.relay

    async def run(self) -> None:
        """Asks a connected peer from time to time, for ever, and offers others to keep their records unless they cannot
        connect to here for that.
        """
        next_ask = 0.0
        while True:
            peers = sorted(self._calls.contacts.recent(_RECENT_SECONDS))
            if peers and time.monotonic() >= next_ask:
                await self._ask(self._whom(peers))
                # What is offered follows a relay that is found or lost, and does not wait for the next question.
                next_ask = time.monotonic() + (self._pace() - _ASK_SECONDS) * random.uniform(0.75, 1.25)
            p2p = self._calls.p2p
            self._calls.offer(self._noes < _STEADY_NOES or (isinstance(p2p, Daemon) and p2p.relayed))
            await asyncio.sleep((_ASK_SECONDS if peers else _NOBODY_SECONDS) * random.uniform(0.75, 1.25))

    def _pace(self) -> float:
        """Seconds until the next question."""
        agreed = len(self._verdicts) == _VERDICTS and len(set(self._verdicts)) == 1
        counting = 0 < self._noes < _STEADY_NOES
        settled = (agreed or self._untold >= _VERDICTS) and not counting
        return _ASK_SECONDS * (_SETTLED_FACTOR if settled else 1)

    def _whom(self, peers: Sequence[str]) -> str:
        trusted = [peer for peer in peers if peer in self._trusted]
        return random.choice(trusted if trusted and random.random() < _TRUSTED_SHARE else peers)

    async def _ask(self, peer_id: str) -> None:
        told = await self._calls.could_connect(peer_id, _ANSWER_SECONDS)
        if told is None:
            self._untold += 1
            return
        self._untold = 0
        self._verdicts.append(told)
        if told:
            self._noes = 0
        elif peer_id in self._trusted:
            self._noes += 1

    async def try_peer(self, peer_id: str) -> bool | None:
        """Whether a new connection to the peer, there where it is connected from, can be made; None: not tried."""
        found = self._tried.get(peer_id)
        if found is not None and time.monotonic() - found[0] < _TRIED_AGAIN_SECONDS:
            return found[1]
        if self._under_way >= _TRIES_AT_ONCE:
            return None
        self._under_way += 1
        try:
            end = next(_ends(await self._addresses(peer_id)), None)
            if end is None:
                return None
            reached = await _connects(*end)
        finally:
            self._under_way -= 1
        self._tried.pop(peer_id, None)
        self._tried[peer_id] = time.monotonic(), reached
        if len(self._tried) > _MOST_TRIED:
            self._tried.popitem(last=False)
        return reached

    async def through_relay(self, peer_id: str) -> bool:
        """Whether all connections to the peer lead through relays."""
        if not self.relays:
            return False
        addresses = await self._addresses(peer_id)
        return bool(addresses) and all(map(is_circuit, addresses))

    async def _addresses(self, peer_id: str) -> list[str]:
        p2p = self._calls.p2p
        if p2p is None:
            return []
        try:
            async with asyncio.timeout(_LIST_SECONDS):
                listed = await p2p.list_peers()
            return [str(address) for peer in listed if str(peer.peer_id) == peer_id for address in peer.addrs]
        except (OSError, EOFError, P2PDaemonError) as error:
            _log.debug("p2pd did not list its peers: %s", type(error).__name__)
            return []


def _ends(addresses: Iterable[str]) -> Iterator[tuple[str, int]]:
    """(host, port) of those that are plain TCP addresses; one through a relay says nothing of the node itself."""
    for address in addresses:
        _, protocol, host, transport, port, *_ = [*address.split("/"), "", "", "", ""]
        if protocol in ("ip4", "ip6") and transport == "tcp" and not is_circuit(address):
            yield str(ipaddress.ip_address(host)), int(port)


async def _connects(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_TRY_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:  # TimeoutError among them
        return False
    writer.close()
    return True
