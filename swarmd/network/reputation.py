"""What this node itself has seen of its peers: how much was good, how much cannot be an accident, who is shut out.

Only this node's own observations count. What one peer says about another is never asked for and never used, or a few
liars could shut out everybody else.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from swarmd.network.refusals import Reason
from swarmd.network.reputation_file import load_standings, save_standings

REPUTATION_FILE = "reputation.json"

HALF_LIFE_HOURS = 12.0
"""After this time everything seen counts half."""

QUARANTINE_AFTER = 3.0
"""So many hard failures (weighted, decayed) shut a peer out."""

FIRST_QUARANTINE, LONGEST_QUARANTINE = 600.0, 86_400.0
"""Seconds; each quarantine is twice as long as the one before, which is forgotten like everything else."""

_LEAST_SHARE = 0.05
"""Nor is a peer shut out for less than this share of what came from it: plausibility is a statistical test, and in
thousands of honest groups some fail."""

_MOST_PEERS = 4096

_SYNC_SECONDS = 60.0
"""So often at most the file is waited for until it is on the disk: what a power cut takes is not worth more."""

HARD: Mapping[str, float] = {
    Reason.OTHER_TASK: 1.0,
    Reason.REPUBLISHED: 0.5,
    Reason.IMPLAUSIBLE: 0.5,
}
"""What an honest node that agrees with its swarm does not do (`found` and `join` see that it does), whatever its clock
and its lines, and how much each counts. All else costs a peer its record and no more: what can be an accident
(expired, quota-address, unknown-task, copied, ...), and what is found before a signature says whose it is (too-large,
not-decodable, bad-signature, ...). Under somebody else's peer id anybody can publish rubbish, and would have honest
peers shut out with it."""

GOOD = "admitted"
"""What `report` is told for groups that were taken."""

_log = logging.getLogger("swarmd")


@dataclass(frozen=True)
class Standing:
    """What is known of a peer. good, bad: groups, decayed to the time `seen`; quarantines: how many there were,
    decayed likewise; quarantined_until and seen: seconds since 1970; signed: a valid signature of its has been seen."""

    good: float = 0.0
    bad: float = 0.0
    quarantines: float = 0.0
    quarantined_until: float = 0.0
    seen: float = 0.0
    signed: bool = False

    def at(self, now: float) -> Standing:
        """The same, decayed until now. A clock that went backwards decays nothing."""
        kept = 0.5 ** (max(0.0, now - self.seen) / (HALF_LIFE_HOURS * 3600))
        return Standing(
            self.good * kept, self.bad * kept, self.quarantines * kept, self.quarantined_until, now, self.signed
        )

    @property
    def score(self) -> float:
        """0 to 1; 1 for a peer of which nothing bad is known."""
        return (self.good + 1.0) / (self.good + self.bad + 1.0)


class Reputation:
    """The standings of all peers, at most 4096 of them; those not seen for longest are forgotten first. For any number
    of threads.

    A damaged or unreadable file is no reason to stop: everybody starts anew.
    """

    def __init__(self, path: Path | None) -> None:
        """path: of the file, None to keep nothing."""
        self._path = path
        self._changed = False
        self._lock = Lock()
        self._writing = Lock()
        self._synced: float | None = None  # of time.monotonic()
        kept = load_standings(path) if path is not None else {}
        ordered = sorted(kept.items(), key=lambda entry: entry[1]["seen"])[-_MOST_PEERS:]
        self._standings = OrderedDict((peer, Standing(**values)) for peer, values in ordered)

    def report(self, peer_id: str, verdict: str, now: float, count: int = 1) -> None:
        """Takes down `count` groups of a peer: GOOD, or the reason they were refused for.

        now: seconds since 1970. Reasons that are not in HARD leave no trace.
        """
        weight = HARD.get(verdict)
        if count <= 0 or (weight is None and verdict != GOOD):
            return
        with self._lock:
            standing = self._standing(peer_id).at(now)
            good = standing.good + (count if weight is None else 0)
            bad = standing.bad + (count * weight if weight is not None else 0)
            quarantines, until = standing.quarantines, standing.quarantined_until
            if weight is not None and bad >= QUARANTINE_AFTER and bad >= _LEAST_SHARE * (good + bad) and until <= now:
                until = now + min(LONGEST_QUARANTINE, FIRST_QUARANTINE * 2.0 ** min(quarantines, 16.0))
                quarantines, bad = quarantines + 1.0, 0.0  # it starts anew afterwards, and goes for longer next time
                _log.info("peer %s is not listened to for %.0f minutes: %s", peer_id, (until - now) / 60, verdict)
            self._keep(peer_id, Standing(good, bad, quarantines, until, now, standing.signed))

    def note_signed(self, peer_id: str, now: float) -> None:
        """Takes down that a valid signature of this peer has been seen: from now on it is asked for."""
        with self._lock:
            standing = self._standing(peer_id)
            if not standing.signed or now - standing.seen > 3600:
                self._keep(peer_id, replace(standing.at(now), signed=True))

    def has_signed(self, peer_id: str) -> bool:
        return self._standing(peer_id).signed

    def quarantined(self, peer_id: str, now: float) -> bool:
        # A clock that jumped back must not lengthen a quarantine beyond what it was.
        left = self._standing(peer_id).quarantined_until - now
        return 0.0 < left <= LONGEST_QUARANTINE

    def score(self, peer_id: str, now: float) -> float:
        """0 to 1: the good share of what came from the peer, hours ago counting less than now; 1 for a newcomer."""
        return self._standing(peer_id).at(now).score

    def is_proven(self, peer_id: object) -> bool:
        """Whether groups of this peer were taken, not too long ago."""
        return isinstance(peer_id, str) and self._standing(peer_id).good >= 0.5

    def save(self) -> None:
        """Writes the file if anything changed; a full disk is logged, the old file stays. May take as long as the
        disk is busy: for a thread."""
        with self._writing:
            with self._lock:
                if self._path is None or not self._changed:
                    return
                kept = {peer: vars(standing) for peer, standing in self._standings.items()}
                self._changed = False
            now = time.monotonic()
            sync = self._synced is None or now - self._synced >= _SYNC_SECONDS
            if not save_standings(self._path, kept, sync=sync):
                self._changed = True
            elif sync:
                self._synced = now

    def __len__(self) -> int:
        return len(self._standings)

    def _standing(self, peer_id: str) -> Standing:
        return self._standings.get(peer_id, Standing())

    def _keep(self, peer_id: str, standing: Standing) -> None:
        self._standings[peer_id] = standing
        self._standings.move_to_end(peer_id)
        while len(self._standings) > _MOST_PEERS:
            self._standings.popitem(last=False)
        self._changed = True
