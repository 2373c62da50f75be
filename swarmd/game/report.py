"""What is told of a round: a line in the journal, a row in the curves, the status file."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from swarmd.game.history import BASE_ROUND, HeldoutRow, History, RoundRow
from swarmd.game.history_exchange import ExchangeRow
from swarmd.game.keeper import Keeper
from swarmd.monitor.status import (
    ENDED,
    CheckpointStatus,
    ChildStatus,
    HeldoutStatus,
    MemoryStatus,
    NetworkStatus,
    PeersStatus,
    RewardStatus,
    Status,
    StatusFile,
)
from swarmd.monitor.summary import summary
from swarmd.network.refusals import Reason
from swarmd.system.events import event
from swarmd.system.memory import rss_bytes, rss_bytes_if_any

_MIB = 1024 * 1024
# The status file is as old as this at most while something happens, and else, when only time and memory change.
_SHOWN_SECONDS = 0.5
_REFRESHED_SECONDS = 5.0
# Each new line makes the service manager tell all who watch it.
_ANNOUNCED_SECONDS = 1.0


class Reporter:
    """The game's audience.

    before: the status as the daemon knows it at the start (name, model, memory limit and prediction).
    children(): the child processes as they are now.
    announce(line): takes the status in one line, about once a second while it changes.
    notice: what the line says besides; "" for nothing. May be set at any time.
    trouble(): why a node that trains is degraded, "" while it is not.
    network(): its place in the swarm, None where it is in none.

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
        announce: Callable[[str], None],
        trouble: Callable[[], str] = str,
        network: Callable[[], NetworkStatus | None] = lambda: None,
    ) -> None:
        self._status = before
        self._trouble = trouble
        self._network = network
        self._file = file
        self._history = history
        self._keeper = keeper
        self._children = children
        self._announce = announce
        self._announced = ""
        self._announced_at = -_ANNOUNCED_SECONDS
        self.notice = ""
        # Apart from the rest of the status: a signal handler sets it, and what it interrupts may be setting the rest.
        self._state = before.state
        self._begun = time.monotonic()
        self._peak = 0
        self._shown: tuple[str, Status] | None = None
        self._shown_at = 0.0
        self._showing = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._keep_showing, name="status", daemon=True).start()

    def phase(self, phase: str, round: int | None) -> None:
        """Called at the beginning of each phase, and with "" at its end; round: the one in work."""
        if phase:
            self._status = replace(self._status, phase=phase, round=self._status.round if round is None else round)

    def state(self, state: str) -> None:
        """The node begins, trains, ends: written at once. Of a node that failed it stays known in which phase."""
        self._state = state
        if state != "failed":
            self._status = replace(self._status, phase="")
        if state in ENDED:
            self._ended.set()
        self._show()

    def begin(self) -> None:
        """The start is over: it trains. Written soon."""
        self._state = "training"

    def stopping(self) -> None:
        """The node was asked to stop. For signal handlers: it takes no lock, and the thread writes it down."""
        self._state = "stopping"

    def line(self) -> str:
        """The status in one line."""
        return summary(self._now(), "; ".join(filter(None, (self._trouble(), self.notice))))

    def resumed(self, last_done: int | None) -> None:
        """What was reached before this start stands in the status from its beginning."""
        self._status = replace(self._status, round=last_done)
        if self._keeper.best is not None:  # else the scores of old are another measure's
            self._status = replace(self._status, heldout=self._heldout())

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
        if row.exchange is not None:
            self._exchanged(row.exchange)
        seconds = " ".join(f"{phase} {spent:.2f}" for phase, spent in row.seconds.items())
        event(
            "round_finished",
            f"round {row.round}: reward {_shown(row.reward, '.3f')}, signal {_shown(row.signal_share, '.0%')}, "
            f"loss {_shown(row.loss, '+.4f')}, {_of_peers(row.exchange)}{row.tokens} tokens at "
            f"{_shown(row.tokens_per_s, '.0f')}/s, {row.rss_bytes // _MIB} MiB; seconds: {seconds}",
            round=row.round,
            reward=row.reward,
            signal_share=row.signal_share,
            loss=row.loss,
            grad_norm=row.grad_norm,
            tokens=row.tokens,
            tokens_per_s=row.tokens_per_s,
            rss_bytes=row.rss_bytes,
            seconds=dict(row.seconds),
            **_exchange_fields(row.exchange),
        )
        if row.exchange is not None:
            _tell_rejected(row.round, row.exchange.rejected())

    def _exchanged(self, row: ExchangeRow) -> None:
        self._status = replace(
            self._status,
            peers=PeersStatus(row.seen, row.used),
            admitted=self._status.admitted + row.admitted,
            rejected=dict(Counter(self._status.rejected) + row.rejected()),
        )

    def evaluated(self, row: HeldoutRow) -> None:
        self._status = replace(self._status, heldout=self._heldout())
        known = self._history.heldout()
        base = f", base {known.base.sampled:.3f}" if known.base and known.base.round != row.round else ""
        best = f", best {known.best.sampled:.3f} {_when(known.best.round)}" if known.best else ""
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

    def _heldout(self) -> HeldoutStatus:
        known = self._history.heldout()
        return HeldoutStatus(
            base=known.base.sampled if known.base else None,
            last=known.last.sampled if known.last else None,
            best=known.best.sampled if known.best else None,
            round=known.last.round if known.last else None,
        )

    def _keep_showing(self) -> None:
        while not self._ended.wait(_SHOWN_SECONDS):
            self._peak = max(self._peak, self._used())
            now = time.monotonic()
            changed = self._shown is None or self._told() != self._shown
            if changed or now - self._shown_at > _REFRESHED_SECONDS:
                self._show()
            if now - self._announced_at >= _ANNOUNCED_SECONDS and (line := self.line()) != self._announced:
                self._announced, self._announced_at = line, now
                self._announce(line)

    def _show(self) -> None:
        with self._showing:
            self._shown, self._shown_at = self._told(), time.monotonic()
            self._file.write(self._now(), force=True)

    def _told(self) -> tuple[str, Status]:
        return f"{self._state} {self._trouble()}", self._status

    def _now(self) -> Status:
        status, used, saved = self._status, self._used(), self._keeper.saved
        self._peak = max(self._peak, used)
        return replace(
            status,
            state="degraded" if self._state == "training" and self._trouble() else self._state,
            uptime_s=round(time.monotonic() - self._begun, 1),
            memory=MemoryStatus(used, status.memory.limit, self._peak, status.memory.predicted),
            checkpoint=CheckpointStatus(saved.round, str(saved.path), saved.saved) if saved else None,
            children=self._children(),
            network=self._network(),
        )

    def _used(self) -> int:
        return rss_bytes() + sum(rss_bytes_if_any(child.pid) for child in self._children().values())


def _of_peers(row: ExchangeRow | None) -> str:
    """Their part of the round's line, "" without a swarm."""
    if row is None:
        return ""
    return f"peers {row.used}/{row.seen}, {row.peer_groups} group{'s' * (row.peer_groups != 1)}, "


def _exchange_fields(row: ExchangeRow | None) -> dict[str, Any]:
    if row is None:
        return {}
    return {
        "peers_seen": row.seen, "peers_used": row.used, "own_groups": row.own_groups, "peer_groups": row.peer_groups,
        "peer_reward": row.peer_reward, "admitted": row.admitted, "rejected": dict(row.rejected()),
    }  # fmt: skip


def _tell_rejected(round: int, rejected: Counter[str]) -> None:
    told = {reason: count for reason, count in sorted(rejected.items()) if reason != Reason.QUOTA_PEER}  # does no harm
    if told:
        reasons = ", ".join(f"{reason} {count}" for reason, count in told.items())
        event(
            "record_rejected", f"left out of what peers sent in round {round}: {reasons}", round=round, rejected=told,
            reason=reasons,
        )  # fmt: skip


def _when(round: int) -> str:
    return f"after round {round}" if round > BASE_ROUND else "before training"


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
