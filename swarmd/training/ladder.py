"""How much is done at once, and how it becomes less when memory runs short: the ladder that the trainer steps down.

Smaller portions come first: they cost time and change nothing in what is learned. Then completions become shorter, and
at last the weights are kept in bf16. What was given up is remembered (`MemorySteps`), so that the next start does not
climb up again to where it fell.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Protocol

import torch

from swarmd.system.events import event
from swarmd.system.pressure import Reading, trim_heap
from swarmd.training.recipe import PRECISIONS, Precision

Work = Literal["sampling", "training"]

# Completions become no shorter than this share of what is configured, and than so many tokens: what is cut off before
# the answer stands there teaches nothing.
_SHORTEST_SHARE = 4
_SHORTEST_TOKENS = 16
# A limit counts as grown when it is so much larger; the same machine's RAM differs a little from kernel to kernel.
_GROWN = 1.02
# Use that holds near the end costs one step; the next comes when it has risen by this share of the limit.
_HIGHER = 0.01


class MemoryTight(MemoryError):
    """Raised between two token steps to break off a batch of completions that may grow past the memory's end."""


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out. Torch's CPU allocator says it with a plain RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@dataclass(frozen=True)
class Rung:
    """How much is done at once.

    Attributes:
        token_budget: padded tokens in one micro-batch.
        rows_at_once: completions sampled together.
        max_new_tokens: a completion's longest length in training.
        precision: of the weights.
    """

    token_budget: int
    rows_at_once: int
    max_new_tokens: int
    precision: Precision

    def words(self) -> str:
        """As it stands in messages."""
        return (
            f"{self.token_budget} tokens in a micro-batch, {self.rows_at_once} completions at once, of at most "
            f"{self.max_new_tokens} tokens, {self.precision}"
        )


