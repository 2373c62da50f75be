"""A new configuration in a running node: what changes at once does, the rest waits, and a bad one changes nothing."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmd.assembly import yardstick_of
from swarmd.config import Config
from swarmd.game.checkpoint import CheckpointStore
from swarmd.game.evaluation import Evaluator, Pace
from swarmd.game.history import History
from swarmd.game.keeper import Best, Keeper
from swarmd.reload import LiveParts, Reload, compare
from swarmd.system.notify import Notifier
from swarmd.system.phases import Phases
from swarmd.system.watchdog import Watchdog
from swarmd.training.models import LoadedModel
from swarmd.training.recipe import Recipe
from swarmd.training.trainer import GRPOTrainer
from tests.models import small_model, small_tokenizer


@pytest.fixture
def lines() -> Iterator[list[str]]:
    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(f"{vars(record)['event_kind']}: {record.getMessage()}")

    found: list[str] = []
    logger = logging.getLogger("swarmd")
    before = logger.handlers[:], logger.level
    logger.handlers[:] = [Kept()]
    logger.setLevel(logging.INFO)
    yield found
    logger.handlers[:] = before[0]
    logger.setLevel(before[1])


def config(**sections: dict[str, Any]) -> Config:
    return Config.model_validate(sections)


class Running:
    """A reload of the configuration in a file, and what it puts into effect."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.applied: list[Config] = []
        self.reload = Reload(Config(), path, self.applied.append)

    def with_file(self, text: str) -> str:
        self.path.write_text(text)
        return self.reload.run()


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(tmp_path / "config.yaml")


def test_what_can_change_at_once_does_and_the_rest_waits() -> None:
    new = config(
        training={"temperature": 0.7, "group_size": 4, "checkpoint_every": 5}, model={"name": "auto"},
        watchdog={"train": 60.0}, log={"level": "debug"},
    )  # fmt: skip
    change = compare(Config(), new)
    assert change.in_force == config(
        training={"temperature": 0.7, "checkpoint_every": 5}, watchdog={"train": 60.0}, log={"level": "debug"}
    )
    assert change.applied == {
        "training.temperature": (1.0, 0.7),
        "training.checkpoint_every": (1, 5),
        "watchdog.train": (3600.0, 60.0),
        "log.level": ("info", "debug"),
    }
    assert change.later == ("model.name", "training.group_size")


def test_what_waits_is_named_at_each_reload_until_the_next_start(running: Running, lines: list[str]) -> None:
    running.with_file("training: {group_size: 4, temperature: 0.7}\n")
    running.with_file("training: {group_size: 4, temperature: 0.7}\n")
    assert lines == [
        "reloaded: configuration read anew: training.temperature is now 0.7 (was 1.0); "
        "takes effect at the next start: training.group_size",
        "reloaded: configuration read anew: takes effect at the next start: training.group_size",
    ]


def test_what_is_put_back_waits_no_more(running: Running, lines: list[str]) -> None:
    running.with_file("model: {name: auto}\n")
    running.with_file("\n")
    assert lines[-1] == "reloaded: configuration read anew: nothing has changed"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("log:\n  level: loud\n", "config.yaml:2: log.level: "),
        ("log: [\n", "config.yaml:2: "),
        ("coordinator: {kind: clock}\n", "config.yaml:1: coordinator.kind: clock needs swarm.id"),
        (
            "coordinator:\n  kind: wallet\n  contract: 0x0000000000000000000000000000000000000001\n"
            "  rpc_url_file: /etc/rpc\n  key_file: /etc/key\n",
            "coordinator.kind is wallet, but this version cannot report to a chain yet",
        ),
    ],
)
def test_a_bad_one_changes_nothing_and_says_where_it_is_bad(
    running: Running, lines: list[str], text: str, why: str
) -> None:
    refused = running.with_file(text)
    assert why in refused and refused.startswith("reload refused: ")
    assert running.applied == [] and running.reload.config == Config()
    (line,) = lines
    assert line.startswith("reload_refused: the configuration cannot be used, the one before stays in force: ")
    assert why in line


def test_a_file_that_is_gone_changes_nothing(running: Running, lines: list[str]) -> None:
    running.with_file("training: {temperature: 0.7}\n")
    running.path.unlink()
    refused = running.reload.run()
    assert "config.yaml" in refused
    assert running.reload.config.training.temperature == 0.7
    assert lines[-1].startswith("reload_refused: ")


def parts(tmp_path: Path, history: History) -> LiveParts:
    model = small_model()
    loaded = LoadedModel("small", model, small_tokenizer(), sum(p.numel() for p in model.parameters()))
    trainer = GRPOTrainer(loaded, Recipe(8, 16, 1.0, 1e-4))
    store = CheckpointStore(tmp_path / "checkpoints", 2)
    yardstick = yardstick_of(Config(), "small")
    keeper = Keeper(store, history, trainer, lambda: None, "small", "rollback", 1, yardstick)
    keeper.best, keeper.last_evaluated = Best(3, 0.5), 3
    evaluator = Evaluator(None, trainer, 1.0)  # type: ignore[arg-type] - nothing is evaluated here
    watchdog = Watchdog(Phases(lambda phase: None), {}, Notifier())
    return LiveParts("small", trainer, evaluator, keeper, Pace(None), watchdog)


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveParts]:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setattr("swarmd.reload.configure_logging", lambda level: None)  # the test runner's is to stay
    history = History(tmp_path / "state.sqlite")
    yield parts(tmp_path, history)
    history.close()


def test_every_part_gets_its_new_values(live: LiveParts) -> None:
    training = {
        "temperature": 0.7, "learning_rate": 2e-6, "warmup_rounds": 3, "clip_low": 0.1, "clip_high": 0.3,
        "max_grad_norm": 2.0, "evaluate_every": 9, "checkpoint_every": 4, "on_collapse": "stop",
    }  # fmt: skip
    live.apply(config(training=training, watchdog={"admit": 5.0}))
    recipe = live.trainer.recipe
    assert (recipe.temperature, recipe.learning_rate, recipe.warmup_rounds) == (0.7, 2e-6, 3)
    assert (recipe.clip_low, recipe.clip_high, recipe.max_grad_norm) == (0.1, 0.3, 2.0)
    assert (recipe.group_size, recipe.max_new_tokens) == (8, 16), "what sizes the memory plan stays"
    assert (live.pace.rounds, live.keeper.every, live.keeper.on_collapse) == (9, 4, "stop")
    assert live.evaluator.temperature == 0.7
    assert live.watchdog.deadlines["admit"] == 5.0


def test_another_temperature_is_another_measure_and_is_taken_at_once(live: LiveParts) -> None:
    live.apply(config(training={"checkpoint_every": 2}))
    assert live.keeper.best == Best(3, 0.5)
    assert not live.pace.due(4, seconds=1000.0)
    live.apply(config(training={"temperature": 0.7}))
    assert live.keeper.best is None
    assert live.pace.due(4, seconds=1000.0)
    live.pace.done(4)
    assert not live.pace.due(5, seconds=1000.0)
