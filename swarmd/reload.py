"""Reading the configuration anew while the node runs: what changes at once, and what waits for the next start."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swarmd.assembly import yardstick_of
from swarmd.config import Config, ConfigErrors, load_config
from swarmd.game.evaluation import Evaluator, Pace
from swarmd.game.keeper import Keeper
from swarmd.system.events import configure_logging, event
from swarmd.system.exits import ConfigurationError
from swarmd.system.watchdog import Watchdog
from swarmd.training.choices import base_learning_rate
from swarmd.training.trainer import GRPOTrainer
from swarmd.unbuilt import refuse_what_is_not_built

# What a round reads of the recipe that neither sizes the memory plan nor belongs to the optimizer's state.
_SAMPLING_AND_STEP = ("temperature", "warmup_rounds", "clip_low", "clip_high", "max_grad_norm")
_LIVE_TRAINING = (*_SAMPLING_AND_STEP, "learning_rate", "evaluate_every", "checkpoint_every", "on_collapse")


@dataclass(frozen=True)
class Change:
    """What a new configuration changes.

    in_force: the old one with what can change at once. applied: the keys of that, with old and new value.
    later: the keys that take effect at the next start.
    """

    in_force: Config
    applied: Mapping[str, tuple[Any, Any]]
    later: tuple[str, ...]


def compare(old: Config, new: Config) -> Change:
    """The change from one configuration to another."""
    applied: dict[str, tuple[Any, Any]] = {}
    later: list[str] = []
    sections: dict[str, Any] = {}
    for name in Config.model_fields:
        before, after = getattr(old, name), getattr(new, name)
        live: dict[str, Any] = {}
        for key in type(before).model_fields:
            was, becomes = getattr(before, key), getattr(after, key)
            if was == becomes:
                continue
            if _is_live(name, key):
                live[key] = becomes
                applied[f"{name}.{key}"] = (was, becomes)
            else:
                later.append(f"{name}.{key}")
        sections[name] = before.model_copy(update=live)
    return Change(old.model_copy(update=sections), applied, tuple(later))


def _is_live(section: str, key: str) -> bool:
    return section in ("watchdog", "log") or (section == "training" and key in _LIVE_TRAINING)


class Reload:
    """Reads the configuration from where it came from and has it applied.

    config: the one in force. apply(config): puts what can change at once into effect.
    """

    def __init__(self, config: Config, path: Path | None, apply: Callable[[Config], None]) -> None:
        self.config = config
        self._path = path
        self._apply = apply

    def run(self) -> str:
        """One reload, told in the journal.

        Returns what people should go on to see in the status: why the new configuration was refused, "" if it was not.
        """
        try:
            new = load_config(self._path, os.environ)
            refuse_what_is_not_built(new)
        except ConfigErrors as errors:
            return _refused([str(problem) for problem in errors.problems])
        except ConfigurationError as error:
            return _refused([str(error)])
        change = compare(self.config, new)
        self.config = change.in_force
        self._apply(change.in_force)
        event(
            "reloaded",
            f"configuration read anew: {_told(change)}",
            priority=5,
            applied={key: str(after) for key, (_, after) in change.applied.items()},
            later=list(change.later),
        )
        return ""


def _refused(reasons: list[str]) -> str:
    event(
        "reload_refused",
        f"the configuration cannot be used, the one before stays in force: {'; '.join(reasons)}",
        priority=3,
        reasons=reasons,
    )
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return f"reload refused: {reasons[0]}{more}"


def _told(change: Change) -> str:
    parts = [f"{key} is now {after} (was {before})" for key, (before, after) in change.applied.items()]
    if change.later:
        parts.append(f"takes effect at the next start: {', '.join(change.later)}")
    return "; ".join(parts) or "nothing has changed"


@dataclass(frozen=True)
class LiveParts:
    """The parts of a running node that a new configuration reaches."""

    model_name: str
    trainer: GRPOTrainer
    evaluator: Evaluator
    keeper: Keeper
    pace: Pace
    watchdog: Watchdog

    def apply(self, config: Config) -> None:
        """Puts into effect what can change at once; the rest of `config` must be as it was."""
        training = config.training
        configure_logging(config.log.level)
        self.watchdog.deadlines = config.watchdog.model_dump()
        self.trainer.recipe = replace(
            self.trainer.recipe,
            learning_rate=base_learning_rate(training, self.model_name),
            **{name: getattr(training, name) for name in _SAMPLING_AND_STEP},
        )
        self.pace.rounds = None if training.evaluate_every == "auto" else training.evaluate_every
        self.keeper.every = training.checkpoint_every
        self.keeper.on_collapse = training.on_collapse
        self.evaluator.temperature = training.temperature
        if self.keeper.measure_with(yardstick_of(config, self.model_name)):
            self.pace.hurry()
