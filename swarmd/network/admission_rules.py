"""What a record and a group must fulfil to be trained on: one function a rule, which raises Refused.

Nothing that a stranger says about a task is used: its provenance is checked against what this node derives itself, and
the task that comes back is this node's own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from swarmd.network.accounts import is_peer_id
from swarmd.network.dialects import Dialect, decode
from swarmd.network.dialects.own import MAGIC, OwnDialect
from swarmd.network.quotas import book
from swarmd.network.records import ClaimedGroup, Record
from swarmd.network.refusals import Reason, Refused, shown
from swarmd.network.reputation import Reputation
from swarmd.tasks.dataset_settings import MixError
from swarmd.tasks.legacy_table import LegacyTable
from swarmd.tasks.mix import TaskMix
from swarmd.tasks.provenance import SEEDS, Provenance, Task, is_heldout, task_seed

OWN_DIALECT = "swarmd"

LARGEST_READ = 65_536
"""Bytes of a record: four times what a swarmd node writes, since GenRL's nodes send metadata along."""

LONGEST_LIFE = 900.0
"""Seconds from now until which a record may live: one that lives longer than it is read only takes others' place."""

MOST_SLOTS = 256
"""Draws of a round whose tasks a peer may answer, some ten times what a node with the default number of tasks makes.
With any number of them a peer would choose easy tasks after all, or only such as have one answer."""

ANSWERED_SHARE = 0.75
"""Of its draws up to the last one that it shows, what a peer must show to have all of its groups taken. A node shows
them all, but for draws with a question that it has met before in the round."""

UNSIGNED_SHARE = 0.75
"""Of a round's places that unsigned records may take: names are free there, and must not crowd out who signs."""

FEWEST_COMPLETIONS, MOST_COMPLETIONS = 2, 64
"""In a group. Advantages are relative to the group's mean, so one completion alone teaches nothing."""


@dataclass(frozen=True)
class RawRecord:
    """A value as it lay in the DHT. Nothing of it is checked, not even the types.

    round: whose key it lay under, as this node asked for it. expires: seconds since 1970. address: IP address of its
    author where that is known.
    """

    round: int
    key: Any
    subkey: Any
    value: Any
    expires: Any
    address: str | None = None


# --- A record as it came -----------------------------------------------------------------------------------------


def has_the_form_of_a_record(raw: RawRecord) -> None:
    """Its key is text, its subkey a peer id, its value bytes. All else is no record of any dialect."""
    if not isinstance(raw.key, str) or not is_peer_id(raw.subkey):
        raise Refused(Reason.WRONG_KEY, f"under a key of type {type(raw.subkey).__name__} that is no peer id")
    if not isinstance(raw.value, bytes):
        raise Refused(Reason.NOT_DECODABLE, f"a value of type {type(raw.value).__name__}")


def is_small_enough(raw: RawRecord, largest: int) -> None:
    """largest: bytes."""
    if len(raw.value) > largest:
        raise Refused(Reason.TOO_LARGE, f"{len(raw.value)} bytes; at most {largest} are read")


def is_worth_reading(raw: RawRecord, dialect: Dialect) -> None:
    """In a swarmd swarm: under its peer's key and signed by it. That takes no unpacking, so that however many names a
    stranger invents, they cost next to nothing and count for nothing. GenRL's nodes cannot sign."""
    if not isinstance(dialect, OwnDialect):
        return
    if not isinstance(raw.expires, float) or not math.isfinite(raw.expires):
        raise Refused(Reason.EXPIRES_TOO_LATE, f"an expiration that is no time, of type {type(raw.expires).__name__}")
    if raw.key != dialect.key_for(raw.round, raw.subkey):
        raise Refused(Reason.WRONG_KEY, f"a record of {raw.subkey} does not belong under {shown(raw.key)}")
    if not dialect.is_signed(raw.value, raw.key, raw.subkey, raw.expires):
        if dialect.is_private or raw.value[: len(MAGIC)] == MAGIC:
            # Says what is wrong with it, such as a later version, and goes no further than the signature.
            decode(raw.value, raw.round, raw.key, raw.subkey, raw.expires, dialect)
        raise Refused(Reason.UNSIGNED, "not signed by the peer under whose name it lies")


