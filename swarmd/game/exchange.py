"""What the game asks of the swarm besides GenRL's Communication: what came in an exchange, and where verdicts go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

USED = "used"
"""Groups of a peer that were trained on. All other reasons in a verdict say what was left out."""


class Exchange(Protocol):
    """The swarm's side of a round; usually the Communication itself."""

    @property
    def last(self) -> Mapping[str, Any]:
        """Of the last exchange: "seen", "admitted" and "refused" as in ExchangeReport; empty where it failed."""

    def begin_round(self, round: int) -> None:
        """Names the round that the next exchange belongs to."""

    def report(self, verdicts: Mapping[str, Mapping[str, int]]) -> None:
        """Takes what scoring and training found out about peers: {peer id: {reason, or USED: count}}."""


@dataclass(frozen=True)
class ExchangeReport:
    """One exchange. seen: peers whose records were there; admitted: groups; refused: {reason: count}."""

    seen: int = 0
    admitted: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, last: Mapping[str, Any]) -> ExchangeReport:
        """From an Exchange's `last`, in which anything may be missing."""
        return cls(int(last.get("seen", 0)), int(last.get("admitted", 0)), dict(last.get("refused", {})))


def joined(*sources: Mapping[str, Mapping[str, int]]) -> dict[str, Counter[str]]:
    """{peer: {reason: count}} of several such, added up."""
    total: dict[str, Counter[str]] = {}
    for source in sources:
        for peer, reasons in source.items():
            total.setdefault(str(peer), Counter()).update(reasons)
    return total
