"""What outlives the process: the trainer's weights and counters, the curves, and the way back after a collapse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from swarmd.game.checkpoint import CheckpointFailed, CheckpointStore
from swarmd.game.checkpoint_files import Checkpoint
from swarmd.game.evaluation import collapsed
from swarmd.game.history import BASE_ROUND, HeldoutRow, History
from swarmd.system.events import event
from swarmd.system.exits import ConfigurationError
from swarmd.training.weights import WeightsError

# After a collapse the learning rate is halved, but not for ever: below this share nothing would be learned.
_LOWER = 0.5
_LOWEST_SCALE = 1 / 64


class Learner(Protocol):
    """The trainer's side of a checkpoint."""

    learning_rate_scale: float

    def save(self, directory: Path) -> dict[str, Any]:
        """Writes weights and optimizer as files, returns the counters."""

    def restore(self, directory: Path, counters: dict[str, Any]) -> None:
        """The way back; the learning-rate scale is not touched."""


@dataclass(frozen=True)
class Best:
    """The best held-out score so far (mean reward at the training temperature) and the round it was reached after."""

    round: int
    score: float


class CollapseStop(ConfigurationError):
    """Learning collapsed and training.on_collapse is `stop`."""


class Keeper:
    """Saves after each round, restores at the start, keeps the best weights, and rolls back after a collapse.

    start_over(): puts the base model back into the learner, for a collapse before anything better was reached.
    model_name: what the checkpoints belong to; on_collapse: rollback, stop or ignore; every: rounds between two
    checkpoints (both may be changed at any time); yardstick: stands for what held-out scores are measured on and how,
    since scores of different measurements cannot be compared.
    """

    def __init__(
        self,
        store: CheckpointStore,
        history: History,
        learner: Learner,
        start_over: Callable[[], None],
        model_name: str,
        on_collapse: str,
        every: int,
        yardstick: str = "",
    ) -> None:
        self._store = store
        self._history = history
        self._learner = learner
        self._start_over = start_over
        self._model_name = model_name
        self.on_collapse = on_collapse
        self.every = every
        self._yardstick = yardstick
        self._last_done: int | None = None
        self.saved: Checkpoint | None = None
        self._failing = False
        self.best: Best | None = None
        self.last_evaluated: int | None = None

    def restore(self) -> int | None:
        """Takes up the newest intact checkpoint; the last finished round, or None where there is none.

        Raises:
            ConfigurationError: the checkpoints are another model's.
        """
        checkpoint = self._store.latest()
        if checkpoint is None:
            self._history.truncate_after(BASE_ROUND)
            return None
        kept = checkpoint.state.get("model")
        if kept != self._model_name:
            raise ConfigurationError(
                f"{checkpoint.path} holds the training of model {kept}, and model.name is {self._model_name}; "
                f"set model.name back to {kept}, or start anew with another --state DIR"
            )
        self._take(checkpoint)
        self._history.truncate_after(checkpoint.round)
        self._last_done, self.saved = checkpoint.round, checkpoint
        event("checkpoint_restored", f"going on after round {checkpoint.round}, from {checkpoint.path}",
              round=checkpoint.round, directory=str(checkpoint.path))
        if checkpoint.state.get("yardstick", "") != self._yardstick:
            # The tasks or the way of scoring have changed: what was reached before is no measure for what comes.
            return checkpoint.round
        heldout = self._history.heldout()
        # The curves may have been damaged and begun anew; then the checkpoint alone knows what was reached.
        known = [Best(heldout.best.round, heldout.best.sampled)] if heldout.best else []
        if kept_best := checkpoint.state.get("best"):
            known.append(Best(int(kept_best["round"]), float(kept_best["score"])))
        self.best = max(known, key=lambda best: best.score, default=None)
        self.last_evaluated = heldout.last.round if heldout.last else None
        return checkpoint.round

    def measure_with(self, yardstick: str) -> bool:
        """From now on held-out scores are measured so; whether that is a change. The best so far then says nothing."""
        changed = yardstick != self._yardstick
        if changed:
            self._yardstick, self.best, self.last_evaluated = yardstick, None, None
        return changed

    def round_done(self, round: int) -> None:
        """Saves, if this round's turn has come. A full disk is reported, once, and training goes on."""
        self._last_done = round
        if self.saved is None or round - self.saved.round >= self.every:
            self.save_now()

    def save_now(self, *, sync: bool | None = None) -> None:
        """Saves the last finished round, if there is one that isn't saved yet."""
        if self._last_done is None or (self.saved is not None and self.saved.round == self._last_done):
            return
        self._save(self._last_done, sync)

    def flush(self) -> None:
        """At the end: saves what is not saved and makes it outlive a power cut."""
        self.save_now(sync=True)
        try:
            self._store.flush()
        except CheckpointFailed as error:
            event("checkpoint_failed", str(error), priority=3)

    def evaluated(self, row: HeldoutRow) -> None:
        """Takes note of a held-out score: a new best is kept, a collapse is answered as configured.

        Raises:
            CollapseStop: it collapsed and on_collapse is `stop`.
        """
        self._history.record_heldout(row)
        if self.best is None or row.sampled > self.best.score:
            self.best = Best(row.round, row.sampled)
            if self.saved is not None and self.saved.round == row.round:
                try:
                    self._store.pin(self.saved)
                except CheckpointFailed as error:
                    event("checkpoint_failed", f"the best weights are not kept: {error}", priority=4)
        elif collapsed(row.sampled, self.best.score, row.samples):
            best = self.best
            when = f"after round {best.round}" if best.round > BASE_ROUND else "before training"
            self._answer_collapse(
                row.round,
                f"learning collapsed: held-out score {row.sampled:.3f} after round {row.round}, "
                f"best {best.score:.3f} {when}",
                {"round": row.round, "score": row.sampled, "best": best.score, "best_round": best.round},
            )

    def weights_broken(self, round: int, error: FloatingPointError) -> None:
        """The model gives numbers that are not finite: answered as a collapse, for no later round would mend it.

        Raises:
            CollapseStop: on_collapse is `stop`, or `ignore`, which cannot be done here.
        """
        self._last_done = round
        told = f"learning collapsed in round {round}: {error}"
        if self.on_collapse != "rollback":
            raise CollapseStop(f"{told}; training.on_collapse is {self.on_collapse}, and the weights are of no use")
        self._answer_collapse(round, told, {"round": round})

    def _answer_collapse(self, round: int, told: str, fields: dict[str, Any]) -> None:
        if self.on_collapse == "stop":
            raise CollapseStop(f"{told}; stopped because training.on_collapse is stop")
        if self.on_collapse == "ignore":
            going_on = "going on because training.on_collapse is ignore"
            event("learning_collapsed", f"{told}; {going_on}", priority=4, **fields)
            return
        scale = max(_LOWEST_SCALE, self._learner.learning_rate_scale * _LOWER)
        checkpoint = self._store.best()
        if checkpoint is not None:
            self._learner.restore(checkpoint.path, checkpoint.state["learner"])
            back = f"the weights of round {checkpoint.round}"
        else:
            self._start_over()
            back = "the base model"
        self._learner.learning_rate_scale = scale
        event("learning_collapsed", f"{told}; back to {back}, learning rate now {scale:g} of the configured",
              priority=4, scale=scale, **fields)
        self._save(round, sync=True)

    def _save(self, round: int, sync: bool | None) -> None:
        def write(directory: Path) -> dict[str, Any]:
            return {
                "model": self._model_name,
                "learner": self._learner.save(directory),
                "learning_rate_scale": self._learner.learning_rate_scale,
                "best": asdict(self.best) if self.best is not None else None,
                "yardstick": self._yardstick,
            }

        try:
            self.saved = self._store.save(round, write, sync=sync)
        except CheckpointFailed as error:
            # Told once an outage, not five times a second.
            if not self._failing:
                event("checkpoint_failed", f"{error}; training goes on, the last good one is "
                      f"{self.saved.path if self.saved else 'none'}", priority=3, round=round)
            self._failing = True
        else:
            if self._failing:
                event("checkpoint_saved", f"checkpoints can be written again: {self.saved.path}", round=round)
            self._failing = False

    def _take(self, checkpoint: Checkpoint) -> None:
        try:
            self._learner.restore(checkpoint.path, checkpoint.state["learner"])
        except (WeightsError, KeyError) as error:
            raise ConfigurationError(
                f"{checkpoint.path} does not fit the model {self._model_name} as it is now configured: {error}; undo "
                "the last change of model.name (or of the model's files), or start anew "
                "with another --state DIR"
            ) from None
        self._learner.learning_rate_scale = float(checkpoint.state.get("learning_rate_scale", 1.0))
