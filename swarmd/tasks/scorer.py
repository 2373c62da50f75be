"""Scoring completions: the client of the scorer process, for use in the main process.

Completions are strangers' text, our own model's included. This process only looks for the answer's tags in them; all
that takes the answer apart happens in the scorer process, under limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from swarmd.system.child import Child, ChildKeeper, start_child
from swarmd.system.exits import ConfigurationError
from swarmd.system.link import LinkError, LinkProtocolError, LinkTimeout
from swarmd.tasks.answers import MAX_ANSWER_CHARS, extract_answer
from swarmd.tasks.packing import UnpackableTask, pack_task
from swarmd.tasks.scorable import SCORABLE
from swarmd.tasks.verdicts import (
    CRASH,
    NO_ANSWER,
    REASONS,
    REFUSED,
    TOO_LONG,
    UNSENDABLE,
    ScoreLimits,
)

_START_SECONDS = 120.0
_SEND_SECONDS = 10.0
_BATCH_ITEMS = 256
_BATCH_BYTES = 8 * 1024 * 1024
_LONGEST_TASK = 16 * 1024 * 1024

# The numerical libraries start a thread per core when they are imported; the scorer forks, and needs none.
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # The order of sets of strings must not make two nodes score one answer differently.
    "PYTHONHASHSEED": "0",
}


@dataclass(frozen=True)
class ScoreRequest:
    """A completion, and the task it was written for: answer and metadata as reasoning-gym gives them."""

    dataset: str
    completion: str
    answer: str | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Score:
    """value: the reward, 0 to 1. reason: "" when it was scored, else why it was not (and is 0): see verdicts.py."""

    value: float
    reason: str


@dataclass(frozen=True)
class _Pending:
    """A request that goes to the child: its position in the caller's list, and what the child needs of it."""

    position: int
    dataset: str
    task: bytes
    answer: str


class Scorer:
    """Scores completions in a child process, which is replaced when it dies or hangs. A context manager.

    For use by one thread, which must live as long as the scorer.
    """

    def __init__(self, limits: ScoreLimits | None = None, beat: Callable[[], None] = lambda: None) -> None:
        """beat: called whenever the child answers."""
        self._limits = limits or ScoreLimits()
        self._beat = beat
        self._keeper = ChildKeeper("scorer", self._start)
        self._calls = 0

    def __enter__(self) -> Self:
        """Starts the child. Raises ConfigurationError where it cannot be confined, LinkError where it dies."""
        self._keeper.get()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child."""
        self._keeper.close()

    @property
    def pid(self) -> int | None:
        """The child's process id; None between two children."""
        return self._keeper.pid

    @property
    def restarts(self) -> int:
        """How often the child had to be replaced."""
        return self._keeper.restarts

    def score(self, requests: Sequence[ScoreRequest], budget_s: float | None = None) -> list[Score]:
        """One score for each request, in their order; nothing in a request makes this raise.

        Takes at most budget_s (None: limits.budget_s), and the time of one replacement of the child; what is not
        scored by then gets the reason "budget". If the child fails twice, what it has not scored gets the reason
        "crash".
        Raises ConfigurationError where a new child cannot be confined.
        """
        scores: dict[int, Score] = {}
        pending: list[_Pending] = []
        packed: dict[tuple[int, str | None], bytes] = {}
        for position, request in enumerate(requests):
            prepared = _prepare(position, request, packed)
            if isinstance(prepared, Score):
                scores[position] = prepared
            else:
                pending.append(prepared)
        budget = self._limits.budget_s if budget_s is None else budget_s
        for _attempt in range(2):
            if not pending:
                break
            try:
                child = self._keeper.get()
            except (LinkError, OSError):
                continue  # the next attempt waits before it starts another one
            started = time.monotonic()
            try:
                for batch in _batches(pending):
                    self._score_batch(child, batch, started + budget, scores)
            except LinkError as error:
                self._keeper.discard(str(error))
            budget -= time.monotonic() - started
            pending = [item for item in pending if item.position not in scores]
        return [scores.get(position, Score(0.0, CRASH)) for position in range(len(requests))]

    def _score_batch(self, child: Child, batch: Sequence[_Pending], deadline: float, scores: dict[int, Score]) -> None:
        """Adds the scores of a batch, as they come. Raises LinkError when the child fails."""
        self._calls += 1
        tasks: dict[tuple[str, bytes], int] = {}
        items = [[tasks.setdefault((item.dataset, item.task), len(tasks)), item.answer] for item in batch]
        limits = self._limits
        request = {
            "id": self._calls,
            "limits": [limits.cpu_s, limits.wall_s, limits.memory_bytes],
            "budget": max(0.0, deadline - time.monotonic()),
            "tasks": list(tasks),
            "items": items,
        }
        child.link.send(request, _SEND_SECONDS)
        waiting = iter(batch)
        done = False
        while not done:
            reports, done = _reply(child.link.receive(limits.silence_s), self._calls)
            self._beat()
            for score in reports:
                item = next(waiting, None)
                if item is None:
                    raise LinkProtocolError("more scores than answers")
                scores[item.position] = score
            if not done and time.monotonic() > deadline + limits.silence_s:
                raise LinkTimeout("the scorer does not keep to its budget")
        if next(waiting, None) is not None:
            raise LinkProtocolError("fewer scores than answers")

    def _start(self) -> Child:
        child = start_child("scorer", "swarmd.tasks.scorer_process", _ENVIRONMENT)
        try:
            greeting = child.link.receive(_START_SECONDS)
        except BaseException:
            child.kill()
            raise
        match greeting:
            case {"ready": int()}:
                return child
            case {"failed": str(message)}:
                child.kill()
                raise ConfigurationError(message)
        child.kill()
        raise LinkProtocolError("the scorer process began with something else than its greeting")


