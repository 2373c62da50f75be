"""A round's exchange: publishes the own record and gathers the peers', until all are there or the time is over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any, Protocol

from swarmd.network.admission import Admission
from swarmd.network.admission_rules import MOST_SLOTS, RawRecord
from swarmd.network.dialects import Dialect, OutgoingGroup
from swarmd.network.publication import Publications, Publishing
from swarmd.network.records import AdmittedGroup
from swarmd.network.shard_sample import Found, read_sample
from swarmd.network.signing import Signer
from swarmd.tasks.dataset_settings import MixError
from swarmd.tasks.mix import TaskMix
from swarmd.tasks.provenance import Provenance, task_seed

LOOKED_BACK = 16
"""Of the last round's records so many are read once more at least, where there are so many: somebody new may have come
late. A swarm of no more nodes than that is read whole."""

_FIRST_PAUSE, _LONGEST_PAUSE, _PAUSE_GROWTH = 0.5, 8.0, 1.6
# For so many rounds a peer counts as known.
_KNOWN_ROUNDS = 3
_ENOUGH = 0.75
# Of the time until the answer must be there, what is left for admitting what was read last.
_RESERVE_SECONDS, _RESERVE_SHARE = 2.0, 0.2
# Of the time that is left, what telling which records of some keys are worth reading may take.
_SIFTING_SHARE = 0.5
# The round is not held up by a record that nobody takes.
_PUBLISHED_SECONDS = 1.0

_log = logging.getLogger("swarmd")


class RecordSpace(Publishing, Protocol):
    """Where records are put and found: the DHT."""

    def allow(self, keys: Sequence[str]) -> None: ...

    async def gather(self, keys: Sequence[str], deadline: float) -> Found: ...


@dataclass(frozen=True)
class Exchanged:
    """groups: admitted in this exchange. seen: peers with a record in order, in this round or the last one. published:
    groups that somebody has taken when the exchange ends."""

    groups: list[AdmittedGroup]
    seen: int
    published: int
    left_out: int
    refused: Mapping[str, int]

    def to_message(self) -> dict[str, Any]:
        return asdict(self)


class RoundExchange:
    """Exchanges the records of one round after another. Records of the last round that came late are taken too.

    model: the family of this node's model. address_of: the IP address of a peer, None where it is not known.
    """

    def __init__(
        self,
        space: RecordSpace,
        dialect: Dialect,
        admission: Admission,
        mix: TaskMix,
        signer: Signer,
        swarm_id: str,
        most_peers: int,
        model: str,
        address_of: Callable[[str], str | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._space = space
        self._dialect = dialect
        self._admission = admission
        self._mix = mix
        self._signer = signer
        self._swarm_id = swarm_id
        self._most_peers = most_peers
        self._address_of = address_of
        self._clock = clock
        self._publications = Publications(space, dialect, signer, model, clock)
        # peer id -> the last round of which a record of its was found, and of which one was found in its own exchange.
        self._last_seen: dict[str, int] = {}
        self._last_in_time: dict[str, int] = {}
        self._round = self._before = -1  # of this exchange and of the one before it
        # Threads outlive an exchange that is given up, and the mix is not for two of them. What such a one has
        # admitted waits for the next exchange, since a record is admitted once.
        self._drawing = Lock()
        self._admitted: deque[AdmittedGroup] = deque()

    @property
    def known(self) -> int:
        """Peers whose records were found in order in one of the last rounds."""
        return len(self._last_seen)

    def open(self, round: int) -> None:
        """Allows the records of the rounds around this one to be kept for others."""
        self._space.allow([key for n in range(max(0, round - 1), round + 3) for key in self._dialect.keys(n)])

    async def run(self, round: int, groups: Sequence[Mapping[str, Any]], expires: float, until: float) -> Exchanged:
        """Publishes these groups and returns what was admitted of the peers' when all of them are there, or `until`.

        groups: maps with slot, provenance, completions and mean_logprobs. expires: until when others are to find
        them, seconds since 1970. until: when the answer is waited for no more, of time.monotonic(), which all
        processes of a machine share; a part of the time until then is kept for admitting what was read last.

        A call that is cancelled leaves what it has admitted to the next one; its record goes on being published.
        """
        reserve = max(0.0, min(_RESERVE_SECONDS, _RESERVE_SHARE * (until - time.monotonic())))
        before = dict(self._admission.totals)
        self._begin(round)
        outgoing = await asyncio.to_thread(self._outgoing, round, groups)
        self._admission.remember_own(round, [group.completions for group in outgoing])
        publication = await self._publications.begin(round, outgoing, expires)
        await self._gather(round, until - reserve, until - reserve / 2)
        published = await publication.groups_out(min(_PUBLISHED_SECONDS, max(0.0, until - time.monotonic()) / 2))
        refused = {
            reason: count - before.get(reason, 0)
            for reason, count in self._admission.totals.items() if count > before.get(reason, 0)
        }  # fmt: skip
        seen = self._admission.met(round) | self._admission.met(round - 1)
        return Exchanged(self._taken(round), len(seen), published, publication.left_out, refused)

    def close(self) -> None:
        """Ends what goes on behind the exchanges."""
        self._publications.close()

    def _begin(self, round: int) -> None:
        self.open(round)
        self._forget_admitted_before(round)  # else they add up while no exchange comes to its end
        if round < self._round:
            self._admission.start_over()
        if round != self._round:
            self._before, self._round = self._round, round
        for seen in (self._last_seen, self._last_in_time):
            for peer in [peer for peer, last in seen.items() if not round - _KNOWN_ROUNDS <= last <= round]:
                del seen[peer]

    def _taken(self, round: int) -> list[AdmittedGroup]:
        self._forget_admitted_before(round)
        return [self._admitted.popleft() for _ in range(len(self._admitted))]

    def _forget_admitted_before(self, round: int) -> None:
        """Keeps what was admitted of this round and the last."""
        for _ in range(len(self._admitted)):  # threads may append meanwhile
            group = self._admitted.popleft()
            if round - 1 <= group.round <= round:
                self._admitted.append(group)

    def _outgoing(self, round: int, groups: Sequence[Mapping[str, Any]]) -> list[OutgoingGroup]:
        outgoing = []
        with self._drawing:
            for group in groups:
                if group["slot"] >= MOST_SLOTS:
                    continue  # of a node with very many tasks a round; nobody would take it
                try:
                    task = self._mix.draw(task_seed(self._swarm_id, round, self._signer.peer_id, group["slot"]))
                except MixError as error:
                    _log.warning("a task of this node cannot be shared: %s", error)
                    continue
                if task.provenance == Provenance(**group["provenance"]):
                    outgoing.append(
                        OutgoingGroup(task, group["slot"], tuple(group["completions"]), tuple(group["mean_logprobs"]))
                    )
        # Where a record has not room for all of them the first draws go: who shows others counts for less with those
        # who read it, since it may have chosen them.
        return sorted(outgoing, key=lambda group: group.slot)

    async def _gather(self, round: int, deadline: float, end: float) -> None:
        """Looks for records until `deadline`, and admits until `end`, both of time.monotonic().

        After the first look only those who are missing are asked for, ever more rarely. The last look is for the last
        round's records too: a peer that is late may publish while this node waits.
        """
        begun = time.monotonic()
        # Both at once: where a round trip takes 200 ms there is not time for one after the other.
        await asyncio.gather(
            self._look(round, round, self._dialect.keys(round), deadline, end), self._look_back(round, deadline, end)
        )
        last_look = max(begun, deadline - max(2.0 * (time.monotonic() - begun), _FIRST_PAUSE))
        pause, waited = _FIRST_PAUSE, False
        while (missing := self._missing(round)) and (left := last_look - time.monotonic()) > 0:
            waited = True
            await asyncio.sleep(min(pause, left))
            if pause < left:
                await self._look(round, round, self._keys_of(missing, round), last_look, end)
                pause = min(_PAUSE_GROWTH * pause, _LONGEST_PAUSE)
        if waited:
            looks = [self._look_back(round, deadline, end)]
            if missing:
                looks.append(self._look(round, round, self._keys_of(missing, round), deadline, end))
            await asyncio.gather(*looks)

    def _missing(self, round: int) -> set[str]:
        """Those that were there in the exchange before and are not in this one; nobody where most of a sample is
        there, since of more than a round's sample holds not all are ever read.

        Nobody is waited for a second time, and who is new is not waited for at all: a record that comes late is taken
        in the next round.
        """
        if sum(last == round for last in self._last_in_time.values()) >= _ENOUGH * self._most_peers:
            return set()
        return {peer for peer, last in self._last_in_time.items() if last == self._before}

    def _late(self, round: int) -> set[str]:
        """The peers known of whom there is no record of the round, which is over; nobody where most of a sample is."""
        there = self._admission.met(round)
        return set() if len(there) >= _ENOUGH * self._most_peers else self._last_seen.keys() - there

    def _keys_of(self, peers: set[str], round: int) -> list[str]:
        return sorted({self._dialect.key_for(round, peer) for peer in peers})

    async def _look_back(self, round: int, deadline: float, end: float) -> None:
        """Admits what came late in the last round: of the peers known who are missing, and of a sample of all."""
        if round == 0:
            return
        of_late = self._keys_of(self._late(round - 1), round - 1)
        others = [key for key in self._dialect.keys(round - 1) if key not in of_late]
        few = min(LOOKED_BACK, self._most_peers)
        await asyncio.gather(
            self._look(round, round - 1, of_late, deadline, end),
            self._look(round, round - 1, others, deadline, end, most=few),
        )

    async def _look(
        self, round: int, number: int, keys: Sequence[str], deadline: float, end: float, most: int | None = None
    ) -> None:
        """Admits what lies under a sample of these keys of round `number`; `round` is the current one. most: records to
        read, of a whole sample unless it is given."""

        async def worth_reading(some: Sequence[str], seconds: float) -> Found:
            found = self._raws(number, await self._space.gather(some, seconds))
            # The other half is for the keys that follow and for admission: a flood of names under one key, for which
            # there is never time enough, would take it all.
            now = time.monotonic()
            enough = now + _SIFTING_SHARE * (end - now)
            sifted: dict[str, dict[str, tuple[bytes, float]]] = {key: {} for key in some}
            for raw in await asyncio.to_thread(self._admission.sift, found, round, enough):
                sifted[raw.key][raw.subkey] = raw.value, raw.expires
            return sifted

        found = await read_sample(worth_reading, keys, self._most_peers if most is None else most, deadline)
        raws = self._raws(number, found)
        # In a thread: making tasks anew may take a second, and the link must be answered meanwhile.
        await asyncio.to_thread(self._admit, raws, round, end)
        for peer in self._admission.met(number):
            self._last_seen[peer] = max(number, self._last_seen.get(peer, number))
        if number == round:
            self._last_in_time.update(dict.fromkeys(self._admission.met(round), round))

    def _raws(self, round: int, found: Found) -> list[RawRecord]:
        return [
            RawRecord(round, key, subkey, value, expires, self._address_of(subkey))
            for key, records in found.items()
            for subkey, (value, expires) in records.items()
            if subkey != self._signer.peer_id
        ]

    def _admit(self, raws: Sequence[RawRecord], round: int, end: float) -> None:
        with self._drawing:
            self._admitted.extend(self._admission.admit(raws, round, self._clock(), end))
