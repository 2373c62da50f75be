"""A round's exchange: publishes the own record and gathers the peers', until all are there or the time is over."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from swarmd.network.admission import Admission
from swarmd.network.admission_rules import RawRecord
from swarmd.network.dialects import Dialect, OutgoingGroup
from swarmd.network.records import AdmittedGroup
from swarmd.network.shard_sample import Found, read_sample
from swarmd.network.signing import Signer
from swarmd.tasks.dataset_settings import MixError
from swarmd.tasks.mix import TaskMix
from swarmd.tasks.provenance import Provenance, task_seed

_POLL_SECONDS = 0.5
_PUBLISH_SECONDS = 10.0
# A peer that has published in one of these last rounds is waited for.
_EXPECTED_ROUNDS = 3
# Within the 900 s that readers allow, whatever the round's length is.
_LONGEST_LIFE = 850.0
_ENOUGH = 0.75

_log = logging.getLogger("swarmd")


class RecordSpace(Protocol):
    """Where records are put and found: the DHT."""

    def allow(self, keys: Sequence[str]) -> None: ...

    async def publish(self, key: str, subkey: str, value: bytes, expires: float, deadline: float) -> bool: ...

    async def gather(self, keys: Sequence[str], deadline: float) -> Found: ...


@dataclass(frozen=True)
class Exchanged:
    """groups: admitted in this exchange. seen: peers of whom a record was found, late ones included. published: groups that went out."""

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
        self._model = model
        self._address_of = address_of
        self._clock = clock
        self._last_seen: OrderedDict[str, int] = OrderedDict()  # peer id -> the last round it published in

    @property
    def known(self) -> int:
        """Peers whose records were found in one of the last rounds."""
        return len(self._last_seen)

    def open(self, round: int) -> None:
        """Allows the records of the rounds around this one to be kept for others."""
        self._space.allow([key for number in range(round - 1, round + 3) for key in self._dialect.keys(number)])

    async def run(self, round: int, groups: Sequence[Mapping[str, Any]], expires: float, seconds: float) -> Exchanged:
        """Publishes these groups and returns what was admitted of the peers' when all of them, or `seconds`, are there.

        groups: maps with slot, provenance, completions and mean_logprobs. expires: seconds since 1970.
        """
        deadline = time.monotonic() + seconds
        before = dict(self._admission.totals)
        self.open(round)
        outgoing = await asyncio.to_thread(self._outgoing, round, groups)
        expires = min(expires, self._clock() + _LONGEST_LIFE)
        encoded = self._dialect.encode(outgoing, round, self._signer, expires, self._model)
        self._admission.remember_own(round, [group.completions for group in outgoing])
        publishing = asyncio.create_task(self._publish(round, encoded.value, expires, deadline))
        try:
            admitted, seen = await self._gather(round, deadline)
            published = encoded.kept if await publishing else 0
        finally:
            publishing.cancel()
        self._admission.reputation.save()
        refused = {
            reason: count - before.get(reason, 0)
            for reason, count in self._admission.totals.items() if count > before.get(reason, 0)
        }  # fmt: skip
        return Exchanged(admitted, seen, published, encoded.left_out, refused)

    def _outgoing(self, round: int, groups: Sequence[Mapping[str, Any]]) -> list[OutgoingGroup]:
        outgoing = []
        for group in groups:
            try:
                task = self._mix.draw(task_seed(self._swarm_id, round, self._signer.peer_id, group["slot"]))
            except MixError as error:
                _log.warning("a task of this node cannot be shared: %s", error)
                continue
            if task.provenance == Provenance(**group["provenance"]):
                outgoing.append(
                    OutgoingGroup(task, group["slot"], tuple(group["completions"]), tuple(group["mean_logprobs"]))
                )
        # Where a record has not room for all of them, chance decides which go.
        random.shuffle(outgoing)
        return outgoing

    async def _publish(self, round: int, value: bytes, expires: float, deadline: float) -> bool:
        key, subkey = self._dialect.key_for(round, self._signer.peer_id), self._signer.peer_id
        # Again and again: there may have been nobody to give it to, or those who have it may be gone.
        while (left := deadline - time.monotonic()) > 0:
            if await self._space.publish(key, subkey, value, expires, min(_PUBLISH_SECONDS, max(left, 1.0))):
                return True
            await asyncio.sleep(_POLL_SECONDS)
        return False

    async def _gather(self, round: int, deadline: float) -> tuple[list[AdmittedGroup], int]:
        admitted: list[AdmittedGroup] = []
        seen: set[str] = set()
        met: set[str] = set()
        late = True
        while True:
            rounds = [round, round - 1] if late and round > 0 else [round]
            # Both at once: where a round trip takes 200 ms there is not time for one after the other.
            read = (read_sample(self._space.gather, self._dialect.keys(n), self._most_peers, deadline) for n in rounds)
            for number, found in zip(rounds, await asyncio.gather(*read), strict=True):
                raws = [
                    RawRecord(number, key, subkey, value, expires, self._address_of(subkey))
                    for key, records in found.items()
                    for subkey, (value, expires) in records.items()
                    if subkey != self._signer.peer_id
                ]
                # In a thread: making tasks anew may take a second, and the link must be answered meanwhile.
                admitted += await asyncio.to_thread(self._admission.admit, raws, round, self._clock())
                met.update(raw.subkey for raw in raws)
                if number == round:
                    seen.update(raw.subkey for raw in raws)
            late = False
            self._note(round, seen)
            if self._all_there(seen, round):
                return admitted, len(met)
            if time.monotonic() + _POLL_SECONDS >= deadline:
                return admitted, len(met)
            await asyncio.sleep(_POLL_SECONDS)

    def _note(self, round: int, seen: set[str]) -> None:
        for peer in seen:
            self._last_seen[peer] = round
        for peer in [peer for peer, last in self._last_seen.items() if last < round - _EXPECTED_ROUNDS]:
            del self._last_seen[peer]

    def _all_there(self, seen: set[str], round: int) -> bool:
        """Whether those that published lately have done so in this round too; of more than a round's sample holds,
        most of a sample. Who is new is not waited for: a record that comes late is taken in the next round."""
        expected = {peer for peer, last in self._last_seen.items() if last < round}
        return not expected - seen or len(seen) >= _ENOUGH * self._most_peers
