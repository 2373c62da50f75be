"""The node: makes the rooms, introduces them to each other, plays the game, and ends cleanly."""

from __future__ import annotations

import time
from pathlib import Path

from swarmd import __version__
from swarmd.assembly import (
    Chosen,
    choose_model,
    fetch,
    hub_cache,
    load_base,
    make_trainer,
    new_node_id,
    new_seed,
    open_environment,
    yardstick_of,
)
from swarmd.config import Config
from swarmd.coordination.clock import ClockCoordinator
from swarmd.coordination.coordinator import Coordinator
from swarmd.coordination.solo import SoloCoordinator
from swarmd.game.checkpoint import CheckpointStore
from swarmd.game.evaluation import Evaluator, Pace
from swarmd.game.history import History
from swarmd.game.keeper import Keeper
from swarmd.game.report import Reporter
from swarmd.game.round import Game
from swarmd.monitor.status import STATUS_FILE, ChildStatus, MemoryStatus, ModelStatus, Status, StatusFile
from swarmd.network.alone import Alone
from swarmd.system.events import adopt_libraries, configure_logging, event
from swarmd.system.exits import EXIT_OK, ConfigurationError
from swarmd.system.paths import lock_state, runtime_directory, state_directory
from swarmd.system.phases import Phases
from swarmd.system.startup import assert_recursion_limit
from swarmd.system.stopping import RoundAbandoned, StopRequest
from swarmd.tasks.scorer import Scorer
from swarmd.training.models import ModelError
from swarmd.training.trainer import GRPOTrainer

HISTORY_FILE = "state.sqlite"
CHECKPOINTS = "checkpoints"
# Breaking these off leaves no trace; a checkpoint or a report is let finish.
_INTERRUPTIBLE = frozenset({"coordinate", "generate", "share", "admit", "train", "evaluate"})


def run(config: Config, state_flag: Path | None, rounds: int | None, config_path: Path | None) -> int:
    """Runs the node until it is stopped or `rounds` are done; 0.

    Raises:
        ConfigurationError: what a person has to mend.
        Anything else is a fault of this program, a library or the machine, after which a restart is worth trying.
    """
    refuse_what_is_not_built(config)
    configure_logging(config.log.level)
    state = state_directory(state_flag)
    with lock_state(state):
        event("started", f"swarmd {__version__} starts; state in {state}", priority=5, version=__version__)
        return _Node(config, state, config_path).run(rounds)


def refuse_what_is_not_built(config: Config) -> None:
    """Raises ConfigurationError for settings that this version understands but cannot carry out yet."""
    if config.coordinator.kind in ("wallet", "modal"):
        raise ConfigurationError(
            f"coordinator.kind is {config.coordinator.kind}, but this version cannot report to a chain yet; "
            "use coordinator.kind: solo or clock"
        )
    if config.swarm.role == "bootnode":
        raise ConfigurationError("swarm.role is bootnode, but this version has no network yet; use swarm.role: node")