def _prepare(position: int, request: ScoreRequest, packed: dict[tuple[int, str | None], bytes]) -> _Pending | Score:
    """What the child needs to score the request, or the score of what needs no scoring.

    packed: the tasks packed so far in this call, by the identity of their metadata: a group of completions
    shares one task.
    """
    if request.dataset not in SCORABLE:
        return Score(0.0, REFUSED)
    answer = extract_answer(request.completion)
    if answer is None:
        return Score(0.0, NO_ANSWER)
    if len(answer) > MAX_ANSWER_CHARS:
        return Score(0.0, TOO_LONG)
    key = id(request.metadata), request.answer
    if key not in packed:
        try:
            packed[key] = pack_task(request.answer, request.metadata)
        except UnpackableTask:
            return Score(0.0, UNSENDABLE)
    if len(packed[key]) > _LONGEST_TASK:
        return Score(0.0, UNSENDABLE)
    return _Pending(position, request.dataset, packed[key], answer)


def _batches(pending: Sequence[_Pending]) -> Iterator[list[_Pending]]:
    batch: list[_Pending] = []
    size = 0
    for item in pending:
        if batch and (len(batch) >= _BATCH_ITEMS or size + len(item.task) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        # Tasks that are shared count once.
        size += 0 if batch and batch[-1].task is item.task else len(item.task)
        batch.append(item)
    if batch:
        yield batch


def _reply(message: Any, number: int) -> tuple[list[Score], bool]:
    """The scores in a message of the child, and whether they are the last. Raises LinkProtocolError.

    Messages on an earlier call, which was interrupted, bring none.
    """
    match message:
        case {"id": int(call), "reports": list(reports), "done": bool(done)}:
            if call != number:
                return [], False
            return [_score(report) for report in reports], done
    raise LinkProtocolError("a message of another form")


def _score(report: Any) -> Score:
    match report:
        case [float(value), str(reason)] if 0.0 <= value <= 1.0 and reason in REASONS:
            return Score(value, reason)
    raise LinkProtocolError("a score of another form")
