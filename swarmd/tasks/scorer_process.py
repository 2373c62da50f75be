"""The scorer process ("zygote"): imports reasoning-gym once, and forks a sandboxed worker for each batch of answers.

It is started by swarmd.tasks.scorer and talks with it over a link:
  to the parent, once:     {"ready": pid} or {"failed": message}
  from the parent:         {"id", "limits": [cpu_s, wall_s, memory_bytes], "budget": seconds,
                            "tasks": [[dataset, packed task]], "items": [[index of the task, answer]]}
  to the parent, repeated: {"id", "reports": [[value, reason]], "done": bool}; empty reports are signs of life
Imports, the dataset's tables and the scorers' construction (up to half a second each) are paid once; a worker costs
a fork. Untrusted text passes through here as msgpack strings that nobody looks into.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from swarmd.system.child import adopt_parent
from swarmd.system.exits import EXIT_CONFIG, EXIT_OK, ConfigurationError
from swarmd.system.link import Link, LinkClosed, LinkTimeout
from swarmd.system.sandbox import enter_zygote_sandbox
from swarmd.system.startup import assert_recursion_limit, prepare_process
from swarmd.tasks.packing import pack_task
from swarmd.tasks.scorable import check_scorable
from swarmd.tasks.scorer_worker import Item, ScoringFunction, Worker, prepare_workers
from swarmd.tasks.verdicts import BUDGET, CRASH, MEMORY, SCORED, TIMEOUT, Report, ScoreLimits

_HEARTBEAT_SECONDS = 0.5
_SEND_SECONDS = 10.0
_IDLE_SECONDS = 3600.0


@functools.cache
def scorer_of(dataset: str) -> ScoringFunction:
    """The function that scores the dataset's answers: ours, or reasoning-gym's own with its default configuration.

    Raises UnscorableDataset.
    """
    from reasoning_gym.factory import get_score_answer_fn

    from swarmd.tasks.safe_scorers import SAFE_SCORERS

    check_scorable(dataset)
    if dataset in SAFE_SCORERS:
        return SAFE_SCORERS[dataset]
    return get_score_answer_fn(dataset)


class Answers:
    """The way back to the parent: reports are collected and sent together, at least every half second."""

    def __init__(self, link: Link, number: int) -> None:
        self._link = link
        self._number = number
        self._reports: list[tuple[float, str]] = []
        self._sent = time.monotonic()

    def add(self, report: Report) -> None:
        self._reports.append((report.value, report.reason))

    def keep_alive(self) -> float:
        """Sends what there is when it is time; returns the seconds until it will be time again."""
        left = self._sent + _HEARTBEAT_SECONDS - time.monotonic()
        if left > 0:
            return left
        self.send()
        return _HEARTBEAT_SECONDS

    def send(self, done: bool = False) -> None:
        self._link.send({"id": self._number, "reports": self._reports, "done": done}, _SEND_SECONDS)
        self._reports = []
        self._sent = time.monotonic()


def score_batch(items: Sequence[Item], limits: ScoreLimits, answers: Answers) -> None:
    """Scores the items in order, in one worker, or in another one after each that had to be ended."""
    deadline = time.monotonic() + limits.budget_s
    position = 0
    while position < len(items):
        worker = Worker(items, position, limits)
        try:
            position = watch(worker, range(position, len(items)), deadline, answers)
            if position == len(items):
                # Before the worker is ended: the parent shall not wait for that.
                answers.send(done=True)
        finally:
            worker.close()


def watch(worker: Worker, indices: range, deadline: float, answers: Answers) -> int:
    """Collects the reports of one worker; returns the index of the first answer that another one has to score."""
    for index in indices:
        report = None
        while report is None:
            if time.monotonic() > deadline:
                for late in range(index, indices.stop):
                    answers.add(Report(late, 0.0, BUDGET))
                return indices.stop
            report = worker.report(answers.keep_alive())
        if report.reason == MEMORY and index > indices.start:
            return index  # perhaps it lacked what those before it took: once more, in a worker of its own
        answers.add(report)
        if report.reason in (MEMORY, TIMEOUT, CRASH):
            return index + 1
    return indices.stop


def unpack_request(request: Any) -> tuple[list[Item], ScoreLimits]:
    """The batch in a request of the parent. Raises KeyError, TypeError, ValueError or IndexError for any other."""
    cpu_s, wall_s, memory_bytes = request["limits"]
    limits = ScoreLimits(cpu_s=cpu_s, wall_s=wall_s, memory_bytes=memory_bytes, budget_s=request["budget"])
    tasks = request["tasks"]
    items = [Item(scorer_of(tasks[task][0]), tasks[task][1], answer) for task, answer in request["items"]]
    return items, limits


def freeze_heap() -> None:
    """Takes all present objects out of garbage collection, which would copy every page that the workers share."""
    gc.collect()
    gc.freeze()


def serve(link: Link) -> NoReturn:
    """Scores one batch after the other until the parent closes the link."""
    while True:
        try:
            request = link.receive(_IDLE_SECONDS)
        except LinkTimeout:
            continue
        built = scorer_of.cache_info().currsize
        items, limits = unpack_request(request)
        if scorer_of.cache_info().currsize > built:
            freeze_heap()
        score_batch(items, limits, Answers(link, request["id"]))


def check_worker(trial: Item) -> None:
    """Raises ConfigurationError where a worker cannot score an answer that is right."""
    worker = Worker([trial], 0, ScoreLimits(wall_s=30.0))
    try:
        report = worker.report(30.0)
    finally:
        worker.close()
    if report != Report(0, 1.0, SCORED):
        raise ConfigurationError(
            f"the scorer's sandbox does not work on this machine: a worker in it ended with {report}"
        )


def main() -> int:
    prepare_process()
    try:
        link = adopt_parent()
    except ProcessLookupError:  # it has ended before this process began
        return EXIT_OK
    try:
        trial = Item(scorer_of("chain_sum"), pack_task("1", {}), "1")  # imports reasoning-gym
        assert_recursion_limit()
        prepare_workers()
        enter_zygote_sandbox()
        freeze_heap()
        check_worker(trial)
    except ConfigurationError as error:
        link.send({"failed": str(error)}, _SEND_SECONDS)
        return EXIT_CONFIG
    link.send({"ready": os.getpid()}, _SEND_SECONDS)
    try:
        serve(link)
    except LinkClosed:  # the parent has ended, or has no more use for this process
        return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