@dataclass(frozen=True)
class MemorySteps:
    """The lowest rung that a node had to step down to, with the model and the limit (bytes) under which it had to."""

    model: str
    limit: int
    rung: Rung

    def to_json(self) -> str:
        """For the state directory."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None) -> MemorySteps | None:
        """What `to_json` wrote; None where there is nothing or something else: then the ladder is begun at its top."""
        try:
            found = json.loads(text or "null")
            rung = Rung(**found["rung"])
            steps = cls(found["model"], found["limit"], rung)
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        sizes = (steps.limit, rung.token_budget, rung.rows_at_once, rung.max_new_tokens)
        sane = all(type(size) is int and size > 0 for size in sizes)
        return steps if sane and rung.precision in PRECISIONS and isinstance(steps.model, str) else None

    def hold(self, model: str, limit: int) -> bool:
        """Whether they still apply: to the same model under a limit that has not grown."""
        return model == self.model and limit <= self.limit * _GROWN


class Gauge(Protocol):
    """Who watches the memory."""

    @property
    def near(self) -> bool:
        """Whether its end has come near and nobody has taken note."""

    def take(self) -> Reading | None:
        """The reading, once."""

    def rest(self) -> None:
        """A step was taken for another reason."""


class Ladder:
    """The trainer's place on the ladder.

    now: the rung; steps: how many steps were taken here. Set by the trainer as it works, so that a step halves what is
    really done at once: rows, the completions last sampled; tokens, the most in a micro-batch; row, the longest
    completion with its prompt; 0 where not known yet.
    """

    def __init__(
        self, top: Rung, group_size: int, leanest: Precision, model: str, convert: Callable[[Precision], None]
    ) -> None:
        """leanest: the precision that may be gone down to; convert(precision): changes the weights to it."""
        self.now = top
        self.steps = 0
        self.rows = self.tokens = self.row = 0
        self._least_rows = group_size
        self._least_tokens = min(top.max_new_tokens, max(_SHORTEST_TOKENS, top.max_new_tokens // _SHORTEST_SHARE))
        self._leanest = leanest
        self._model = model
        self._convert = convert
        self._gauge: Gauge | None = None
        self._limit = 0
        self._remember: Callable[[MemorySteps], None] = lambda steps: None
        self._told_end = False
        self._highest = 0

    def watch(self, gauge: Gauge | None, limit: int, remember: Callable[[MemorySteps], None]) -> None:
        """From now on `gauge` is asked at every safe point (None: nobody), and steps are remembered.

        limit: bytes, what the plan was made for.
        """
        self._gauge, self._limit, self._remember = gauge, limit, remember

    def resume(self, steps: MemorySteps | None, limit: int) -> None:
        """Begins where an earlier process had to end up, unless the limit (bytes) has grown since."""
        if steps is None or not steps.hold(self._model, limit):
            return
        before, learned = self.now, steps.rung
        lean = PRECISIONS.index(learned.precision) > PRECISIONS.index(before.precision)
        self._go(
            Rung(
                min(before.token_budget, learned.token_budget),
                max(self._least_rows, min(before.rows_at_once, learned.rows_at_once)),
                max(self._least_tokens, min(before.max_new_tokens, learned.max_new_tokens)),
                learned.precision if lean and learned.precision == self._leanest else before.precision,
            )
        )
        if self.now != before:
            event(
                "memory_stepped_down",
                f"an earlier run was short of memory under this limit, so this one begins with {self.now.words()}",
                what="resumed", limit=limit, **_sides(before, self.now),
            )  # fmt: skip

    @property
    def tight(self) -> bool:
        """Whether the watch asks for less."""
        return self._gauge is not None and self._gauge.near

    @property
    def more_than_a_group(self) -> bool:
        """Whether more completions are sampled at once than have to be."""
        return (min(self.now.rows_at_once, self.rows) if self.rows else self.now.rows_at_once) > self._least_rows

    @property
    def can_cut(self) -> bool:
        """Whether the watch asks for less, and the next step is one that can be taken within a round."""
        return self.tight and (below := self._below()) is not None and below.precision == self.now.precision

    def ease(self, between_rounds: bool = False) -> None:
        """Takes a step if the watch asks for one. For places where nothing is half done.

        The weights' format changes between rounds only: within one, completions would be trained by other weights
        than they were sampled from.
        """
        if not self.tight or self._gauge is None:
            return
        below = self._below()
        if below is not None and below.precision != self.now.precision and not between_rounds:
            return  # the reading is kept until the round is over
        reading = self._gauge.take()
        if reading is None:
            return
        if not reading.stalled and reading.use <= self._highest + reading.limit * _HIGHER:
            # As high as at the last step, and no higher: what holds there has not been growing, and giving up more of
            # what does not fill the memory would cost speed and help nothing.
            return
        self._highest = max(self._highest, reading.use)
        stalled = f", all waiting for memory {reading.stalled:.0%} of the time" if reading.stalled else ""
        why = f"{reading.use >> 20} of {reading.limit >> 20} MiB are in use ({reading.source}{stalled})"
        self._down(below, why, reading.use, reading.limit)

    def step_down(self, reason: str, work: Work | None = None) -> bool:
        """Takes a step whatever the watch says; False where there is none left. For places where nothing is half done.

        reason: what happened, for the message; work: what it happened in, where smaller portions of the other would
        not help.
        """
        return self._down(self._below(work), reason, None, self._limit or None)

    def shrink(self, error: BaseException, work: Work | None = None) -> None:
        """Takes a step after an error that says memory ran out. Raises that error where there is no step left.

        To be called when the work that failed, tensors and traceback, is gone.
        """
        if isinstance(error, MemoryTight):
            self.ease()
            return
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if not self.step_down(f"out of memory: {why}", work):
            raise error
        if self._gauge is not None:
            self._gauge.rest()

    def _down(self, below: Rung | None, why: str, use: int | None, limit: int | None) -> bool:
        before = self.now
        if below is None:
            release()
            if not self._told_end:
                self._told_end = True
                event(
                    "memory_stepped_down",
                    f"{why}; there is nothing left to give up ({before.words()}), going on as it is",
                    priority=4, what="nothing", **_sides(before, before), use=use, limit=limit,
                )  # fmt: skip
            return False
        self._go(below)
        self.steps += 1
        what = _difference(before, below)
        event(
            "memory_stepped_down",
            f"{why}; going on with {below.words()}",
            priority=4, what=what, **_sides(before, below), use=use, limit=limit,
        )  # fmt: skip
        if self._limit:
            self._remember(MemorySteps(self._model, self._limit, below))
        return True

    def _go(self, rung: Rung) -> None:
        if rung.precision != self.now.precision:
            self._convert(rung.precision)
        self.now = rung
        release()

    def _below(self, work: Work | None = None) -> Rung | None:
        """The next rung, None at the end."""
        now = self.now
        tokens = min(now.token_budget, self.tokens) if self.tokens else now.token_budget
        rows = min(now.rows_at_once, self.rows) if self.rows else now.rows_at_once
        # A micro-batch is never less than one row, and sampled are whole groups.
        least = max(self.row, 1) if self.row else now.max_new_tokens
        if (work != "sampling" and tokens > least) or (work != "training" and rows > self._least_rows):
            return replace(
                now,
                token_budget=max(min(least, now.token_budget), tokens // 2),
                rows_at_once=max(min(self._least_rows, now.rows_at_once), rows // 2),
            )
        if now.max_new_tokens > self._least_tokens:
            return replace(now, max_new_tokens=max(self._least_tokens, now.max_new_tokens // 2))
        if now.precision != self._leanest:
            return replace(now, precision=self._leanest)
        return None


class SamplingRoom:
    """How much may be sampled at once, on the ladder's rung."""

    def __init__(self, ladder: Ladder, full: int | None = None) -> None:
        """full: the length that completions keep on every rung, with fewer sampled at once instead (an evaluation's
        scores must be comparable); None: they become shorter."""
        self._ladder = ladder
        self._full = full
        self._most: int | None = None

    def portion(self) -> tuple[int, int]:
        """Completions at once and the longest one's tokens, for the next batch: a safe point."""
        self._ladder.ease()
        now = self._ladder.now
        if self._full is None:
            return now.rows_at_once, now.max_new_tokens
        rows = max(1, now.rows_at_once * now.max_new_tokens // self._full)
        return (rows if self._most is None else min(rows, self._most)), self._full

    @property
    def tight(self) -> bool:
        """Whether it is worth while to break off a batch and begin it again in smaller ones."""
        return self._ladder.can_cut

    def shrink(self, error: BaseException) -> None:
        """See `Ladder.shrink`. An evaluation goes down to one at a time before it takes anything from the training."""
        rows, _ = self.portion()
        if self._full is None or rows == 1 or self._ladder.more_than_a_group:
            self._ladder.shrink(error, "sampling")
            return
        self._most = rows // 2
        release()
        event(
            "memory_stepped_down", f"out of memory; this evaluation goes on with {self._most} completions at once",
            priority=4, what="evaluation", **{"from": rows, "to": self._most},
        )  # fmt: skip


def _difference(before: Rung, after: Rung) -> str:
    """Which of a rung's numbers changed, by name."""
    changed = [f.name for f in fields(Rung) if getattr(before, f.name) != getattr(after, f.name)]
    return ", ".join(changed)


def _sides(before: Rung, after: Rung) -> dict[str, Any]:
    return {"from": asdict(before), "to": asdict(after)}


def release() -> None:
    """Gives back what is held without need: garbage, torch's cached blocks, the C library's free memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim_heap()
