"""Scoring what peers answered, in a time that they cannot stretch and with a turn for each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from swarmd.tasks.peer_groups import in_turns
from swarmd.tasks.scorer import Score, ScoreRequest
from swarmd.tasks.verdicts import BUDGET, CRASH, MEMORY, TIMEOUT, UNSENDABLE

# One call of the scorer: more than a single answer may take, so that each call gets on, and little more, so that
# whoever sends answers that are slow to score is found out after one of them.
_CALL_SECONDS = 5.0
_NOT_LOOKED_AT = frozenset({BUDGET, UNSENDABLE})
_BEYOND_LIMITS = frozenset({TIMEOUT, MEMORY, CRASH})


@dataclass
class PeerGroup:
    """A peer's answers to one task. values: a score each, once all of them were scored; else empty.

    at_fault: whether one of them took the scorer beyond its limits.
    """

    peer: str
    requests: Sequence[ScoreRequest]
    values: list[float] = field(default_factory=list)
    at_fault: bool = False


def score_peers(
    groups: Sequence[PeerGroup], score: Callable[[list[ScoreRequest], float], list[Score]], seconds: float
) -> None:
    """Fills in `values`, as far as `seconds` suffice: first one group of each peer, then another of each.

    A group with an answer that takes the scorer beyond its limits is left out, and so are the later ones of its
    peer: otherwise a few peers with slow answers would use up the time of all. score(requests, seconds): one score
    each; those that it did not get to have the reason "budget".
    """
    by_peer: dict[str, list[PeerGroup]] = {}
    for group in groups:
        by_peer.setdefault(group.peer, []).append(group)
    deadline = time.monotonic() + seconds
    blamed: set[str] = set()
    for turn in in_turns(list(by_peer.values())):
        _score_turn([group for group in turn if group.peer not in blamed], score, deadline)
        blamed.update(group.peer for group in turn if group.at_fault)


def _score_turn(
    turn: Sequence[PeerGroup], score: Callable[[list[ScoreRequest], float], list[Score]], deadline: float
) -> None:
    found: list[dict[int, Score]] = [{} for _ in turn]
    while waiting := list(_waiting(turn, found)):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        # The scorer looks at them in this order: the first answer of each group, then the second of each.
        scores = score([turn[group].requests[place] for group, place in waiting], min(left, _CALL_SECONDS))
        crashed = all(one.reason == CRASH for one in scores)  # by itself, then; nobody's answer is to blame
        got_on = False
        for (group, place), one in zip(waiting, scores, strict=True):
            if one.reason in _NOT_LOOKED_AT or (one.reason == CRASH and crashed):
                continue
            got_on = True
            found[group][place] = one
            turn[group].at_fault |= one.reason in _BEYOND_LIMITS
        if not got_on:
            break
    for whole, scored in zip(turn, found, strict=True):
        if len(scored) == len(whole.requests) and not whole.at_fault:
            whole.values = [scored[place].value for place in range(len(scored))]


def _waiting(turn: Sequence[PeerGroup], found: Sequence[dict[int, Score]]) -> Iterator[tuple[int, int]]:
    """(group, place) of the answers without a score, by place first; none of groups that are left out."""
    places = max((len(group.requests) for group in turn), default=0)
    for place in range(places):
        for number, group in enumerate(turn):
            if place < len(group.requests) and place not in found[number] and not group.at_fault:
                yield number, place
