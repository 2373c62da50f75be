"""From what lay in the DHT to groups that may be trained on.

Every record, and every group in it, stands and falls alone: a rule (admission_rules) raises Refused, the refusal is
counted, the next one is looked at. Whatever the bytes are, nothing but that happens.

Rules run from cheap to dear. A record is decoded only if its size, key and expiration are in order, and takes one of
the round's places only if a task in it can be its peer's. Decoding and making tasks anew are the dear parts: they have
time limits and take the peers in random order, those whose groups were taken before and the others in turns, then one
group of each in turn. So whoever comes with a thousand keys takes the newcomers' time, and not that of the peers known.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from threading import Lock
from typing import Any

from swarmd.network import admission_rules as rules
from swarmd.network.accounts import is_peer_id
from swarmd.network.admission_rules import RawRecord
from swarmd.network.copies import Copies, distinctive
from swarmd.network.dialects import Dialect, decode
from swarmd.network.looked_at import RoundSeen, digest_of, in_time, in_turns, remember
from swarmd.network.records import AdmittedGroup, ClaimedGroup, Record
from swarmd.network.refusals import Reason, Refused
from swarmd.network.reputation import Reputation
from swarmd.network.settings import ExchangeLimits
from swarmd.network.verdicts import Verdicts
from swarmd.tasks.legacy_table import LegacyTable
from swarmd.tasks.mix import TaskMix

REGENERATION_SECONDS = 6.0
"""For making the tasks of a call's groups anew; what is left over is refused (no-time). A full call (64 peers, 4
groups each) takes a tenth of a second; the few datasets that need a second for a task are what this is for. The task
in work when it ends is still made."""

LOOKING_SECONDS = 3.0
"""For telling which records are worth reading, and again for decoding those. The worst record takes a fiftieth of it,
an honest one a thousandth. What is left over is refused (no-time) and looked at when it is read again."""

ANSWER_BYTES = 16 * 2**20
"""Of completions admitted in a round, in UTF-8, since they go to the main process in one message. 64 peers with the
greatest records that a swarmd node writes come to a megabyte, packed. What is beyond it is refused (quota-round)."""

_SHARE_OF_A_BLOCK = 8
"""One address block gets an eighth of a round's places, and four at least."""

_log = logging.getLogger("swarmd")