def expires_soon(expires: Any, now: float) -> None:
    """now: seconds since 1970. NaN and infinity expire too late: hivemind never forgets them."""
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        raise Refused(Reason.EXPIRES_TOO_LATE, f"an expiration of type {type(expires).__name__}")
    # Comparing takes whole numbers of any size; math.isnan does not.
    if not expires <= now + LONGEST_LIFE:
        raise Refused(Reason.EXPIRES_TOO_LATE, f"it expires more than {LONGEST_LIFE:.0f} s from now")
    if expires <= now:
        raise Refused(Reason.EXPIRED, "it has expired")


def is_of_this_round_or_the_last(raw: RawRecord, round: int) -> None:
    """The last one too, since a slow peer's record may come when its round is over. That the record is of the round
    whose key it lies under, its decoder sees to where it is signed."""
    if raw.round > round:
        raise Refused(Reason.FUTURE_ROUND, f"of round {raw.round}, and this is {round}")
    if raw.round < max(0, round - 1):
        raise Refused(Reason.OLD_ROUND, f"of round {raw.round}, and this is {round}")


def is_not_quarantined(peer_id: str, reputation: Reputation, now: float) -> None:
    if reputation.quarantined(peer_id, now):
        raise Refused(Reason.QUARANTINED, "its peer is in quarantine")


# --- A decoded record --------------------------------------------------------------------------------------------


def is_signed_as_it_must(record: Record, own_peer_id: str, reputation: Reputation) -> None:
    """swarmd's own records are signed. GenRL's nodes cannot sign; but who has signed once is believed signed records
    only, or anybody could speak in its name. Under this node's own peer id only this node's signature counts."""
    if record.signed:
        return
    if record.peer_id == own_peer_id:
        raise Refused(Reason.OTHER_PEER, "somebody else publishes under this node's peer id")
    if record.dialect == OWN_DIALECT:
        raise Refused(Reason.UNSIGNED, "a swarmd record without a signature")
    if reputation.has_signed(record.peer_id):
        raise Refused(Reason.UNSIGNED, "unsigned, from a peer that signs")


def finds_a_place(record: Record, places: Collection[tuple[str, bool]], most: int) -> None:
    """places: the peers that have one in the record's round, and whether they signed; `most` there are."""
    unsigned = sum(not signed for _, signed in places)
    if len(places) >= most or (not record.signed and unsigned >= math.ceil(UNSIGNED_SHARE * most)):
        raise Refused(Reason.QUOTA_ROUND, f"round {record.round} has {len(places)} peers, {unsigned} of them unsigned")


def is_within_its_blocks_quota(address: str | None, taken: Counter[str], most: int) -> None:
    """taken: the records of each block in the record's round; `most` there are of one."""
    if not book(address, taken, most):
        raise Refused(Reason.QUOTA_ADDRESS, "its address block has had its share of this round")


# --- A group -----------------------------------------------------------------------------------------------------


def has_a_groups_form(group: ClaimedGroup, longest: int) -> None:
    """longest: characters of a completion. Its number of completions may differ from ours: advantages are taken within
    a group."""
    count = len(group.completions)
    if count < FEWEST_COMPLETIONS:
        raise Refused(Reason.TOO_FEW_COMPLETIONS, f"a group of {count}; at least {FEWEST_COMPLETIONS} can be compared")
    if count > MOST_COMPLETIONS:
        raise Refused(Reason.TOO_MANY_COMPLETIONS, f"a group of {count}; at most {MOST_COMPLETIONS} are scored")
    for text in group.completions:
        if len(text) > longest:
            raise Refused(Reason.COMPLETION_TOO_LONG, f"{len(text)} characters; at most {longest} are taken")
        if not _is_unicode(text):
            raise Refused(Reason.WRONG_SHAPE, f"no Unicode text: {shown(text)}")
    numbers = group.mean_logprobs
    if numbers is not None and (len(numbers) != count or not all(map(math.isfinite, numbers))):
        raise Refused(Reason.WRONG_SHAPE, "its log-probabilities do not fit its completions")


