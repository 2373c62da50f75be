"""What hostile members of a swarm publish round by round: records for the round at hand, each kind by name.

Most are signed, and in perfect order but for what they say. Where the lie is in the provenance, the answers are such as
the embedded model writes, some right and some wrong for the task that is claimed: who believes it trains on them.
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from swarmd.network.admission_rules import RawRecord
from swarmd.network.dialects.genrl_payload import GenrlDialect
from swarmd.network.dialects.own import MAGIC, VERSION, OwnDialect
from swarmd.network.records import Record
from swarmd.network.refusals import Refused
from swarmd.network.signing import Signer, milliseconds, sign
from swarmd.tasks.mix import TaskMix
from swarmd.tasks.provenance import Provenance, Task, task_seed
from tests.hostile.authors import prose
from tests.hostile.mutations import mutations
from tests.hostile.own import DOMAIN, poison

COMPLETIONS = 8
FLOOD = "flood of names"
DAMAGED_AT_ONCE = 40
OLD = 3
"""Rounds that a replay is old: beyond the last one, whose late records are taken."""
_HEADER = MAGIC + bytes([VERSION])
# Of `poison`, what no model of the embedded kind writes. The rest are false answers, which may be learned from as such.
_NO_MODEL_WRITES = ("code", "code in a list", "chat tokens", "poisoned text")


@dataclass(frozen=True)
class Sent:
    """A record as it is sent. never: completions in it that must not move any weight, though their task be the peer's
    own and their rewards true."""

    kind: str
    raw: RawRecord
    never: tuple[str, ...] = ()


@dataclass
class Seen:
    """Others' signed records by round and peer."""

    records: dict[int, dict[str, tuple[RawRecord, Record]]] = field(default_factory=dict)

    def add(self, raw: RawRecord, dialect: OwnDialect | GenrlDialect) -> bool:
        """Whether it is a new one, in order."""
        if raw.subkey in self.records.get(raw.round, {}):
            return False
        try:
            record = dialect.read(raw.value, raw.round, raw.key, raw.subkey, raw.expires, dialect.limits)
        except Refused:
            return False
        if not record.signed:
            return False  # anybody's, in a legacy swarm
        self.records.setdefault(raw.round, {})[raw.subkey] = raw, record
        return True

    def of(self, round: int) -> list[tuple[RawRecord, Record]]:
        return list(self.records.get(round, {}).values())


Kind = Callable[[Signer, int], Iterator[Sent]]


