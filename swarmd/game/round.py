"""The game: one round after another, on GenRL's interfaces.

GenRL's own loop answers a failed training step or a broken exchange by going on as if nothing had happened, and ends
with exit code 0 whatever it died of. This one lets every error reach the daemon, which knows what each means.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from genrl.communication.communication import Communication
from genrl.game.game_manager import BaseGameManager

from swarmd.coordination.coordinator import Coordinator, StopAsked
from swarmd.game.evaluation import Evaluator, Pace
from swarmd.game.exchange import USED, Exchange, ExchangeReport, joined
from swarmd.game.history import BASE_ROUND, HeldoutRow, RoundRow
from swarmd.game.history_exchange import ExchangeRow
from swarmd.game.keeper import Keeper
from swarmd.game.selection import Selection, select
from swarmd.game.stages import OwnWorlds, answer_stage, leave_stage, new_state
from swarmd.monitor.progress import progress
from swarmd.system.events import event
from swarmd.system.memory import rss_bytes
from swarmd.system.phases import Phases
from swarmd.tasks.environment import Environment
from swarmd.tasks.peer_groups import UNSCORED
from swarmd.training.plausibility import IMPLAUSIBLE, TOO_LONG
from swarmd.training.rollouts import Completion
from swarmd.training.trainer import GRPOTrainer

# So many rounds in a row without anything to learn from are told as a fault.
_STALLED_ROUNDS = 50
# An evaluation in which the scorer failed at more than this share of the answers says nothing.
_FEW_UNJUDGED = 0.02


class Audience(Protocol):
    """Who is told what the game does."""

    def resumed(self, last_done: int | None) -> None:
        """The training goes on after this round, None: it begins. Before anything else."""

    def round_played(self, row: RoundRow) -> None:
        """Before the round's checkpoint is written."""

    def round_done(self, row: RoundRow) -> None:
        """After it; the row's seconds now include it."""

    def evaluated(self, row: HeldoutRow) -> None: ...


