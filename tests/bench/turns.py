"""Long runs in turns: some rounds each, a few at once, each kept when it ends, so that they may be broken off."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

TurnT = TypeVar("TurnT")

PROGRESS_FILE = "progress.json"


@dataclass
class Progress:
    """Where a run is. counters: of each node's trainer, with its files in the folder `round-N`. curve: a row an
    evaluation: round, sampled and greedy of each node, counts of the rounds since the row before."""

    round: int = 0
    counters: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    cpu_seconds: float = 0.0


def play_all(
    turns: Iterator[TurnT], play: Callable[[TurnT], str], workers: int, minutes: float | None = None
) -> None:
    """Plays the turns in their order, `workers` at once, each in a process of its own kind; tells what each returns.

    minutes: begin no turn that would not end by then; None: play all.
    """
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    longest = 0.0
    waiting: dict[Future[str], float] = {}
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        while True:
            while len(waiting) < workers:
                if deadline is not None and time.monotonic() + 1.1 * longest > deadline:
                    break
                if (turn := next(turns, None)) is None:
                    break
                waiting[pool.submit(play, turn)] = time.monotonic()
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                longest = max(0.8 * longest, time.monotonic() - waiting.pop(future))
                say(future.result())


def settled(work: Path, settings: dict[str, Any]) -> bool:
    """Whether the folder's runs, if there are any, were made with these settings; it is theirs from now on."""
    kept = work / "settings.json"
    if kept.exists() and json.loads(kept.read_text()) != settings:
        names = ", ".join(f"--{name}" for name in settings)
        say(f"{work} holds runs with {kept.read_text()}; give the same {names}, or another --work")
        return False
    write(kept, settings)
    return True


def progress_of(folder: Path) -> Progress:
    kept = folder / PROGRESS_FILE
    return Progress(**json.loads(kept.read_text())) if kept.exists() else Progress()


def write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(content))
    beside.replace(path)


def told(sampled: list[float], greedy: list[float]) -> str:
    return f"held-out {sum(sampled) / len(sampled):.3f} sampled, {sum(greedy) / len(greedy):.3f} greedy"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