class Admission:
    """Admits the groups of a swarm's peers. `sift` and `admit` may take seconds: call them in a thread; all else is
    quick, and may be called from another one meanwhile.

    dialect: the swarm's. mix: this node's. table: for a legacy swarm, None elsewhere. limits.record_bytes is
    what is written; read are LARGEST_READ bytes. rng: for the order of peers.
    """

    def __init__(
        self,
        swarm_id: str,
        peer_id: str,
        dialect: Dialect,
        mix: TaskMix,
        table: LegacyTable | None,
        limits: ExchangeLimits,
        reputation: Reputation,
        regeneration_seconds: float = REGENERATION_SECONDS,
        looking_seconds: float = LOOKING_SECONDS,
        rng: random.Random | None = None,
    ) -> None:
        self._swarm_id = swarm_id
        self._peer_id = peer_id
        self._dialect = dialect
        self._mix = mix
        self._table = table
        self._limits = limits
        self._seconds = regeneration_seconds
        self._looking_seconds = looking_seconds
        self._rng = rng or random.SystemRandom()
        self._verdicts = Verdicts(reputation)
        self._copies = Copies()
        self._most_of_a_block = max(4, limits.peers_per_round // _SHARE_OF_A_BLOCK)
        self._working = Lock()
        self._round = -1
        self._starts_over = False
        self._rounds: dict[int, RoundSeen] = {}
        self._bytes_left = ANSWER_BYTES

    def start_over(self) -> None:
        """The rounds are counted anew: the next call may be for one before the last, and what is remembered of them
        goes. Otherwise such a call is an exchange's that was given up, and brings nothing."""
        self._starts_over = True

    def sift(self, found: Iterable[RawRecord], round: int, until: float = math.inf) -> list[RawRecord]:
        """Those of these records that are worth reading: in a swarmd swarm the ones that their peers have signed.

        round: the current one. until: of time.monotonic(); what is not looked at by then is left out.
        """
        with self._working:
            if not self._begin(round):
                return []
            until = min(until, time.monotonic() + self._looking_seconds)
            worthless = self._rounds[round].worthless
            # Where there is not time for all, as in a flood of invented names, those known are not to suffer.
            turns = in_turns(list(found), self.reputation, self._rng)
            return [raw for raw in turns if self._is_worth_reading(raw, worthless, until)]

    def met(self, round: int) -> frozenset[str]:
        """The peers that have a place in the round (the current or the last one): none by their name alone."""
        kept = self._rounds.get(round)
        return frozenset(peer for peer, _ in tuple(kept.places)) if kept else frozenset()

    def admit(self, found: Iterable[RawRecord], round: int, now: float, until: float = math.inf) -> list[AdmittedGroup]:
        """The groups in these records that passed every rule, of each peer at most `groups_per_peer` a round.

        round: the current one; may be called several times in it, and what was looked at before is passed over.
        now: seconds since 1970 by the DHT's clock. until: of time.monotonic(), when the result must be there; the task
        in work is still made. Never raises because of what a record holds.
        """
        with self._working:
            return self._admit(list(found), round, now, until)

    def _admit(self, records: list[RawRecord], round: int, now: float, until: float) -> list[AdmittedGroup]:
        if not self._begin(round):
            return []
        claims: list[list[tuple[Record, ClaimedGroup]]] = []
        looking_ends = min(until, time.monotonic() + self._looking_seconds)
        for raw in in_turns(records, self.reputation, self._rng):
            try:
                record = self._looked_at(raw, round, now, looking_ends)
                if record is not None:
                    claims.append([(record, group) for group in record.groups])
            except Refused as refusal:
                self._verdicts.refuse(raw.subkey, refusal)
        turns = [claim for turn in zip_longest(*claims) for claim in turn if claim is not None]
        return self._regenerated(turns, round, now, until)

    def remember_own(self, round: int, groups: Iterable[Sequence[str]]) -> None:
        """Takes down this node's own completions, a group each, before they are published: who republishes them is
        found out like anybody else's copier."""
        for completions in groups:
            self._copies.remember(self._peer_id, round, distinctive(completions))

    def report(self, peer_id: str, verdict: str, now: float, count: int = 1) -> None:
        """What training found out about groups that were admitted: "implausible", "unscored", ... How many."""
        if is_peer_id(peer_id) and count > 0:
            self._verdicts.trained_on(peer_id, verdict, now, count)

    @property
    def reputation(self) -> Reputation:
        """What is thought of the peers."""
        return self._verdicts.reputation

    @property
    def refused(self) -> Mapping[str, Mapping[str, int]]:
        """Refusals by peer and reason since the start; under "" those of no peer that is known."""
        return self._verdicts.accounts.refused

    @property
    def totals(self) -> Mapping[str, int]:
        """Refusals by reason since the start."""
        return dict(self._verdicts.accounts.totals)

    def peers(self, now: float) -> list[dict[str, Any]]:
        """A line for each peer met since the start, the last seen first: what `swarmd peers --json` prints."""
        return self._verdicts.accounts.rows(self.reputation, now)

    def _begin(self, round: int) -> bool:
        """Whether this is the current round, or has become it."""
        if round == self._round:
            return True
        anew = round < self._round
        if anew and not self._starts_over:
            return False
        self._starts_over = False
        self._bytes_left = ANSWER_BYTES
        kept = set() if anew else {round - 1}
        self._rounds = {number: self._rounds[number] for number in kept & self._rounds.keys()}
        self._rounds[round] = RoundSeen()
        self._rounds.setdefault(round - 1, RoundSeen())
        self._round = round
        return True

    # --- Records -------------------------------------------------------------------------------------------------

    def _is_worth_reading(self, raw: RawRecord, worthless: set[bytes], until: float) -> bool:
        try:
            rules.has_the_form_of_a_record(raw)
            rules.is_small_enough(raw, rules.LARGEST_READ)
            digest = digest_of(raw)
            if digest in worthless:
                return False
            in_time(until)
            try:
                rules.is_worth_reading(raw, self._dialect)
            except Refused:
                remember(worthless, digest)
                raise
        except Refused as refusal:
            self._verdicts.refuse(raw.subkey, refusal)
            return False
        return True

    def _looked_at(self, raw: RawRecord, round: int, now: float, until: float) -> Record | None:
        """The record with those of its groups that may be its peer's; None for one that was looked at before, and for
        this node's own. Raises Refused."""
        rules.has_the_form_of_a_record(raw)
        rules.is_small_enough(raw, rules.LARGEST_READ)
        digest = digest_of(raw)
        if any(digest in kept.seen for kept in self._rounds.values()):
            return None
        in_time(until)
        this = self._rounds[round]
        try:
            rules.expires_soon(raw.expires, now)
            rules.is_of_this_round_or_the_last(raw, round)
        except Refused:
            if digest in this.untimely:
                return None
            remember(this.untimely, digest)
            raise
        remember(this.seen, digest)
        rules.is_not_quarantined(raw.subkey, self.reputation, now)
        record = decode(raw.value, raw.round, raw.key, raw.subkey, float(raw.expires), self._dialect)
        rules.is_signed_as_it_must(record, self._peer_id, self.reputation)
        if record.peer_id == self._peer_id:
            return None
        if record.signed:
            self.reputation.note_signed(record.peer_id, now)
        self._verdicts.accounts.meet(record.peer_id, record.dialect, record.round)
        place, seen = (record.peer_id, record.signed), self._rounds[record.round]
        places = seen.places
        content = hash(frozenset(record.groups))
        if place in places:
            if places[place] == content:
                return None  # published anew, by a node that was restarted or in a long round
            raise Refused(Reason.DUPLICATE, f"a second record for round {record.round}")
        possible = self._possible(record, now)
        if possible:
            rules.finds_a_place(record, places, self._limits.peers_per_round)
            rules.is_within_its_blocks_quota(raw.address, seen.blocks, self._most_of_a_block)
            places[place] = content
        # A place is taken even where chance takes no group: one record more would be another throw of the dice.
        return replace(record, groups=self._due(record.peer_id, possible))

    def _possible(self, record: Record, now: float) -> list[ClaimedGroup]:
        """Those groups that pass all that costs no more than a hash."""
        possible: dict[object, ClaimedGroup] = {}
        for group in record.groups:
            try:
                rules.has_a_groups_form(group, self._limits.completion_chars)
                if group.provenance is not None:
                    rules.is_its_peers_own_seed(record, group, self._swarm_id)
                    rules.is_of_this_mix(group.provenance, self._mix)
                # Two groups with one name would train the same task twice.
                name = group.question if group.provenance is None else group.provenance
                if name in possible:
                    raise Refused(Reason.DUPLICATE, "the same task twice in one record")
                possible[name] = group
            except Refused as refusal:
                self._verdicts.refuse_group(record, refusal, now)
        return list(possible.values())

    def _due(self, peer_id: str, possible: Sequence[ClaimedGroup]) -> tuple[ClaimedGroup, ...]:
        """Those of a record that are taken, at most `groups_per_peer`, chosen at random."""
        slots = {group.slot for group in possible if group.provenance is not None and group.slot is not None}
        due = rules.groups_due(slots, self._limits.groups_per_peer, self._rng.random())
        taken = self._rng.sample(possible, min(due, len(possible)))
        if surplus := len(possible) - len(taken):
            self._verdicts.accounts.refuse(peer_id, Reason.QUOTA_PEER, surplus)
        return tuple(taken)

    # --- Groups --------------------------------------------------------------------------------------------------

    def _regenerated(
        self, claims: Sequence[tuple[Record, ClaimedGroup]], round: int, now: float, until: float
    ) -> list[AdmittedGroup]:
        admitted = []
        until = min(until, time.monotonic() + self._seconds)
        for record, group in claims:
            try:
                in_time(until)
                admitted.append(self._admitted(record, group, round))
            except Refused as refusal:
                self._verdicts.refuse_group(record, refusal, now)
            else:
                self._verdicts.admit(record.peer_id, now)
        return admitted

    def _admitted(self, record: Record, group: ClaimedGroup, round: int) -> AdmittedGroup:
        """Raises Refused."""
        # Once more: its peer's signed record may have been among those read after it.
        rules.is_signed_as_it_must(record, self._peer_id, self.reputation)
        provenance = group.provenance
        if provenance is not None:
            task = rules.is_the_task_drawn(provenance, group.question, self._mix)
        else:
            task = rules.is_a_question_of_the_table(group.question, self._table)
        rules.is_not_held_out(task)
        size = sum(len(text.encode()) for text in group.completions)
        if size > self._bytes_left:
            raise Refused(Reason.QUOTA_ROUND, f"{size} bytes more than the {ANSWER_BYTES} that a round brings")
        evidence = distinctive(group.completions)
        self._copies.check(record.peer_id, record.round, evidence)
        self._copies.remember(record.peer_id, round, evidence)
        self._bytes_left -= size
        question = task.question if provenance is None else None
        return AdmittedGroup(record.peer_id, record.round, group.completions, provenance, question)
