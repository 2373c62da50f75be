"""An environment for nodes that are to hang: reasoning-gym's, in a process some of whose functions never return.

    tasks.environment: tests.integration.hanging:factory
    $HANG_IN: a phase, "start", "between" (two phases), or "admit with the log" (while it holds the log's lock)
    $HANG_NOTE: file that gets the monotonic time at which it began to hang
    $HANG_SECONDS: for so long, not for ever
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swarmd.coordination.solo import SoloCoordinator
from swarmd.game.checkpoint import CheckpointStore
from swarmd.network.alone import Alone
from swarmd.system.events import context
from swarmd.tasks.environment import Environment, EnvironmentContext
from swarmd.tasks.reasoning import ReasoningData, reasoning_environment
from swarmd.tasks.rewards import ReasoningRewards
from swarmd.training import generation, gradient

PLACES: dict[str, tuple[Any, str]] = {
    "coordinate": (SoloCoordinator, "next_round"),
    "generate": (generation, "_choose"),
    "share": (Alone, "all_gather_object"),
    "admit": (ReasoningRewards, "update_rewards"),
    "train": (gradient, "token_logprobs"),
    "checkpoint": (CheckpointStore, "save"),
    "evaluate": (generation, "_choose"),
    "between": (ReasoningData, "begin_round"),
}


def hang_here() -> None:
    Path(os.environ["HANG_NOTE"]).write_text(str(time.monotonic()))
    time.sleep(float(os.environ.get("HANG_SECONDS", "3600")))


def hangs(works: Callable[..., Any], phase: str | None, hang: Callable[[], None]) -> Callable[..., Any]:
    def hanging(*arguments: Any, **named: Any) -> Any:
        if context().get("phase") == phase:
            hang()
        return works(*arguments, **named)

    return hanging


def with_the_log() -> None:
    with logging.getLogger("swarmd").handlers[0].lock:  # type: ignore[union-attr]
        hang_here()


def factory(settings: Any, known: EnvironmentContext) -> Environment:
    phase = os.environ["HANG_IN"]
    if phase == "start":
        hang_here()
    else:
        name = phase.split()[0]
        owner, function = PLACES[name]
        hang = with_the_log if phase.endswith("with the log") else hang_here
        setattr(owner, function, hangs(getattr(owner, function), None if name == "between" else name, hang))
    return reasoning_environment(settings, known)
