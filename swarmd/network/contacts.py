"""The other DHT nodes that this one knows: node id, peer id, and when it last heard of them.

Kademlia (Maymounkov and Mazieres, 2002) keeps k nodes for each distance in powers of two and prefers old ones, which
have proved to stay. This is that, in one bounded table: while there is room all are kept; when it is full a newcomer
takes the place of the longest silent node of the fullest distance, if its own distance is less full. A peer has at
most two node ids, since making them up costs nothing.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from dataclasses import dataclass, field

_MOST_CONTACTS = 1024
_MOST_HEARD = 4096
_NODE_IDS_PER_PEER = 2
# How long a third node id of a peer has to wait for the place of the oldest one.
_NODE_ID_SECONDS = 600.0
_FIRST_PAUSE, _LONGEST_PAUSE, _MOST_DOUBLINGS = 4.0, 30.0, 3


@dataclass
class Contact:
    """peer_id: base58. Times: seconds of time.monotonic()."""

    peer_id: str
    since: float
    heard: float
    failures: int = 0


@dataclass
class _Pause:
    failures: int = 0
    until: float = field(default=0.0)


class Contacts:
    """Bounded; every method is a dictionary access or, at most, one pass over the table."""

    def __init__(self, own_node_id: int) -> None:
        self._own = own_node_id
        self._nodes: dict[int, Contact] = {}
        self._of_peer: dict[str, list[int]] = {}
        # node id -> peer id and when it said that it only asks; a while later it is forgotten.
        self._withdrawn: dict[int, tuple[str, float]] = {}
        self._heard: dict[str, float] = {}
        self._pauses: dict[str, _Pause] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, node_id: int) -> bool:
        return node_id in self._nodes

    def heard_from(self, peer_id: str) -> None:
        """The peer answered or called; it need not be a DHT node that others can ask."""
        self._pauses.pop(peer_id, None)
        self._heard.pop(peer_id, None)
        self._heard[peer_id] = time.monotonic()
        if len(self._heard) > _MOST_HEARD:
            del self._heard[next(iter(self._heard))]

    def met(self, node_id: int, peer_id: str) -> bool:
        """Notes a node that answered or called; True if it was not known before, nor lately."""
        if node_id == self._own:
            return False
        now = time.monotonic()
        known = self._nodes.get(node_id)
        if known is not None:
            if known.peer_id == peer_id:
                known.heard, known.failures = now, 0
            return False
        # Who takes a node id back has it still: it makes no room for another id, nor for another peer.
        before = self._withdrawn_lately(now)
        ids = self._of_peer.get(peer_id, [])
        if node_id in before:
            if before[node_id] != peer_id:
                return False
        elif len(ids) + sum(owner == peer_id for owner in before.values()) >= _NODE_IDS_PER_PEER:
            if not ids or now - self._nodes[ids[0]].since < _NODE_ID_SECONDS:
                return False
            self._remove(ids[0])
        if len(self._nodes) >= _MOST_CONTACTS and not self._make_room(node_id):
            return False
        self._nodes[node_id] = Contact(peer_id, now, now)
        self._of_peer.setdefault(peer_id, []).append(node_id)
        self._withdrawn.pop(node_id, None)
        return node_id not in before

    def _withdrawn_lately(self, now: float) -> dict[int, str]:
        return {node_id: owner for node_id, (owner, at) in self._withdrawn.items() if now - at < _NODE_ID_SECONDS}

    def only_asks(self, peer_id: str) -> None:
        """The peer is no node that others can ask, or no longer one."""
        for node_id in list(self._of_peer.get(peer_id, ())):
            self._remove(node_id)
            self._withdrawn.pop(node_id, None)
            self._withdrawn[node_id] = peer_id, time.monotonic()
            if len(self._withdrawn) > _MOST_CONTACTS:
                del self._withdrawn[next(iter(self._withdrawn))]

    def failed(self, peer_id: str, *, forget: bool) -> None:
        """The peer did not answer: it is left alone for a while, and with `forget` forgotten the third time in a row.

        Not every silence means that a peer is gone: a stock node cannot send a reply of more than 4 MiB.
        """
        pause = self._pauses.setdefault(peer_id, _Pause())
        pause.failures += 1
        # Who stays away for long fails more often than a float can be doubled.
        doublings = min(pause.failures - 1, _MOST_DOUBLINGS)
        pause.until = time.monotonic() + min(_FIRST_PAUSE * 2**doublings, _LONGEST_PAUSE)
        if forget and pause.failures >= 3:
            for node_id in list(self._of_peer.get(peer_id, ())):
                self._remove(node_id)
            self._heard.pop(peer_id, None)
        if len(self._pauses) > _MOST_HEARD:
            del self._pauses[next(iter(self._pauses))]

    def paused(self, peer_id: str) -> bool:
        pause = self._pauses.get(peer_id)
        return pause is not None and pause.until > time.monotonic()

    def forget_pauses(self) -> None:
        """After our own link was down, nobody else's silence says anything."""
        self._pauses.clear()

    def nearest(self, key_id: int, most: int, exclude: int | None = None) -> list[tuple[int, str]]:
        """The nodes (node id, peer id) nearest to a key by XOR distance, nearest first."""
        # Distances first, then back to ids: without a Python function for each node, ten times as fast.
        found = [distance ^ key_id for distance in heapq.nsmallest(most + 1, map(key_id.__xor__, self._nodes))]
        return [(node_id, self._nodes[node_id].peer_id) for node_id in found if node_id != exclude][:most]

    def silent_for(self, seconds: float) -> list[str]:
        """The peer ids of nodes not heard of for so long, the longest silent first; none twice, none paused."""
        limit = time.monotonic() - seconds
        silent = [
            (heard, peer_id)
            for peer_id, ids in self._of_peer.items()
            if (heard := self._last_heard(peer_id, ids)) < limit and not self.paused(peer_id)
        ]
        return [peer_id for _, peer_id in sorted(silent)]

    def doubtful(self) -> list[str]:
        """The peer ids of nodes that did not answer when they were last called, and whose pause is over."""
        now = time.monotonic()
        return [peer for peer, pause in self._pauses.items() if pause.until <= now and peer in self._of_peer]

    def recent(self, seconds: float) -> set[str]:
        """The peers, DHT nodes or not, that were heard of within so many seconds."""
        limit, recent = time.monotonic() - seconds, set()
        for peer_id in reversed(self._heard):  # who was heard of last stands last
            if self._heard[peer_id] < limit:
                break
            recent.add(peer_id)
        return recent

    def peer_ids(self) -> list[str]:
        return list(self._of_peer)

    def _last_heard(self, peer_id: str, ids: list[int]) -> float:
        # Who is met is heard from in the same moment; the table of those is the shorter memory.
        heard = self._heard.get(peer_id)
        return max(self._nodes[node_id].heard for node_id in ids) if heard is None else heard

    def _remove(self, node_id: int) -> None:
        contact = self._nodes.pop(node_id)
        ids = self._of_peer[contact.peer_id]
        ids.remove(node_id)
        if not ids:
            del self._of_peer[contact.peer_id]

    def _make_room(self, node_id: int) -> bool:
        distances = Counter((known ^ self._own).bit_length() for known in self._nodes)
        fullest, most = max(distances.items(), key=lambda item: item[1])
        if distances[(node_id ^ self._own).bit_length()] >= most:
            return False
        crowd = [known for known in self._nodes if (known ^ self._own).bit_length() == fullest]
        self._remove(min(crowd, key=lambda known: self._nodes[known].heard))
        return True
