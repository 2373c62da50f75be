"""What the processes that score say to each other: limits, reasons, and the report of one score."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Self

SCORED = ""
NO_ANSWER = "no_answer"
"""The completion has no <answer>…</answer>."""
TOO_LONG = "too_long"
"""The answer is longer than MAX_ANSWER_CHARS."""
REFUSED = "refused"
"""The dataset is not one whose answers are scored."""
UNSENDABLE = "unsendable"
"""The task's metadata cannot be sent to the scorer."""
TIMEOUT = "timeout"
"""The scorer took longer than ScoreLimits allow."""
MEMORY = "memory"
"""The scorer wanted more memory than ScoreLimits allow."""
ERROR = "error"
"""The scorer raised an exception: the answer is of a form it does not expect."""
INVALID = "invalid"
"""The scorer returned something that is no finite number."""
CRASH = "crash"
"""The process that scored died."""
BUDGET = "budget"
"""The time for the whole call was used up before this answer's turn."""

REASONS = (
    SCORED, NO_ANSWER, TOO_LONG, REFUSED, UNSENDABLE, TIMEOUT, MEMORY, ERROR, INVALID, CRASH, BUDGET,
)  # fmt: skip


@dataclass(frozen=True)
class ScoreLimits:
    """cpu_s, wall_s: seconds for one answer; memory_bytes: what scoring it may allocate; budget_s: seconds for one
    call with all its answers; silence_s: seconds without a sign of life after which the scorer process is replaced."""

    cpu_s: float = 2.0
    wall_s: float = 3.0
    memory_bytes: int = 256 << 20
    budget_s: float = 60.0
    silence_s: float = 10.0


_REPORT = struct.Struct("<IBd")


@dataclass(frozen=True)
class Report:
    """A worker's line on one answer: its index in the batch, the value 0 to 1, and the reason ("" when scored)."""

    SIZE = _REPORT.size

    index: int
    value: float
    reason: str

    @classmethod
    def of(cls, index: int, result: object) -> Self:
        """From what a scorer returned. Raises TypeError or ValueError where that is no number."""
        value = float(result)  # type: ignore[arg-type]  # that it may be none is the point
        if not math.isfinite(value):
            return cls(index, 0.0, INVALID)
        return cls(index, min(1.0, max(0.0, value)), SCORED)

    def to_bytes(self) -> bytes:
        return _REPORT.pack(self.index, REASONS.index(self.reason), self.value)

    @classmethod
    def from_bytes(cls, report: bytes) -> Self:
        """Raises ValueError for a value outside 0..1, NaN, or a reason that doesn't exist."""
        index, reason, value = _REPORT.unpack(report)
        if reason >= len(REASONS) or not 0.0 <= value <= 1.0:
            raise ValueError(f"reason {reason}, value {value}")
        return cls(index, value, REASONS[reason])
