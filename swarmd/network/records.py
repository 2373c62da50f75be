"""What nodes share: a record a peer and round, in it a group a task; the same whatever dialect it came in."""

from __future__ import annotations

from dataclasses import dataclass

from swarmd.tasks.provenance import Provenance


@dataclass(frozen=True)
class ClaimedGroup:
    """One task and what a peer says it answered. Nothing of it is checked but its form and its size.

    completions: at least one. provenance and slot: how swarmd nodes name a task; slot is the number of its draw in the
    round (tasks.provenance.task_seed). question: how all others do. One of provenance and question is there.
    mean_logprobs: natural log, per token, one for each completion, under the policy that wrote them; None if unsaid.
    """

    completions: tuple[str, ...]
    provenance: Provenance | None = None
    slot: int | None = None
    question: str | None = None
    mean_logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Record:
    """What a peer published for a round. round: the one whose key it lay under, and, where it is signed, names itself.

    peer_id: base58; the subkey it lay under. signed: by the key that the peer id stands for. expires: when the DHT may
    forget it, seconds since 1970. model: the family of the peer's model, "" if unsaid. size: bytes as they came.
    """

    peer_id: str
    round: int
    dialect: str
    signed: bool
    expires: float
    model: str
    groups: tuple[ClaimedGroup, ...]
    size: int


@dataclass(frozen=True)
class AdmittedGroup:
    """A group that passed all rules but those that need scores or the policy: its task is one that this node has made
    itself. provenance: of a task of the mix; question: of one of the table of legacy tasks, then provenance is None.
    """

    peer_id: str
    round: int
    completions: tuple[str, ...]
    provenance: Provenance | None
    question: str | None
