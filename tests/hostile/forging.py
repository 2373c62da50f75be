"""Records that are not what they say: damaged, another's, an old one, with false tasks, answers and rewards."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from swarmd.network.admission_rules import RawRecord
from swarmd.network.dialects.genrl_03 import Genrl03Dialect
from swarmd.tasks.provenance import task_seed
from tests.hostile.legacy import asked
from tests.hostile.mutations import mutations
from tests.hostile.peers import (
    COMPLETIONS,
    GROUPS,
    Behaviour,
    Claim,
    HostilePeer,
    Published,
    World,
    contrast,
    false_answer,
    lie,
    lies,
    said,
)

Sending = tuple[Sequence[RawRecord], Sequence[Claim]]

_MUTATIONS = 40
_BOMB = 48 << 20


def damaged_records(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """Its own record and everybody's, with bytes changed, cut and mixed, under other names and keys."""
    base = [_record(peer, world), *(other.raw for other in (*world.honest, *world.before))]
    return list(mutations(base, rng.getrandbits(32), _MUTATIONS)), ()


def bombs(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """Signed bytes that unpack to much, or deeply, or are simply many."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = packer.compress(bytes(_BOMB)) + packer.flush()
    deep = [world.signed_bytes(peer.author, b"\0" + b"\x91" * depth + b"\xc0") for depth in (13, 40_000)]
    wide = world.signed_bytes(peer.author, b"\0\xdd\xff\xff\xff\xff")
    large = world.raw(peer.author, rng.randbytes(99_999))
    return [*deep, wide, world.signed_bytes(peer.author, b"\1" + zeros), large], ()


def other_tasks(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """Tasks that it was not given: of a seed of its choice, another slot, round or peer, a neighbour, another set."""
    task, victim = world.task(peer.peer_id, 0), rng.choice(world.honest)
    place, chosen = task.provenance, world.mix.draw(rng.randrange(2**31))
    other = next(part for part in world.mix.parts if part.name != place.dataset)
    old = world.mix.draw(task_seed(world.swarm_id, world.round - 1 if world.round else 7, peer.peer_id, 0))
    claimed = [
        (0, chosen), (1, world.task(peer.peer_id, 2)), (2, old), (3, victim.groups[0].task),
        (0, replace(task, provenance=replace(place, index=place.index + 1))),
        (0, replace(task, provenance=replace(place, dataset=other.name, config_hash=other.config_hash))),
        (0, replace(task, provenance=replace(place, config_hash="0" * 32))),
    ]  # fmt: skip
    groups = [said(slot, some.provenance, contrast(some)) for slot, some in claimed]
    return [world.signed(peer.author, groups)], [lie(some, contrast(some)) for _, some in claimed]


def claimed_rewards(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """Its own tasks, and wherever there is room for it that the false answers are right, earn 1 and were certain."""
    tasks = [world.task(peer.peer_id, slot) for slot in range(GROUPS)]
    rewards = [0.0] * (COMPLETIONS // 2) + [1.0] * (COMPLETIONS // 2)
    groups = []
    for slot, task in enumerate(tasks):
        more = {"question": "1 + 1 =", "answer": false_answer(task), "rewards": rewards, "advantages": rewards}
        certain = b"\x80\0" * (COMPLETIONS // 2) + b"\0\0" * (COMPLETIONS // 2)
        groups.append(said(slot, task.provenance, contrast(task), certain, more["answer"], rewards, more))
    answers, metadata = {str(n): false_answer(task) for n, task in enumerate(tasks)}, {"source_dataset": "composite"}
    raw = world.signed(peer.author, groups, answers=answers, rewards=rewards, metadata=metadata)
    return [raw], [lie(task, contrast(task)) for task in tasks]


def replayed(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """The last round once more: its own record and another's under this round's keys, and their groups signed anew."""
    old = rng.choice(world.before or world.honest)
    again = [said(group.slot, group.task.provenance, group.completions) for group in old.groups[:8]]
    mine = world.published(peer.author, _groups(peer, world, max(0, world.round - 1)), max(0, world.round - 1))
    raws = [world.raw(peer.author, old.raw.value), world.raw(peer.author, mine.value), world.signed(peer.author, again)]
    return raws, lies(old.groups[:8])


def copied(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """What an honest peer has just published, as its own: with its tasks, and as answers to the own ones."""
    victim: Published = rng.choice(world.honest)
    groups = [said(group.slot, group.task.provenance, group.completions) for group in victim.groups[:GROUPS]]
    mine = [world.task(peer.peer_id, slot) for slot in range(GROUPS)]
    groups += [
        said(slot, task.provenance, group.completions)
        for slot, (task, group) in enumerate(zip(mine, victim.groups, strict=False))
    ]  # fmt: skip
    return [world.signed(peer.author, groups)], lies(victim.groups[:GROUPS])


def ragged(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """Groups of one and of 65, empty ones, of no texts, with too few log-probs: alone, and beside a good one."""
    task = world.task(peer.peer_id, 0)
    place, texts = task.provenance, contrast(task)
    shapes: list[Any] = [
        said(0, place, texts[:1]), said(0, place, texts * 5), said(0, place, []), said(0, place, [texts]),
        said(0, place, [*texts, 5]), said(0, place, texts, b"\0\0"), said(0, place, texts)[:4], None, [],
    ]  # fmt: skip
    good = _groups(peer, world)[1]
    beside = said(1, good.task.provenance, good.completions)
    raws = [world.signed(peer.author, [shape]) for shape in shapes]
    raws += [world.signed(peer.author, [beside, shape]) for shape in rng.sample(shapes, 2)]
    return raws, [lie(task, texts[:1]), lie(task, texts * 5)]


def forged_names(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """Records in honest peers' names: its own bytes, theirs with a bit changed, and unsigned ones as of GenRL."""
    mine, legacy, raws = _record(peer, world), Genrl03Dialect(), []
    for victim in rng.sample(world.honest, min(3, len(world.honest))):
        flipped = bytearray(victim.raw.value)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        task = victim.groups[0].task
        unsigned = legacy.write(asked(legacy, task.question, contrast(task), answer=false_answer(task)))
        raws += [replace(victim.raw, value=value) for value in (mine.value, bytes(flipped), unsigned)]
    return raws, lies(_groups(peer, world))


def two_records(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """Two that contradict each other, both signed, so that some nodes might take one and some the other, or both."""
    groups = _groups(peer, world)
    others = [replace(group, completions=group.completions[::-1]) for group in groups]
    return [world.published(peer.author, groups), world.published(peer.author, others)], lies(groups)


def late(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """A record of the last round, written when that is over and everybody's answers are known."""
    groups = _groups(peer, world, max(0, world.round - 1))
    return [world.published(peer.author, groups, max(0, world.round - 1))], lies(groups)


FORGING: tuple[Behaviour, ...] = (
    other_tasks, damaged_records, claimed_rewards, copied, bombs, late, replayed, ragged, forged_names, two_records,
)  # fmt: skip


def _groups(peer: HostilePeer, world: World, round: int | None = None) -> list[Any]:
    groups = []
    for slot in range(GROUPS):
        task = world.task(peer.peer_id, slot, round)
        group = peer.group(world, slot, contrast(task))
        groups.append(replace(group, task=task))
    return groups


def _record(peer: HostilePeer, world: World) -> RawRecord:
    return world.published(peer.author, _groups(peer, world))
