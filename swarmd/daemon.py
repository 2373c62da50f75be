"""The node: makes the rooms, introduces them to each other, plays the game, and ends cleanly."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from swarmd.assembly import Chosen, load_base, make_trainer, open_environment, yardstick_of
from swarmd.choosing import choose, remembered_identity
from swarmd.config import Config
from swarmd.coordination.clock import ClockCoordinator
from swarmd.coordination.continued import Continued
from swarmd.coordination.coordinator import Coordinator
from swarmd.coordination.solo import SoloCoordinator
from swarmd.game.checkpoint import CHECKPOINTS, CheckpointStore
from swarmd.game.evaluation import Evaluator, Pace
from swarmd.game.history import HISTORY_FILE, History
from swarmd.game.keeper import Keeper
from swarmd.game.report import Reporter
from swarmd.game.round import Game
from swarmd.monitor.status import STATUS_FILE, ChildStatus, MemoryStatus, ModelStatus, Status, StatusFile
from swarmd.network.swarm_link import Swarm
from swarmd.reload import LiveParts, Reload
from swarmd.swarming import Membership, communication_of, membership
from swarmd.system.events import adopt_libraries, event, set_context
from swarmd.system.ledger import OOM_KILL, PreviousEnd
from swarmd.system.notify import notifier
from swarmd.system.paths import runtime_directory
from swarmd.system.phases import Phases
from swarmd.system.pressure import MemoryGuard, UnitMemory
from swarmd.system.reloading import ReloadRequest
from swarmd.system.startup import assert_recursion_limit
from swarmd.system.stopping import FINISH_SECONDS, RoundAbandoned, StopRequest
from swarmd.system.watchdog import Watchdog
from swarmd.tasks.scorer import Scorer
from swarmd.training.ladder import MemorySteps
from swarmd.training.trainer import GRPOTrainer

# The names under which the history keeps them.
MEMORY_STEPS, SWARM_ROUNDS = "memory_steps", "swarm_rounds"
# Breaking these off leaves no trace; a checkpoint or a report is let finish.
_INTERRUPTIBLE = frozenset({"coordinate", "generate", "share", "admit", "train", "evaluate"})


def play(
    config: Config, state: Path, config_path: Path | None, previous: PreviousEnd, rounds: int | None
) -> int | None:
    """Plays until the node is stopped or `rounds` are done; the round in work last, None where there was none.

    state: locked for this process. previous: how the last run ended.

    Raises:
        ConfigurationError: what a person has to mend.
        Anything else is a fault of this program, a library or the machine, after which a restart is worth trying.
    """
    node = _Node(config, state, config_path, previous)
    node.run(rounds)
    return node.round


class _Node:
    """One run of the node, from the locked state directory to its end."""

    def __init__(self, config: Config, state: Path, config_path: Path | None, previous: PreviousEnd) -> None:
        self._config = config
        self._previous = previous
        self._state = state
        self._config_path = config_path
        self._service = notifier()
        self._begun = time.monotonic()
        self._reporter: Reporter | None = None
        self._trainer: GRPOTrainer | None = None
        self._reload: Reload | None = None
        self._guard: MemoryGuard | None = None
        self._model = ""
        self._steps_before = 0  # the round in work
        self._phases = Phases(self._phase)
        self._watchdog = Watchdog(self._phases, config.watchdog.model_dump(), self._service)
        self._stop = StopRequest(self._interruptible, self._stopping)
        self._reload_request = ReloadRequest(lambda: self._stop.ask(signal.SIGHUP))
        self._status_file = StatusFile(runtime_directory(state) / STATUS_FILE)
        self._history = History(state / HISTORY_FILE)

    @property
    def round(self) -> int | None:
        """The round in work, or the last one."""
        return self._phases.round

    def run(self, rounds: int | None) -> None:
        self._stop.install()
        self._reload_request.install()
        self._watchdog.start()
        ended = "failed"
        try:
            self._play(rounds)
            ended = "stopped"
        except RoundAbandoned as abandoned:
            event("stopping", f"{abandoned}; it is abandoned", priority=5)
            ended = "stopped"
        finally:
            self._stop.cancel_timer()
            if self._reporter is not None:
                self._reporter.state(ended)
            else:
                self._status_file.write(self._bare_status(ended), force=True)
            self._history.close()
            if self._guard is not None:
                self._guard.close()
            self._watchdog.close()
        why = f"on {self._stop.signal_name}" if self._stop.asked else "all rounds asked for are done"
        event("stopped", f"stopped: {why}", priority=5)
        self._service.stopping(f"stopped: {why}")

    def _play(self, rounds: int | None) -> None:
        config, training = self._config, self._config.training
        node_id, seed = remembered_identity(self._history, training.seed)
        self._starts("choosing the model")
        chosen = choose(config, self._config_path, self._history, self._starts)
        with membership(
            config, self._config_path, self._state, chosen.name, os.environ, self._phases.beat
        ) as member:
            self._play_in(member, chosen, member.identity.peer_id if member else node_id, seed, rounds)

    def _play_in(
        self, member: Membership | None, chosen: Chosen, node_id: str, seed: int, rounds: int | None
    ) -> None:
        config, training = self._config, self._config.training
        self._starts(f"loading model {chosen.name}")
        self._trainer = trainer = make_trainer(config, chosen, seed)
        self._model = f"model {chosen.name}, {trainer.parameters / 1e6:.1f} M parameters"
        trainer.beat = self._phases.beat
        self._watch_memory(trainer, chosen)
        self._starts("opening the tasks")
        with Scorer(beat=self._phases.beat) as scorer:
            environment = open_environment(config, chosen.name, scorer, node_id, training.evaluate_samples)
            adopt_libraries()
            assert_recursion_limit()
            store = CheckpointStore(self._state / CHECKPOINTS, training.keep_checkpoints)
            keeper = Keeper(
                store,
                self._history,
                trainer,
                lambda: trainer.start_over(load_base(chosen)),
                chosen.name,
                training.on_collapse,
                training.checkpoint_every,
                yardstick_of(config, chosen.name),
            )
            self._reporter = reporter = Reporter(
                self._first_status(chosen, trainer, member),
                self._status_file,
                self._history,
                keeper,
                lambda: _children(scorer, member),
                self._service.status,
                member.trouble if member else str,
                member.status if member else lambda: None,
            )
            evaluator = Evaluator(environment, trainer, training.temperature)
            pace = Pace(None if training.evaluate_every == "auto" else training.evaluate_every)
            parts = LiveParts(chosen.name, trainer, evaluator, keeper, pace, self._watchdog)
            self._reload = Reload(config, self._config_path, parts.apply)
            coordinator, round_ends = self._rounds()
            swarm = communication_of(member, config, round_ends, node_id, self._phases.beat)
            game = Game(
                environment=environment,
                trainer=trainer,
                communication=swarm,
                coordinator=coordinator,
                keeper=keeper,
                evaluator=evaluator,
                pace=pace,
                phases=self._phases,
                audience=reporter,
                stopping=lambda: self._stop.asked,
                between=self._reload_if_asked,
                rounds=rounds,
                exchange=swarm if isinstance(swarm, Swarm) else None,
                own_samples=training.own_samples,
                peer_samples=None if training.peer_samples == "auto" else training.peer_samples,
            )
            self._starts("restoring the last checkpoint")
            if self._stop.asked:
                reporter.stopping()
            try:
                game.run_game()
            except RoundAbandoned:
                # What it left are the weights of the last finished round. Of any other fault that is not known.
                self._phases.abandon()
                self._flush(keeper)
                raise
            self._flush(keeper)

    def _flush(self, keeper: Keeper) -> None:
        self._stop.cancel_timer()
        with self._phases.enter("checkpoint"):  # on a slow disk it may last as long as any
            keeper.flush()

    def _rounds(self) -> tuple[Coordinator, Callable[[int], float]]:
        """Who counts the rounds, and when one of the swarm's ends, seconds since 1970."""
        settings = self._config.coordinator
        if settings.kind == "clock":
            clock = ClockCoordinator(settings.epoch, settings.round_seconds, time.time, self._wait)
            swarm = f"{self._config.swarm.id} {settings.epoch} {settings.round_seconds}"
            history = self._history
            remember = partial(history.remember, SWARM_ROUNDS)
            return Continued(clock, swarm, partial(history.fact, SWARM_ROUNDS), remember), clock.deadline
        alone = SoloCoordinator()
        return alone, alone.deadline

    def _watch_memory(self, trainer: GRPOTrainer, chosen: Chosen) -> None:
        """Before the checkpoint is restored: it is read in the precision that an earlier run had to go down to."""
        limit, ladder = chosen.limit.bytes, trainer.ladder
        if chosen.device.type == "cpu":  # the guard sees the machine's memory, not a GPU's
            self._guard = MemoryGuard(UnitMemory(chosen.limit).read)
            self._guard.start()
        ladder.watch(self._guard, limit, lambda steps: self._history.remember(MEMORY_STEPS, steps.to_json()))
        ladder.resume(MemorySteps.from_json(self._history.fact(MEMORY_STEPS)), limit)
        if self._previous.cause == OOM_KILL:
            trainer.step_down("the last run ended for want of memory (oom-kill)")

    def _bare_status(self, state: str) -> Status:
        return Status(state, name=self._config.swarm.name or "", restarts=self._previous.totals)

    def _first_status(self, chosen: Chosen, trainer: GRPOTrainer, member: Membership | None) -> Status:
        assert chosen.plan is not None
        bare = self._bare_status("starting")
        if member is not None:
            bare = replace(bare, peer_id=member.identity.peer_id, name=member.identity.name)
        return replace(
            bare,
            model=ModelStatus(chosen.name, trainer.parameters, trainer.ladder.now.precision),
            memory=MemoryStatus(limit=chosen.limit.bytes, predicted=chosen.plan.predicted_bytes),
        )

    def _starts(self, what: str) -> None:
        """A step of the start."""
        self._phases.beat()
        self._service.status(f"starting: {what}")

    def _phase(self, phase: str) -> None:
        if phase == "train" and self._trainer is not None:
            self._steps_before = self._trainer.steps
        if self._reporter is not None:
            self._reporter.phase(phase, self._phases.round)
            if not self._phases.begun:
                self._ready(self._reporter)
        set_context(phase=phase or None, round=self._phases.round)

    def _ready(self, reporter: Reporter) -> None:
        if not self._stop.asked:
            reporter.begin()
        event("ready", f"ready after {time.monotonic() - self._begun:.1f} s: {self._model}", priority=5)
        self._service.ready(reporter.line())

    def _stopping(self, signal_name: str) -> None:
        # In the signal handler.
        of_round = "" if self._phases.round is None else f" of round {self._phases.round}"
        self._service.stopping(
            f"stopping on {signal_name}: waits at most {FINISH_SECONDS:g} s for {self._phases.name}{of_round}"
        )
        if self._reporter is not None:
            self._reporter.stopping()

    def _reload_if_asked(self) -> None:
        """When nothing is in work that the old configuration belongs to."""
        if self._reload_request.take() and self._reload is not None and self._reporter is not None:
            self._service.reloading()
            self._reporter.notice = self._reload.run()
            self._service.ready(self._reporter.line())

    def _wait(self, seconds: float) -> bool:
        """The coordinator's sleep: no hang, and a time to reload."""
        self._phases.beat()
        self._reload_if_asked()
        return self._stop.wait(seconds)

    def _interruptible(self) -> bool:
        if self._trainer is not None:
            stepped = self._phases.current == "train" and self._trainer.steps != self._steps_before
            if self._trainer.stepping or stepped:
                return False  # half a step is neither the old weights nor the new, and a whole one belongs to a round
        # Between two phases of a round something is being written down; before the first there is nothing to lose.
        return self._phases.current in _INTERRUPTIBLE or self._reporter is None


def _children(scorer: Scorer, member: Membership | None) -> dict[str, ChildStatus]:
    # Between the death of one scorer and the start of the next there is none.
    pid = scorer.pid
    children = {} if pid is None else {"scorer": ChildStatus(pid, scorer.restarts)}
    return children if member is None else {**children, **member.children()}
