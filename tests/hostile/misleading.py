"""Records in order in every way, whose text is meant to do harm: trash around right answers, misleading lessons."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from string import ascii_letters

from swarmd.network.admission_rules import MOST_SLOTS, RawRecord
from swarmd.tasks.answers import extract_answer
from swarmd.tasks.provenance import Task
from tests.hostile.own import poison
from tests.hostile.peers import (
    COMPLETIONS,
    GROUPS,
    Behaviour,
    Claim,
    HostilePeer,
    World,
    answered,
    contrast,
    false_answer,
    lies,
)

Sending = tuple[Sequence[RawRecord], Sequence[Claim]]
Judging = Callable[[Task, str], bool]
"""Of a task and an answer to it."""

HALF = COMPLETIONS // 2
FAVOURITE = "7"
"""The answer that `one answer` teaches: one in twenty tasks has it."""
_SLOTS = MOST_SLOTS
"""Draws among which a peer may choose."""
_TRIED = 24
"""Tasks that a model is asked: as many as a node answers in a round."""


def trash_before_right(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """Right answers behind random letters, and plain ones that are wrong."""
    return _each(peer, world, lambda task: [
        f"{_letters(rng, rng.randrange(1, 8))} {answered(task.answer or '')}" for _ in range(HALF)
    ] + [answered(false_answer(task))] * HALF)  # fmt: skip


def trash_behind_right(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """Right answers with letters behind them, and plain ones that are wrong."""
    return _each(peer, world, lambda task: [
        f"{answered(task.answer or '')}{_letters(rng, rng.randrange(1, 8))}" for _ in range(HALF)
    ] + [answered(false_answer(task))] * HALF)  # fmt: skip


def one_among_gibberish(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """One right answer, and the same letters fifteen times."""
    return _each(peer, world, lambda task: [answered(task.answer or "")] + [_letters(rng, 9)] * (COMPLETIONS - 1))


def always_wrong(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """Only false answers, all different, with log-probs that say it was certain."""
    return _each(peer, world, lambda task: [
        answered(str(number)) for number in range(30, 300) if (task.answer or "") not in str(number)
    ][:COMPLETIONS - 1] + [answered(false_answer(task))])  # fmt: skip


def too_long(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """Right answers at great length."""
    return _each(peer, world, lambda task: [
        f"{'think ' * rng.randrange(30, 60)}{answered(task.answer or '')}" for _ in range(HALF)
    ] + [answered(false_answer(task))] * HALF)  # fmt: skip


def control_tokens(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """Text that spells chat tokens, control characters and code, some of it with a right answer behind it."""
    texts = list(poison(rng, "/nowhere/marker").values())

    def completions(task: Task) -> list[str]:
        bad = [text.replace("{n}", str(number)) for number, text in enumerate(rng.sample(texts, HALF))]
        return [f"{text[:200]}{answered(task.answer or '')}" for text in bad] + contrast(task, HALF // 2)

    return _each(peer, world, completions)


def many_answers(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """Several answers, the last of them right (that one counts), against plain wrong ones: for three times the tokens,
    each of which weighs the same."""

    def completions(task: Task) -> list[str]:
        right, wrong = answered(task.answer or ""), answered(false_answer(task))
        return [wrong * rng.randrange(1, 3) + right for _ in range(HALF)] + [wrong] * HALF

    return _each(peer, world, completions)


def odd_form(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """Right answers with a space or a zero before them, which earn all, and plain ones that are wrong."""
    return _each(peer, world, lambda task: [
        answered(rng.choice((" ", "0")) + (task.answer or "")) for _ in range(HALF)
    ] + [answered(false_answer(task))] * HALF)  # fmt: skip


def one_answer(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """Only tasks whose answer is 7, found among its draws: 7 is right each time, and all that the model says besides is
    wrong."""
    return _picked(peer, world, lambda task: task.answer == FAVOURITE, lambda task, answer: answer == FAVOURITE)


def one_digit(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """Of tasks with an answer of one digit such wrong answers as are longer; from all others nothing is learned."""
    return _shown(
        peer, world, lambda task, answer: answer == task.answer and len(answer) == 1,
        lambda task, answer: len(answer) > 1,
    )  # fmt: skip


def half_right(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """reasoning-gym gives a part of the reward where the right answer is only contained. Answers of the model that are
    so, and such as earn nothing: the best that is shown is wrong. From tasks without such nothing is learned."""
    return _shown(peer, world, lambda task, answer: answer != task.answer and (task.answer or "") in answer)


def sabotage(peer: HostilePeer, world: World, rng: random.Random) -> Sending:
    """Nothing but what its model answers to its tasks; only that the model is trained to be wrong."""
    tasks = [world.task(peer.peer_id, slot) for slot in range(2 * GROUPS)]
    groups = [peer.group(world, slot, texts) for slot, texts in enumerate(peer.wrong(tasks))]
    return [world.published(peer.author, groups)], lies(groups)


POISONING: tuple[Behaviour, ...] = (
    trash_before_right, one_among_gibberish, many_answers, always_wrong, trash_behind_right, too_long, control_tokens,
    odd_form,
)  # fmt: skip
INSIDER: tuple[Behaviour, ...] = (one_answer, sabotage, half_right, one_digit)


def _each(peer: HostilePeer, world: World, completions: Callable[[Task], list[str]]) -> Sending:
    groups = [peer.group(world, slot, completions(world.task(peer.peer_id, slot))) for slot in range(GROUPS)]
    return [world.published(peer.author, groups)], lies(groups)


def _picked(
    peer: HostilePeer, world: World, fits: Callable[[Task], bool], good: Judging, bad: Judging = lambda *_: True
) -> Sending:
    """Tasks of its choice among all its draws, of whatever place, each with what is to be learned from it."""
    slots = list(islice(_slots(peer, world, fits), _TRIED))
    lessons = _lessons(peer, world, slots, good, bad)
    groups = [peer.group(world, slot, texts) for slot, texts in zip(slots, lessons, strict=True) if texts][:GROUPS]
    return [world.published(peer.author, groups)], lies(groups)


def _shown(peer: HostilePeer, world: World, good: Judging, bad: Judging = lambda *_: True) -> Sending:
    """All of its first draws, as one who knows that a record with gaps counts for less: where there is not what it
    wants, or not what is to be learned from it, a group without a signal."""
    lessons = _lessons(peer, world, range(_TRIED), good, bad)
    groups = []
    for slot, texts in enumerate(lessons):
        nothing = [answered(false_answer(world.task(peer.peer_id, slot)))] * 2
        groups.append(peer.group(world, slot, texts or nothing))
    return [world.published(peer.author, groups)], lies(groups)


def _lessons(
    peer: HostilePeer, world: World, slots: Sequence[int], good: Judging, bad: Judging
) -> Iterator[list[str]]:
    """Of a model's answers to each of its tasks those that teach what they are to teach: the good ones, and of those
    that earn nothing the bad ones. Nothing where one kind is missing."""
    tasks = [world.task(peer.peer_id, slot) for slot in slots]
    for task, texts in zip(tasks, peer.model(tasks), strict=True):
        answers = [extract_answer(text) or "" for text in texts]
        best = [text for text, answer in zip(texts, answers, strict=True) if good(task, answer)]
        worst = [
            text for text, answer in zip(texts, answers, strict=True)
            if (task.answer or "") not in answer and bad(task, answer)
        ]  # fmt: skip
        yield [some[n % len(some)] for some in (best, worst) for n in range(HALF)] if best and worst else []


def _slots(peer: HostilePeer, world: World, fits: Callable[[Task], bool]) -> Iterator[int]:
    return (slot for slot in range(_SLOTS) if fits(world.task(peer.peer_id, slot)))


def _letters(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(ascii_letters, k=count))