def is_its_peers_own_seed(record: Record, group: ClaimedGroup, swarm_id: str) -> None:
    """The seed follows from swarm, round, peer and slot, so that nobody chooses easy tasks or shows another's."""
    provenance, slot = group.provenance, group.slot
    if provenance is None or slot is None:
        raise Refused(Reason.OTHER_TASK, "a task without provenance and slot")
    if not (0 <= slot < MOST_SLOTS and 0 <= provenance.seed < SEEDS):
        raise Refused(Reason.OTHER_TASK, f"slot {shown(str(slot))} or its seed is out of range")
    if provenance.seed != task_seed(swarm_id, record.round, record.peer_id, slot):
        raise Refused(Reason.OTHER_TASK, f"the seed is not that of slot {slot}")


def groups_due(slots: Collection[int], most: int, chance: float) -> int:
    """How many groups of a record are taken: fewer of one that leaves out more of its peer's draws.

    Each of its groups is in order, but who may leave out what it likes teaches what it likes: only tasks with the
    answer 7, say. As random ones of the record are taken, and the fewer the more draws were passed over to find them,
    little is gained by choosing. Where one draw in twenty is wanted, chance brings 0.2 of 4 groups; who shows those
    alone has 0.3 taken, and who ends its record where they lie most densely 0.65, instead of all four.

    slots: of the groups that are in order, all different. most: of a record that leaves nothing out. chance: from 0 to
    1, evenly; whether the fraction counts as one more.
    """
    share = min(1.0, len(slots) / (ANSWERED_SHARE * (max(slots) + 1))) if slots else 1.0
    return int(most * share + chance)


def is_of_this_mix(provenance: Provenance, mix: TaskMix) -> None:
    """Cheap, before the task is made. A dataset that is not in the mix is another configuration, no attack."""
    if not mix.has(provenance):
        raise Refused(Reason.UNKNOWN_TASK, f"{shown(provenance.dataset)} with its settings is not in this node's mix")
    if not mix.chooses(provenance):
        raise Refused(Reason.OTHER_TASK, f"the seed does not choose {provenance.dataset}")


def is_the_task_drawn(provenance: Provenance, question: str | None, mix: TaskMix) -> Task:
    """The task that this node draws with the claimed seed; the claim must be that very task.

    Mostly below a millisecond, for some datasets up to a second.
    """
    try:
        task = mix.draw(provenance.seed)
    except MixError as error:
        raise Refused(Reason.UNKNOWN_TASK, f"no task can be made with the seed {provenance.seed}") from error
    if task.provenance != provenance:
        raise Refused(Reason.OTHER_TASK, f"the seed {provenance.seed} draws another task")
    if question is not None and question != task.question:
        raise Refused(Reason.OTHER_TASK, "its question is not that of the task it names")
    return task


def is_a_question_of_the_table(question: str | None, table: LegacyTable | None) -> Task:
    """Our own task for a question. A question nobody knows may come from another version, and is no attack."""
    task = table.find(question) if table is not None and question is not None else None
    if task is None:
        raise Refused(Reason.UNKNOWN_TASK, "its question is in no table of this node")
    return task


def is_not_held_out(task: Task) -> None:
    """What this node is evaluated with must not be learned. GenRL's nodes know no such questions, and ask them all."""
    if is_heldout(task.question):
        raise Refused(Reason.HELD_OUT, "its question is kept for evaluation")


def _is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8: no lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