class _Node:
    """One run of the node, from the locked state directory to its end."""

    def __init__(self, config: Config, state: Path, config_path: Path | None) -> None:
        self._config = config
        self._state = state
        self._config_path = config_path
        self._reporter: Reporter | None = None
        self._trainer: GRPOTrainer | None = None
        self._steps_before = 0  # the round in work
        self._phases = Phases(self._phase)
        self._stop = StopRequest(self._interruptible)
        self._status_file = StatusFile(runtime_directory(state) / STATUS_FILE)
        self._history = History(state / HISTORY_FILE)

    def run(self, rounds: int | None) -> int:
        self._stop.install()
        self._status_file.write(Status("starting", name=self._config.swarm.name or ""), force=True)
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
                self._status_file.write(Status(ended, name=self._config.swarm.name or ""), force=True)
            self._history.close()
        why = f"on {self._stop.signal_name}" if self._stop.asked else "all rounds asked for are done"
        event("stopped", f"stopped: {why}", priority=5)
        return EXIT_OK

    def _play(self, rounds: int | None) -> None:
        config, training = self._config, self._config.training
        node_id, seed = self._remembered_identity()
        chosen = self._choose()
        begun = time.monotonic()
        self._trainer = trainer = make_trainer(config, chosen, seed)
        with Scorer() as scorer:
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
                self._first_status(chosen, trainer), self._status_file, self._history, keeper, lambda: _children(scorer)
            )
            evaluator = Evaluator(environment, trainer, training.temperature)
            game = Game(
                environment=environment,
                trainer=trainer,
                communication=Alone(node_id),
                coordinator=self._coordinator(),
                keeper=keeper,
                evaluator=evaluator,
                pace=Pace(None if training.evaluate_every == "auto" else training.evaluate_every),
                phases=self._phases,
                audience=reporter,
                stopping=lambda: self._stop.asked,
                rounds=rounds,
            )
            reporter.state("training")
            event("ready", f"ready after {time.monotonic() - begun:.1f} s: model {chosen.name}, "
                  f"{trainer.parameters / 1e6:.1f} M parameters", priority=5)
            try:
                game.run_game()
            except RoundAbandoned:
                # What it left are the weights of the last finished round. Of any other fault that is not known.
                self._stop.cancel_timer()
                keeper.flush()
                raise
            self._stop.cancel_timer()
            keeper.flush()

    def _choose(self) -> Chosen:
        remembered = self._history.fact("model")
        chosen = choose_model(self._config, remembered)
        if chosen.folder is None:
            event("model_chosen", f"model {chosen.name} is not in the cache; fetching it", priority=5)
            fetch(chosen.name, self._config_path)
            chosen = choose_model(self._config, chosen.name)
        if self._config.model.name == "auto" and remembered is None:
            self._history.remember("model", chosen.name)
        if chosen.plan is None:
            raise ModelError(f"model {chosen.name}: it was fetched, but the cache does not give it back; remove it "
                             f"from {hub_cache()} and start again")
        event(
            "model_chosen",
            f"model {chosen.name} trains in {chosen.plan.mode}: predicted peak "
            f"{chosen.plan.predicted_bytes / 2**20:.0f} MiB of {chosen.limit.bytes / 2**20:.0f} MiB "
            f"({chosen.limit.source})",
            model=chosen.name,
            mode=chosen.plan.mode,
            predicted_bytes=chosen.plan.predicted_bytes,
        )
        return chosen

    def _remembered_identity(self) -> tuple[str, int]:
        """Node id and seed, drawn at the first start: no two nodes draw the same tasks, no restart draws them again."""
        wanted = self._config.training.seed
        node_id, seed = self._history.fact("node_id"), self._history.fact("seed")
        if node_id is None or seed is None:
            seed = str(new_seed() if wanted is None else wanted)
            node_id = new_node_id(wanted)
            self._history.remember("node_id", node_id)
            self._history.remember("seed", seed)
        return node_id, int(seed) if wanted is None else wanted

    def _coordinator(self) -> Coordinator:
        settings = self._config.coordinator
        if settings.kind == "clock":
            return ClockCoordinator(settings.epoch, settings.round_seconds, time.time, self._stop.wait)
        return SoloCoordinator()

    def _first_status(self, chosen: Chosen, trainer: GRPOTrainer) -> Status:
        assert chosen.plan is not None
        return Status(
            "starting",
            name=self._config.swarm.name or "",
            model=ModelStatus(chosen.name, trainer.parameters, chosen.plan.mode),
            memory=MemoryStatus(limit=chosen.limit.bytes, predicted=chosen.plan.predicted_bytes),
        )

    def _phase(self, phase: str) -> None:
        if phase == "train" and self._trainer is not None:
            self._steps_before = self._trainer.steps
        if self._reporter is not None:
            self._reporter.phase(phase)

    def _interruptible(self) -> bool:
        if self._trainer is not None:
            stepped = self._phases.current == "train" and self._trainer.steps != self._steps_before
            if self._trainer.stepping or stepped:
                return False  # half a step is neither the old weights nor the new, and a whole one belongs to a round
        # Between two phases of a round something is being written down; before the first there is nothing to lose.
        return self._phases.current in _INTERRUPTIBLE or self._reporter is None


def _children(scorer: Scorer) -> dict[str, ChildStatus]:
    # Between the death of one scorer and the start of the next there is none.
    return {"scorer": ChildStatus(scorer.pid, scorer.restarts)} if scorer.pid is not None else {}