class Game(OwnWorlds, BaseGameManager):
    """Plays rounds until `rounds` are done or a stop is asked for.

    A round: coordinate, then for each stage generate and share, then admit (score, select), train, checkpoint,
    evaluate when its time has come, report. between(): called before each round. `last_done` is the last round that a
    checkpoint holds, None at the very start.

    exchange: the swarm that `communication` reaches, None without one. own_samples, peer_samples: groups to train on,
    None as in `selection.select`.
    """

    def __init__(
        self,
        environment: Environment,
        trainer: GRPOTrainer,
        communication: Communication,
        coordinator: Coordinator,
        keeper: Keeper,
        evaluator: Evaluator,
        pace: Pace,
        phases: Phases,
        audience: Audience,
        stopping: Callable[[], bool],
        between: Callable[[], None],
        rounds: int | None,
        exchange: Exchange | None = None,
        own_samples: int | None = None,
        peer_samples: int | None = None,
    ) -> None:
        self._agent = str(communication.get_id())
        super().__init__(
            max_stage=environment.stages,
            max_round=rounds if rounds is not None else 2**63,
            game_state=None,
            reward_manager=environment.rewards,
            trainer=trainer,
            data_manager=environment.data,
            communication=communication,
        )
        self._coordinator = coordinator
        self._keeper = keeper
        self._evaluator = evaluator
        self._pace = pace
        self._phases = phases
        self._audience = audience
        self._stopping = stopping
        self._between = between
        self._exchange = exchange
        self._own_samples = own_samples
        self._peer_samples = peer_samples
        self._selection: Selection | None = None
        trainer.own = self._agent
        self._without_signal = 0
        self._tokens = 0
        self.rounds_done = 0
        self.last_done: int | None = None

    def end_of_game(self) -> bool:
        return self._stopping() or self.rounds_done >= self.max_round

    def run_game(self) -> None:
        """Plays to the end. Whatever goes wrong in a round is raised, not swallowed.

        Raises:
            RoundAbandoned: a stop was asked for and the round in work took too long; it left no trace.
        """
        self.last_done = self._keeper.restore()
        self._coordinator.resume(self.last_done)
        if self._keeper.last_evaluated is not None:
            self._pace.done(self._keeper.last_evaluated)
        self._audience.resumed(self.last_done)
        if self._keeper.best is None and not self._stopping():
            self._evaluate(BASE_ROUND if self.last_done is None else self.last_done)
        while not self.end_of_game():
            self._between()
            try:
                with self._phases.enter("coordinate"):
                    round = self._coordinator.next_round(self.last_done)
            except StopAsked:
                return
            self._play(round)

    def run_game_round(self) -> None:
        """GenRL's name for a round whose state is set up: stages, rewards, training."""
        self.trainer.begin_round(self.state.round)
        while not self.end_of_round():
            self.run_game_stage()
            with self._phases.enter("share"):
                gathered = self.communication.all_gather_object(self.state.get_latest_communication()[self._agent])
                leave_stage(self.state, self.data_manager, gathered)
        with self._phases.enter("admit"):
            self.rewards.update_rewards(self.state)
            seed = f"{self.state.round}/{self._agent}"
            self._selection = select(
                self.state, self.rewards, self._agent, self._own_samples, self._peer_samples, seed
            )
        with self._phases.enter("train"):
            self.trainer.train(self.state, self.data_manager, self.rewards)

    def run_game_stage(self) -> None:
        with self._phases.enter("generate"):
            answer_stage(self.state, self.data_manager, self._generate)

    def _generate(self, inputs: Any) -> list[list[Completion]]:
        groups: list[list[Completion]] = self.trainer.generate(inputs)
        # Counted here: an environment may put anything into the tree.
        self._tokens += sum(len(completion.token_ids) for group in groups for completion in group)
        return groups

    def _play(self, round: int) -> None:
        self._phases.round = round
        self._phases.take_seconds()  # an evaluation and the wait for this round are no part of it
        begun = time.monotonic()
        begin_round = getattr(self.data_manager, "begin_round", None)
        if begin_round is not None:  # ours; GenRL's own data managers count for themselves
            begin_round(self._coordinator.shared(round))
        if self._exchange is not None:
            self._exchange.begin_round(self._coordinator.shared(round))
        self.state = new_state(round, self.data_manager.get_round_data(), self._agent, self)
        try:
            self.run_game_round()
        except FloatingPointError as error:
            with self._phases.enter("checkpoint"):
                self._keeper.weights_broken(round, error)
            self.rewards.reset()
            self.last_done = round
            self.rounds_done += 1
            return
        verdicts = self._verdicts()
        row = self._row(round, time.monotonic() - begun, verdicts)
        # Before the checkpoint: a row too many is removed at the next start, one that is missing stays so.
        self._audience.round_played(row)
        with self._phases.enter("checkpoint"):
            self._keeper.round_done(round)
            if self._exchange is not None:
                # Here, where no stop breaks in: the weights have moved, and the round must become a whole one.
                self._exchange.report(verdicts)
        self.rewards.reset()
        self.last_done = round
        self.rounds_done += 1
        self._watch_signal(row)
        self._audience.round_done(replace(row, seconds={**row.seconds, **self._phases.take_seconds()}))
        if self._pace.due(round, self._evaluator.seconds) and not self.end_of_game():
            self._evaluate(round)

    def _evaluate(self, round: int) -> None:
        with self._phases.enter("evaluate"), progress("evaluating", "task") as show:
            row = self._evaluator.run(round, show)
        if self._evaluator.unjudged > _FEW_UNJUDGED * row.samples:
            # No measure of the weights; the scorer's own line has told why.
            self._pace.done(round)
            return
        # Not to be broken off: it may go back to other weights.
        with self._phases.enter("checkpoint"):
            if round > BASE_ROUND:
                # A new best is kept as a checkpoint, so there must be one of just these weights.
                self._keeper.save_now()
            self._keeper.evaluated(row)
        self._pace.done(round)
        self._audience.evaluated(row)

    def _verdicts(self) -> dict[str, Mapping[str, int]]:
        """What came of each peer's groups, {peer: {reason, or USED: groups}}. USED were drawn; those of them that the
        policy then found IMPLAUSIBLE or TOO_LONG stand there as well."""
        assert self._selection is not None
        # Ours name the reasons; of another's environment it only shows that a group got no rewards.
        told = [getattr(part, "refused", None) for part in (self.data_manager, self.rewards)]
        scored = told[1] if told[1] is not None else _each(UNSCORED, self._selection.unfit)
        update = self.trainer.last_update
        judged = joined(_each(IMPLAUSIBLE, update.implausible), _each(TOO_LONG, update.too_long))
        return dict(joined(told[0] or {}, scored, judged, _each(USED, self._selection.used)))

    def _row(self, round: int, seconds: float, verdicts: Mapping[str, Mapping[str, int]]) -> RoundRow:
        update, chosen = self.trainer.last_update, self._selection
        assert chosen is not None
        exchange = None
        if self._exchange is not None:
            came = ExchangeReport.of(self._exchange.last)
            exchange = ExchangeRow(
                seen=came.seen,
                used=len(chosen.used),
                admitted=came.admitted,
                own_groups=chosen.own_used,
                peer_groups=sum(chosen.used.values()),
                peer_reward=chosen.peer_reward,
                refused=came.refused,
                peers=verdicts,
            )
        tokens, self._tokens = self._tokens, 0
        return RoundRow(
            round=round,
            time=time.time(),
            reward=chosen.reward,
            signal_share=chosen.own_with_signal / chosen.own_groups if chosen.own_groups else None,
            loss=update.loss,
            grad_norm=update.grad_norm,
            tokens=tokens,
            tokens_per_s=tokens / seconds if seconds > 0 else None,
            seconds=self._phases.take_seconds(),
            rss_bytes=rss_bytes(),
            exchange=exchange,
        )

    def _watch_signal(self, row: RoundRow) -> None:
        taught = row.signal_share or (row.exchange is not None and row.exchange.peer_groups)
        self._without_signal = 0 if taught else self._without_signal + 1
        if self._without_signal and self._without_signal % _STALLED_ROUNDS == 0:
            event(
                "learning_stalled",
                f"{self._without_signal} rounds in a row gave nothing to learn from: all completions of each task got "
                f"the same reward (last mean {row.reward}); the tasks are too hard or too easy for this model",
                priority=4,
                round=row.round,
            )


def _each(reason: str, counts: Mapping[str, int]) -> dict[str, Mapping[str, int]]:
    return {peer: {reason: count} for peer, count in counts.items()}