class Forger:
    """Makes records. ends: when a round is over, seconds since 1970. marker: the file that code in answers makes."""

    def __init__(
        self, swarm_id: str, dialect: OwnDialect | GenrlDialect, mix: TaskMix, ends: Callable[[int], float], seed: int,
        marker: str,
    ) -> None:  # fmt: skip
        self.seen = Seen()
        self.victims: Sequence[str] = ()
        self._swarm_id, self._dialect, self._mix, self._ends, self._marker = swarm_id, dialect, mix, ends, marker
        self._rng = random.Random(seed)
        self._long: dict[int, list[str]] = {}  # texts that are found again, by round
        self.before: Mapping[str, Kind] = {
            "true answers": self._true,
            "false answers": self._false,
            "chosen seed": self._chosen_seed,
            "another slot": self._another_slot,
            "another place in the dataset": self._another_index,
            "another dataset": self._another_dataset,
            "another swarm": self._another_swarm,
            "last round's task": self._last_rounds_task,
            "another's task": self._anothers_task,
            "unknown settings": self._unknown_settings,
            "text around a right answer": self._implausible,
            "text without end": self._too_long,
            "texts of another hostile peer": self._copied,
            "texts of old": self._republished,
            "poisoned answers": self._poisoned,
            "own old record": self._own_old_record,
            "another's old record": self._anothers_old_record,
            "forged owner": self._forged_owner,
            "wrong shapes": self._shapes,
            "bombs": self._bombs,
            "oversize": self._oversize,
            "odd expirations": self._expirations,
            "damaged": self._damaged,
        }
        """Kinds that need nothing of the round itself: sent before it begins."""
        self.in_own_name: Sequence[Kind] = (
            self._true, self._false, self._chosen_seed, self._another_slot, self._another_dataset, self._anothers_task,
            self._implausible,
        )  # fmt: skip
        """Those that a peer can be blamed for, and some that it cannot: seven, so that each of two has its turn."""
        self.within: Mapping[str, Kind] = {
            "another's groups": self._stolen_groups,
            "another's record": self._stolen_record,
            "another's groups, damaged": self._damaged_now,
        }
        """Those that need what the others have published in the round."""

    def nobodys(self, name: str, round: int) -> Sent:
        """A record under an invented name: it looks like one until its signature is asked for."""
        value = self._rng.choice([_HEADER + self._rng.randbytes(60), b"x" * 60])
        return self._bytes(FLOOD, name, round, value, self._ends(round + 1))

    # --- True but for the answers ------------------------------------------------------------------------------------

    def _true(self, author: Signer, round: int) -> Iterator[Sent]:
        tasks = [(slot, self._task(author.peer_id, round, slot)) for slot in range(3)]
        yield self._sent("true answers", author, round, [self._group(s, t, self._answers(t)) for s, t in tasks])

    def _false(self, author: Signer, round: int) -> Iterator[Sent]:
        """All false but for one, so that the group has something to teach if its rewards were believed."""
        groups = []
        for slot in range(3):
            task = self._task(author.peer_id, round, slot)
            groups.append(self._group(slot, task, self._answers(task, right=1)))
        yield self._sent("false answers", author, round, groups)

    def _implausible(self, author: Signer, round: int) -> Iterator[Sent]:
        task = self._task(author.peer_id, round, 0)
        texts = [prose(self._rng, 6) + answer for answer in self._answers(task)]
        yield self._sent("text around a right answer", author, round, [self._group(0, task, texts)], texts)

    def _too_long(self, author: Signer, round: int) -> Iterator[Sent]:
        task = self._task(author.peer_id, round, 0)
        texts = [prose(self._rng, 60) + answer for answer in self._answers(task)]
        self._long[round] = texts
        yield self._sent("text without end", author, round, [self._group(0, task, texts)], texts)

    def _copied(self, author: Signer, round: int) -> Iterator[Sent]:
        for old in sorted(number for number in self._long if round - 1 <= number <= round)[-1:]:
            yield self._texts("texts of another hostile peer", author, round, self._long[old])

    def _republished(self, author: Signer, round: int) -> Iterator[Sent]:
        for old in sorted(number for number in self._long if number <= round - OLD)[-1:]:
            yield self._texts("texts of old", author, round, self._long[old])

    def _texts(self, kind: str, author: Signer, round: int, texts: Sequence[str]) -> Sent:
        return self._sent(kind, author, round, [self._group(0, self._task(author.peer_id, round, 0), texts)], texts)

    def _poisoned(self, author: Signer, round: int) -> Iterator[Sent]:
        kinds = list(poison(self._rng, self._marker).items())
        groups, never = [], []
        for slot, (kind, text) in enumerate(self._rng.sample(kinds, 3)):
            texts = [text.format(n=number) for number in range(COMPLETIONS)]
            never += texts if kind in _NO_MODEL_WRITES else []
            groups.append(self._group(slot, self._task(author.peer_id, round, slot), texts))
        yield self._sent("poisoned answers", author, round, groups, never)

    # --- Tasks that are not the peer's -------------------------------------------------------------------------------

    def _chosen_seed(self, author: Signer, round: int) -> Iterator[Sent]:
        tasks = [self._mix.draw(self._rng.randrange(2**31)) for _ in range(2)]
        yield self._lie("chosen seed", author, round, tasks)

    def _another_slot(self, author: Signer, round: int) -> Iterator[Sent]:
        yield self._lie("another slot", author, round, [self._task(author.peer_id, round, 5 + n) for n in range(2)])

    def _another_swarm(self, author: Signer, round: int) -> Iterator[Sent]:
        yield self._lie("another swarm", author, round, [self._mix.draw(task_seed("other", round, author.peer_id, 0))])

    def _last_rounds_task(self, author: Signer, round: int) -> Iterator[Sent]:
        yield self._lie("last round's task", author, round, [self._task(author.peer_id, round - 1, 0)])

    def _anothers_task(self, author: Signer, round: int) -> Iterator[Sent]:
        for victim in self.victims[:1]:
            yield self._lie("another's task", author, round, [self._task(victim, round, slot) for slot in range(2)])

    def _another_index(self, author: Signer, round: int) -> Iterator[Sent]:
        """Of the own seed, but another of its tasks: the easiest, or one that is kept for evaluation."""
        place = self._task(author.peer_id, round, 0).provenance
        index = next(n for n in self._rng.sample(range(1, 20), 19) if n != place.index)
        yield self._lie("another place in the dataset", author, round, [self._moved(place, index=index)])

    def _another_dataset(self, author: Signer, round: int) -> Iterator[Sent]:
        place = self._task(author.peer_id, round, 0).provenance
        part = self._rng.choice([part for part in self._mix.parts if part.name != place.dataset])
        task = self._moved(place, dataset=part.name, config_hash=part.config_hash)
        yield self._lie("another dataset", author, round, [task])

    def _unknown_settings(self, author: Signer, round: int) -> Iterator[Sent]:
        task = self._task(author.peer_id, round, 0)
        changed = self._rng.choice([{"config_hash": "0" * 32}, {"dataset": "composite"}, {"environment": "os.system"}])
        group = self._group(0, task, self._answers(task), **changed)
        yield self._sent("unknown settings", author, round, [group])

    # --- Others' records and old ones --------------------------------------------------------------------------------

    def _stolen_groups(self, author: Signer, round: int) -> Iterator[Sent]:
        for _, record in self.seen.of(round)[:1]:
            groups = [
                [group.slot, *vars(group.provenance).values(), list(group.completions), None]
                for group in record.groups if group.provenance is not None
            ]  # fmt: skip
            yield self._sent("another's groups", author, round, groups)

    def _stolen_record(self, author: Signer, round: int) -> Iterator[Sent]:
        for raw, _ in self.seen.of(round)[-1:]:
            yield self._bytes("another's record", author.peer_id, round, raw.value, raw.expires)

    def _anothers_old_record(self, author: Signer, round: int) -> Iterator[Sent]:
        """Under both names; as it was, and as if it lived on."""
        for old in (round - 1, round - OLD):
            for raw, _ in self.seen.of(old)[:2]:
                for name in (raw.subkey, author.peer_id):
                    for expires in (raw.expires, self._ends(round + 1)):
                        yield self._bytes("another's old record", name, round, raw.value, expires)

    def _own_old_record(self, author: Signer, round: int) -> Iterator[Sent]:
        """Of a name that has planned for it: its old record has not expired yet."""
        tasks = [(slot, self._task(author.peer_id, round - OLD, slot)) for slot in range(2)]
        groups = [self._group(slot, task, self._answers(task)) for slot, task in tasks]
        lives = self._ends(round + 1)
        body = _packed({**self._head(round - OLD), "expires": milliseconds(lives), "groups": groups})
        raw = self._signed(author, round - OLD, body, expires=lives)
        yield self._bytes("own old record", author.peer_id, round, raw.value, lives)

    def _forged_owner(self, author: Signer, round: int) -> Iterator[Sent]:
        good = next(self._true(author, round)).raw
        for victim in self.victims:
            yield self._bytes("forged owner", victim, round, good.value, good.expires + 1.0)

    # --- What is no record -------------------------------------------------------------------------------------------

    def _shapes(self, author: Signer, round: int) -> Iterator[Sent]:
        task = self._task(author.peer_id, round, 0)
        groups = self._rng.choice([
            [self._group(0, task, ["<answer>1</answer>"])],
            [self._group(0, task, ["<answer>1</answer>"] * 65)],
            [self._group(0, task, "text")],
            [self._group(-1, task, self._answers(task))],
            [self._group(0, task, ["<answer>1</answer>", "x" * 9000])],
            [[]] * 65,
            5,
        ])  # fmt: skip
        yield self._sent("wrong shapes", author, round, groups)

    def _bombs(self, author: Signer, round: int) -> Iterator[Sent]:
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        zeros = b"".join(packer.compress(bytes(1 << 20)) for _ in range(48)) + packer.flush()
        bodies = [b"\0" + b"\x91" * 1000 + b"\xc0", b"\0\xdd\xff\xff\xff\xff", b"\1" + zeros]
        header = self._rng.choice([MAGIC + b"\x01", MAGIC + b"\x09"])
        yield Sent("bombs", self._signed(author, round, self._rng.choice(bodies), header))

    def _oversize(self, author: Signer, round: int) -> Iterator[Sent]:
        yield Sent("oversize", self._signed(author, round, b"\0" + self._rng.randbytes(66_000)))

    def _expirations(self, author: Signer, round: int) -> Iterator[Sent]:
        groups = next(self._true(author, round)).raw.value
        for expires in (time.time() + 3e8, float("inf"), float("nan"), time.time() - 5.0):
            yield self._bytes("odd expirations", author.peer_id, round, groups, expires)

    def _damaged(self, author: Signer, round: int) -> Iterator[Sent]:
        return self._mutated("damaged", author, round, self.seen.of(round - 1))

    def _damaged_now(self, author: Signer, round: int) -> Iterator[Sent]:
        return self._mutated("another's groups, damaged", author, round, self.seen.of(round))

    def _mutated(
        self, kind: str, author: Signer, round: int, seen: Sequence[tuple[RawRecord, Record]]
    ) -> Iterator[Sent]:
        base = [next(self._true(author, round)).raw, *(raw for raw, _ in seen)]
        for raw in mutations(base, self._rng.randrange(2**31), DAMAGED_AT_ONCE):
            yield Sent(kind, raw)

    # --- Parts -------------------------------------------------------------------------------------------------------

    def _task(self, peer_id: str, round: int, slot: int) -> Task:
        return self._mix.draw(task_seed(self._swarm_id, round, peer_id, slot))

    def _moved(self, place: Provenance, **changed: Any) -> Task:
        return self._mix.regenerate(Provenance(**{**vars(place), **changed}))

    def _answers(self, task: Task, right: int = COMPLETIONS // 2) -> list[str]:
        wrong = [str(number) for number in self._rng.sample(range(1, 40), COMPLETIONS) if str(number) != task.answer]
        answers = [task.answer or ""] * right + wrong[: COMPLETIONS - right]
        self._rng.shuffle(answers)
        return [f"<answer>{answer}</answer>" for answer in answers]

    def _group(self, slot: int, task: Task, completions: Any, **changed: str) -> list[Any]:
        return [slot, *{**vars(task.provenance), **changed}.values(), completions, None]

    def _lie(self, kind: str, author: Signer, round: int, tasks: Sequence[Task]) -> Sent:
        """Tasks that are not the peer's under its own slots, answered as if they were."""
        groups = [self._group(slot, task, self._answers(task)) for slot, task in enumerate(tasks)]
        return self._sent(kind, author, round, groups)

    def _head(self, round: int) -> dict[str, Any]:
        return {"round": round, "expires": milliseconds(self._ends(round + 1)), "model": "embedded"}

    def _sent(self, kind: str, author: Signer, round: int, groups: Any, never: Sequence[str] = ()) -> Sent:
        return Sent(kind, self._signed(author, round, _packed({**self._head(round), "groups": groups})), tuple(never))

    def _signed(
        self, author: Signer, round: int, body: bytes, header: bytes = _HEADER, expires: float | None = None
    ) -> RawRecord:
        """A record with a true signature on any body. expires: seconds since 1970, None as an honest one does."""
        key, expires = self._dialect.key_for(round, author.peer_id), expires or self._ends(round + 1)
        signature = sign(author, DOMAIN, key, expires, body)
        envelope = {"key": signature.public_key, "signature": signature.signature, "body": body}
        return RawRecord(round, key, author.peer_id, header + msgpack.packb(envelope), expires)

    def _bytes(self, kind: str, subkey: str, round: int, value: bytes, expires: float) -> Sent:
        """Any bytes under this name, where its record of the round belongs."""
        return Sent(kind, RawRecord(round, self._dialect.key_for(round, subkey), subkey, value, expires))


def _packed(fields: Mapping[str, Any]) -> bytes:
    return b"\0" + bytes(msgpack.packb(dict(fields)))
