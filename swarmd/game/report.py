"""What is told of a round: a line in the journal, a row in the curves, the status file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from swarmd.game.history import BASE_ROUND, HeldoutRow, History, RoundRow
from swarmd.game.keeper import Keeper
from swarmd.monitor.status import (
    ENDED,
    CheckpointStatus,
    ChildStatus,
    HeldoutStatus,
    MemoryStatus,
    RewardStatus,
    Status,
    StatusFile,
)
from swarmd.system.events import event
from swarmd.system.memory import rss_bytes

_MIB = 1024 * 1024
# The status file is as old as this at most while something happens, and else, when only time and memory change.
_SHOWN_SECONDS = 0.5
_REFRESHED_SECONDS = 5.0


class Reporter:
    """The game's audience.

    before: the status as the daemon knows it at the start (name, model, memory limit and prediction).
    children(): the child processes as they are now.

    A thread writes the status file: rounds come many a second, and a phase may last for hours, so that neither each
    change nor only the next one would do.
    """

    def __init__(
        self,
        before: Status,
        file: StatusFile,
        history: History,
        keeper: Keeper,
        children: Callable[[], Mapping[str, ChildStatus]],
    ) -> None:
        self._status = before
        self._file = file
        self._history = history
        self._keeper = keeper
        self._children = children
        self._begun = time.monotonic()
        self._peak = 0
        self._shown: Status | None = None
        self._shown_at = 0.0
        self._showing = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._keep_showing, name="status", daemon=True).start()

    def phase(self, phase: str) -> None:
        """Called at the beginning of each phase, and with "" at its end."""
        if phase:
            self._status = replace(self._status, phase=phase)

    def state(self, state: str) -> None:
        """The node begins, trains, stops, ...: written at once."""
        self._status = replace(self._status, state=state, phase="")
        if state in ENDED:
            self._ended.set()
        self._show()

    def round_played(self, row: RoundRow) -> None:
        self._history.record_round(row)

    def round_done(self, row: RoundRow) -> None:
        self._status = replace(
            self._status,
            round=row.round,
            rounds_done=self._status.rounds_done + 1,
            reward=RewardStatus(last=row.reward, mean_100=self._history.mean_100()),
            signal_share=row.signal_share,
            tokens_per_s=row.tokens_per_s,
        )
        seconds = " ".join(f"{phase} {spent:.2f}" for phase, spent in row.seconds.items())
        event(
            "round_finished",
            f"round {row.round}: reward {_shown(row.reward, '.3f')}, signal {_shown(row.signal_share, '.0%')}, "
            f"loss {_shown(row.loss, '+.4f')}, {row.tokens} tokens at {_shown(row.tokens_per_s, '.0f')}/s, "
            f"{row.rss_bytes // _MIB} MiB; seconds: {seconds}",
            round=row.round,
            reward=row.reward,
            signal_share=row.signal_share,
            loss=row.loss,
            grad_norm=row.grad_norm,
            tokens=row.tokens,
            tokens_per_s=row.tokens_per_s,
            rss_bytes=row.rss_bytes,
            seconds=dict(row.seconds),
        )

    def evaluated(self, row: HeldoutRow) -> None:
        summary = self._history.heldout()
        self._status = replace(
            self._status,
            heldout=HeldoutStatus(
                base=summary.base.sampled if summary.base else None,
                last=row.sampled,
                best=summary.best.sampled if summary.best else None,
                round=row.round,
            ),
        )
        base = f", base {summary.base.sampled:.3f}" if summary.base and summary.base.round != row.round else ""
        best = f", best {summary.best.sampled:.3f} {_when(summary.best.round)}" if summary.best else ""
        datasets = ", ".join(f"{name} {score:.2f}" for name, score in row.datasets.items())
        event(
            "evaluated",
            f"held-out score {_when(row.round)}: {row.sampled:.3f} sampled, {_shown(row.greedy, '.3f')} greedy "
            f"over {row.samples} tasks{base}{best} ({datasets})",
            priority=5,
            round=row.round,
            sampled=row.sampled,
            greedy=row.greedy,
            samples=row.samples,
        )

    def _keep_showing(self) -> None:
        while not self._ended.wait(_SHOWN_SECONDS):
            self._peak = max(self._peak, self._used())
            if self._status is not self._shown or time.monotonic() - self._shown_at > _REFRESHED_SECONDS:
                self._show()

    def _show(self) -> None:
        with self._showing:
            self._shown, self._shown_at = self._status, time.monotonic()
            used, memory, saved = self._used(), self._shown.memory, self._keeper.saved
            self._peak = max(self._peak, used)
            status = replace(
                self._shown,
                uptime_s=round(time.monotonic() - self._begun, 1),
                memory=MemoryStatus(used, memory.limit, self._peak, memory.predicted),
                checkpoint=CheckpointStatus(saved.round, str(saved.path), saved.saved) if saved else None,
                children=self._children(),
            )
            self._file.write(status, force=True)

    def _used(self) -> int:
        return rss_bytes() + sum(_rss_of_child(child.pid) for child in self._children().values())


def _when(round: int) -> str:
    return f"after round {round}" if round > BASE_ROUND else "before training"


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _rss_of_child(pid: int) -> int:
    try:
        return rss_bytes(pid)
    except ProcessLookupError:
        return 0  # it ended just now and is about to be replaced
