"""What came of each peer's records: for the status and `swarmd peers`."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

from swarmd.network.names import name_of
from swarmd.network.reputation import Reputation

_MOST_PEERS = 1024
_PEER_ID = re.compile(r"[1-9A-HJ-NP-Za-km-z]{40,64}")

OTHERS = ""
"""Where everything is counted that has no peer id, or comes under one of the many ids nobody has met."""


@dataclass
class _Account:
    dialect: str = ""
    last_round: int | None = None
    admitted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


class Accounts:
    """Groups and records by peer, at most 1024 peers; those without a record for longest are forgotten first.

    Anybody can invent peer ids by the thousand. An id from which nothing decodable has come gets an account only
    while there is room, so that no flood of them pushes out the real ones. For any number of threads.
    """

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.admitted = 0
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._lock = Lock()

    @property
    def refused(self) -> Mapping[str, Mapping[str, int]]:
        """Refusals by peer and reason; OTHERS is one of the peers."""
        with self._lock:
            return {peer: dict(account.rejected) for peer, account in self._accounts.items() if account.rejected}

    def refuse(self, peer_id: object, reason: str, count: int = 1) -> None:
        """Counts a refusal. peer_id: as it came; anything that is no peer id counts as OTHERS."""
        with self._lock:
            self.totals[reason] += count
            self._account(peer_id, certain=False).rejected[reason] += count

    def meet(self, peer_id: str, dialect: str, round: int) -> None:
        """Notes that a record of this peer could be read."""
        with self._lock:
            account = self._account(peer_id, certain=True)
            account.dialect, account.last_round = dialect, max(round, account.last_round or 0)

    def admit(self, peer_id: str, count: int = 1) -> None:
        with self._lock:
            self.admitted += count
            self._account(peer_id, certain=True).admitted += count

    def rows(self, reputation: Reputation, now: float) -> list[dict[str, Any]]:
        """A line for each peer whose record could be read, the last seen first: the keys of `swarmd peers --json`.

        now: seconds since 1970.
        """
        with self._lock:
            met = [
                (peer, replace(account, rejected=account.rejected.copy()))
                for peer, account in reversed(self._accounts.items())
                if account.last_round is not None
            ]
        return [
            {
                "peer_id": peer,
                "name": name_of(peer),
                "dialect": account.dialect,
                "last_round": account.last_round,
                "admitted": account.admitted,
                "rejected": dict(account.rejected),
                "reputation": round(reputation.score(peer, now), 3),
                "quarantined": reputation.quarantined(peer, now),
            }
            for peer, account in met
        ]

    def __len__(self) -> int:
        return len(self._accounts)

    def _account(self, peer_id: object, *, certain: bool) -> _Account:
        """The account to book on. certain: the peer has sent something that could be read."""
        peer = peer_id if is_peer_id(peer_id) else OTHERS
        assert isinstance(peer, str)
        if peer not in self._accounts:
            if not certain and len(self._accounts) >= _MOST_PEERS // 2:
                peer = OTHERS
            while len(self._accounts) >= _MOST_PEERS:
                self._accounts.popitem(last=False)
        account = self._accounts.setdefault(peer, _Account())
        if certain:
            self._accounts.move_to_end(peer)
        return account


def is_peer_id(value: object) -> bool:
    """Whether this has the form of a libp2p peer id in base58."""
    return isinstance(value, str) and _PEER_ID.fullmatch(value) is not None
