"""What every wire format has in common: where records lie, what goes in, and how much may come out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from swarmd.network.refusals import Reason, Refused
from swarmd.network.signing import Signer
from swarmd.network.strict_bounds import Bounds
from swarmd.tasks.provenance import Task

LOGPROB_STEPS = 1024
"""Mean log-probabilities travel as whole numbers of 1/1024 nat."""

GroupT = TypeVar("GroupT")

_MOST_FAMILY = 64
_LOWEST_LOGPROB = -(2**15)


@dataclass(frozen=True)
class OutgoingGroup:
    """One task of this node's and its answers. slot: the number of the task's draw in the round.

    mean_logprobs: natural log, per token, one for each completion, under the policy that wrote them.
    """

    task: Task
    slot: int
    completions: tuple[str, ...]
    mean_logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Encoded:
    """A record ready to be published. kept: the groups in it; left_out: those that found no room, or that others
    could not read. A record with kept == 0 is not worth publishing.
    """

    value: bytes
    kept: int
    left_out: int


@dataclass(frozen=True)
class WireLimits:
    """The most that is read of one record, and that is written into it.

    completions: of one group. question_chars: of a legacy record; own ones hold no question.
    """

    value_bytes: int = 64 * 1024
    groups: int = 64
    completions: int = 64
    completion_chars: int = 8192
    question_chars: int = 16384
    bounds: Bounds = Bounds()


DEFAULT_LIMITS = WireLimits()


class Dialect(ABC):
    """How records of one swarm are written, and where they lie. most_bytes: of a record that is written."""

    name: str
    dht_namespace: str | None = None
    """What keeps the swarm's DHT apart from others; None where it has to be hivemind's own."""

    def __init__(self, most_bytes: int, limits: WireLimits) -> None:
        self.most_bytes = most_bytes
        self.limits = limits

    @abstractmethod
    def keys(self, round: int) -> Sequence[str]:
        """All DHT keys under which records of this round lie."""

    @abstractmethod
    def key_for(self, round: int, peer_id: str) -> str:
        """The one of them under which this peer's lies; its subkey is the peer id in base58."""

    @abstractmethod
    def encode(
        self, groups: Sequence[OutgoingGroup], round: int, signer: Signer, expires: float, model: str = ""
    ) -> Encoded:
        """A signed record of these groups, at most `most_bytes` long: what finds no room is left out whole.

        Groups that come first are taken first. expires: seconds since 1970; publish it with the very same number.
        model: the family of this node's model, cut to 64 printable characters.
        """

    @abstractmethod
    def is_signed(self, value: bytes, key: str, subkey: str, expires: float) -> bool:
        """Whether the peer in the subkey has signed a value of at most 64 KiB for this place and expiration (finite).

        Nothing of what it holds is unpacked or looked at, so that it takes less than a millisecond, whoever wrote it:
        `decode` may refuse what was signed. Raises nothing.
        """


def sendable(group: OutgoingGroup, limits: WireLimits) -> bool:
    """Whether others would take a group of this form."""
    return (
        0 < len(group.completions) <= limits.completions
        and all(len(text) <= limits.completion_chars and _is_utf8(text) for text in group.completions)
        and (group.mean_logprobs is None or len(group.mean_logprobs) == len(group.completions))
    )


def family(model: str) -> str:
    """A model's family as it travels."""
    return "".join(character if " " <= character <= "~" else "?" for character in model[:_MOST_FAMILY])


def is_family(text: str) -> bool:
    """Whether a stranger's text has that form; it is shown to people, so that control characters have no place."""
    return family(text) == text


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def fit(
    groups: Sequence[GroupT], most: int, write: Callable[[Sequence[GroupT]], bytes | None]
) -> tuple[bytes, Sequence[GroupT]]:
    """The bytes of as many groups as `most` bytes hold, in their order, and which these are.

    write: makes bytes of groups; None where they would be too many for a reader. Groups that are too large by
    themselves are passed over; else the first that finds no room is the end, since a record with gaps counts for less
    (admission_rules.groups_due). Raises ValueError where not even the bytes of no groups fit.
    """
    written = write(groups)
    if written is not None and len(written) <= most:
        return written, groups
    kept: list[GroupT] = []
    best = write(kept)
    if best is None or len(best) > most:
        raise ValueError(f"{most} bytes do not even hold an empty record; allow for more")
    for group in groups:
        written = write([*kept, group])
        if written is not None and len(written) <= most:
            best = written
            kept.append(group)
        elif kept:
            alone = write([group])
            if alone is not None and len(alone) <= most:
                break
    return best, kept


def quantised(logprobs: tuple[float, ...] | None) -> list[int] | None:
    """Mean log-probabilities as they travel: steps of 1/1024 from -32 to 0; beyond it the nearest. None for NaN."""
    if logprobs is None or any(math.isnan(value) for value in logprobs):
        return None
    return [round(min(0.0, max(_LOWEST_LOGPROB / LOGPROB_STEPS, value)) * LOGPROB_STEPS) for value in logprobs]


def logprobs_of(steps: Sequence[object], completions: int) -> tuple[float, ...]:
    """The reverse. Raises Refused for anything but one number for each completion, in the range of `quantised`."""
    whole = [step for step in steps if type(step) is int and _LOWEST_LOGPROB <= step <= 0]
    if not len(whole) == len(steps) == completions:
        raise Refused(Reason.WRONG_SHAPE, "mean log-probabilities that are no steps from -32768 to 0, one each")
    return tuple(step / LOGPROB_STEPS for step in whole)


def checked_completions(completions: object, limits: WireLimits) -> tuple[str, ...]:
    """A stranger's completions, if they are texts, not too many and none too long. Raises Refused."""
    if not isinstance(completions, list) or not completions:
        raise Refused(Reason.WRONG_SHAPE, "a group without a list of completions")
    if len(completions) > limits.completions:
        raise Refused(Reason.TOO_MANY_COMPLETIONS, f"{len(completions)} in a group, {limits.completions} are taken")
    for text in completions:
        if not isinstance(text, str):
            raise Refused(Reason.WRONG_SHAPE, f"a completion that is a {type(text).__name__}")
        if len(text) > limits.completion_chars:
            raise Refused(Reason.COMPLETION_TOO_LONG, f"{len(text)} characters, {limits.completion_chars} are taken")
    return tuple(completions)
