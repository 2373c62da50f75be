"""A real node tells its service manager: the start, what it does, a reload, the stop, and why it fails."""

from __future__ import annotations

import errno
import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import saved
from tests.integration.node import Node, Preloaded, until
from tests.service_manager import ServiceManager

TRAINING = {"seed": 11, "tasks_per_round": 4, "evaluate_samples": 8, "evaluate_every": 1000}
SETTINGS: dict[str, Any] = {"training": TRAINING}
LINE = re.compile(
    r"training: round \d+, \w+; reward \d\.\d{3} \(\d\.\d{3} over 100\), held-out \d\.\d{3} \(best \d\.\d{3}\); "
    r"\d+ tokens/s; memory \d+ of \d+ MiB; alone"
)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    with ServiceManager(tmp_path / "notify", 30.0) as manager:
        yield manager


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def started(manager: ServiceManager, state: Path, preloaded: Preloaded, settings: dict[str, Any] = SETTINGS) -> Node:
    return Node(state, settings, preloaded=preloaded, variables=manager.variables)


def rewrite(state: Path, settings: dict[str, Any]) -> None:
    """The configuration of a running node, changed."""
    state.with_name(state.name + ".yaml").write_text(json.dumps(settings, indent=1))


def test_the_start_is_told_step_by_step_and_readiness_once_the_first_phase_began(
    manager: ServiceManager, state: Path, preloaded: Preloaded
) -> None:
    with started(manager, state, preloaded) as node:
        ready = manager.field("READY")
        assert ready.fields["STATUS"].startswith("training: evaluate; memory ")
        assert "restoring" not in node.text()
        node.after_round(2)
        manager.status("round 2")
        manager.field("WATCHDOG")
        node.send(signal.SIGTERM)
        assert node.end() == 0
    order = [next(iter(message.fields)) for message in manager.messages]
    first = order.index("READY")
    assert order.count("READY") == 1
    assert "EXTEND_TIMEOUT_USEC" in order[:first] and "WATCHDOG" not in order[:first]
    pinged = order.index("WATCHDOG")
    assert first < pinged and "EXTEND_TIMEOUT_USEC" not in order[pinged:]
    # On a busy machine the status that is kept current may be told between two steps.
    told = [message.fields.get("STATUS", "") for message in manager.messages[:first]]
    assert [status for status in told if status.startswith("starting: ")] == [
        "starting: choosing the model",
        "starting: loading model embedded",
        "starting: opening the tasks",
        "starting: restoring the last checkpoint",
    ]


def test_while_it_runs_the_status_is_a_line_kept_current(
    manager: ServiceManager, state: Path, preloaded: Preloaded
) -> None:
    with started(manager, state, preloaded) as node:
        node.after_round(3)
        found = manager.wait(lambda message: bool(LINE.fullmatch(message.fields.get("STATUS", ""))))
        node.after_round(int(found.fields["STATUS"].split()[2].strip(",")) + 3)
        manager.wait(lambda message: LINE.fullmatch(message.fields.get("STATUS", "")) is not None, after=-1)
        told = len(manager.of("STATUS"))
        until(lambda: len(manager.of("STATUS")) >= told + 8)
        later = manager.of("STATUS")[told:]
        assert later[-1].time - later[0].time > 0.5 * (len(later) - 1), "about once a second"
        assert later[-1].fields["STATUS"] != found.fields["STATUS"]


def test_a_long_start_asks_for_more_time_again_and_again(
    manager: ServiceManager, state: Path, preloaded: Preloaded, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "tasks": {"environment": "tests.integration.hanging:factory"}}
    slow = {"HANG_IN": "start", "HANG_SECONDS": "8", "HANG_NOTE": str(tmp_path / "note")}
    with Node(state, settings, preloaded=preloaded, variables={**manager.variables, **slow}) as node:
        manager.field("READY")
        assert len(manager.of("EXTEND_TIMEOUT_USEC")) >= 2
        assert node.code() is None


def test_a_wait_after_quick_failures_is_told_and_then_comes_the_start(
    manager: ServiceManager, state: Path, preloaded: Preloaded
) -> None:
    saved.failed(state, 3)
    with started(manager, state, preloaded) as node:
        manager.field("READY")
        node.send(signal.SIGTERM)
        assert node.end() == 0
    waits, *others = manager.statuses()
    assert waits == "starting: waits 2 s: the last 3 runs ended quickly, the last one by crash"
    assert others[0] == "starting: choosing the model"
    kinds = [re.search(r"starts; |ready after|stopped:", line) for line in node.lines()]
    assert [kind[0] for kind in kinds if kind] == ["starts; ", "ready after", "stopped:"]


def test_a_wait_longer_than_any_deadline_is_no_hang_and_asks_for_its_time(
    manager: ServiceManager, state: Path, preloaded: Preloaded
) -> None:
    saved.failed(state, 9)
    with started(manager, state, preloaded, {**SETTINGS, "watchdog": {"start": 5.0}}) as node:
        until(lambda: len(manager.of("EXTEND_TIMEOUT_USEC")) >= 3, why="it asks every five seconds")
        assert node.code() is None
        left = [float(status.split()[2]) for status in manager.statuses()]
        assert left == sorted(left, reverse=True) and len(set(left)) >= 3
        node.send(signal.SIGTERM)
        assert node.end() == 0
    assert manager.of("WATCHDOG") == []
    # The wait may be told once more in between: the signal does not undo what was about to be said.
    told = manager.statuses()
    assert "stopping on SIGTERM" in told[-3:] and told[-1] == "stopped: on SIGTERM", told[-3:]


def test_a_reload_that_is_asked_for_during_the_wait_is_done_after_it(
    manager: ServiceManager, state: Path, preloaded: Preloaded
) -> None:
    saved.failed(state, 4)
    with started(manager, state, preloaded) as node:
        manager.status("starting: waits")
        rewrite(state, {**SETTINGS, "log": {"level": "debug"}})
        node.send(signal.SIGHUP)
        node.line("log.level is now debug")
        node.after_round(1)


LONG = {
    "training": {**TRAINING, "tasks_per_round": 64, "group_size": 256, "max_new_tokens": 400, "temperature": 5.0},
    "memory": {"limit": "2G"},
}


def test_a_stop_says_what_it_waits_for(manager: ServiceManager, state: Path, preloaded: Preloaded) -> None:
    with started(manager, state, preloaded, LONG) as node:
        until(lambda: state.is_dir() and (state / "status.json").exists())
        until(lambda: saved.status(state)["phase"] == "generate", why="the long round begins")
        node.send(signal.SIGTERM)
        stopping = manager.field("STOPPING")
        assert stopping.fields["STATUS"] == "stopping on SIGTERM: waits at most 5 s for generate of round 0"
        until(lambda: saved.status(state)["state"] == "stopping")
        manager.status("stopping: finishing round 0, generate")
        assert node.end() == 0
    assert manager.statuses()[-1] == "stopped: on SIGTERM"
    assert saved.status(state)["state"] == "stopped"


def test_a_wrong_configuration_is_told_with_its_errno(
    manager: ServiceManager, state: Path, preloaded: Preloaded
) -> None:
    with started(manager, state, preloaded, {"training": {"temprature": 1}}) as node:
        assert node.end() == 78
    failed = manager.field("ERRNO")
    assert failed.fields["ERRNO"] == str(errno.EINVAL)
    assert "state.yaml:1: training.temprature: unknown key" in failed.fields["STATUS"]
    assert manager.of("READY") == []


def test_a_model_that_is_not_there_is_told_with_its_errno(
    manager: ServiceManager, state: Path, preloaded: Preloaded, tmp_path: Path
) -> None:
    with started(manager, state, preloaded, {"model": {"name": str(tmp_path / "nowhere")}}) as node:
        assert node.end() == 78
    failed = manager.field("ERRNO")
    assert failed.fields["ERRNO"] == str(errno.EINVAL) and "nowhere" in failed.fields["STATUS"]


def test_a_reload_applies_what_it_can_and_names_the_rest(
    manager: ServiceManager, state: Path, preloaded: Preloaded
) -> None:
    with started(manager, state, preloaded) as node:
        node.after_round(1)
        rewrite(state, {
            "training": {**TRAINING, "temperature": 0.9, "evaluate_every": 2, "group_size": 4},
            "watchdog": {"train": 77}, "log": {"level": "debug"},
        })  # fmt: skip
        before = len(manager.messages)
        node.send(signal.SIGHUP)
        reloading = manager.field("RELOADING", after=before)
        assert 0 < int(reloading.fields["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        ready = manager.field("READY", after=before)
        assert ready.time >= reloading.time and ready.fields["STATUS"].startswith("training: ")
        told = node.line("configuration read anew")
        assert told == (
            "swarmd: configuration read anew: training.temperature is now 0.9 (was 1.0); "
            "training.evaluate_every is now 2 (was 1000); log.level is now debug (was info); "
            "watchdog.train is now 77.0 (was 3600.0); takes effect at the next start: training.group_size"
        )
        # The new temperature is another measure: it is taken at once, and then every other round.
        first = int(re.findall(r"held-out score after round (\d+)", node.line("held-out score after"))[0])
        node.line(f"held-out score after round {first + 2}:")


def test_a_reload_that_cannot_be_used_leaves_everything_as_it_was_and_says_why(
    manager: ServiceManager, state: Path, preloaded: Preloaded
) -> None:
    with started(manager, state, preloaded) as node:
        node.after_round(1)
        before = len(manager.messages)
        rewrite(state, {"training": {**TRAINING, "temperature": 0.0}})
        node.send(signal.SIGHUP)
        why = r"state\.yaml:7: training\.temperature: must be a number from 0\.05 to 5"
        assert "the one before stays in force" in node.line(f"error: the configuration cannot be used.*{why}")
        manager.field("RELOADING", after=before)
        manager.field("READY", "1", after=before)
        assert re.search(f"; reload refused: .*{why}", manager.status("reload refused", after=before).fields["STATUS"])
        done = node.rounds()[-1]
        node.after_round(done + 2)
        rewrite(state, SETTINGS)
        node.send(signal.SIGHUP)
        node.line("configuration read anew: nothing has changed")
        after = len(manager.messages)
        manager.wait(lambda message: bool(LINE.fullmatch(message.fields.get("STATUS", ""))), after=after)


def test_a_node_that_waits_for_the_clock_reloads_meanwhile(
    manager: ServiceManager, state: Path, preloaded: Preloaded
) -> None:
    clock = {
        "coordinator": {"kind": "clock", "round_seconds": 86_400.0}, "swarm": {"id": "5eed1e55"},
        "network": {"listen": [], "gather_seconds": 0.5},  # nobody else is there
    }  # fmt: skip
    # Waiting for the clock is no hang, however short the deadline.
    watchdog = {"watchdog": {"coordinate": 2.0}}
    with started(manager, state, preloaded, {**SETTINGS, **clock, **watchdog}) as node:
        node.line("swarmd: round ")
        until(lambda: saved.status(state)["phase"] == "coordinate")
        time.sleep(4.0)
        rewrite(state, {**SETTINGS, **clock, **watchdog, "log": {"level": "warning"}})
        node.send(signal.SIGHUP)
        manager.field("RELOADING")
        assert node.code() is None
        node.send(signal.SIGTERM)
        assert node.end() == 0
    assert all(message.fields["WATCHDOG"] == "1" for message in manager.of("WATCHDOG"))


def test_a_reload_before_the_node_has_started_is_done_as_soon_as_it_has(
    manager: ServiceManager, state: Path, preloaded: Preloaded
) -> None:
    with started(manager, state, preloaded) as node:
        manager.status("starting: choosing the model")
        rewrite(state, {**SETTINGS, "log": {"level": "debug"}})
        node.send(signal.SIGHUP)
        node.line("log.level is now debug")
        node.after_round(1)


def test_after_a_restart_the_status_knows_the_last_held_out_score(
    manager: ServiceManager, state: Path, preloaded: Preloaded
) -> None:
    with Node(state, SETTINGS, "--rounds", "2", preloaded=preloaded) as node:
        assert node.end() == 0
    before = saved.status(state)
    assert before["heldout"]["last"] is not None and before["heldout"]["base"] is not None
    with started(manager, state, preloaded) as node:
        assert f"held-out {before['heldout']['last']:.3f}" in manager.field("READY").fields["STATUS"]
        until(lambda: saved.status(state)["state"] == "training")
        assert saved.status(state)["heldout"] == before["heldout"]
        assert "held-out score" not in node.text()


def test_nobody_waits_for_an_evaluation_after_the_last_round(state: Path, preloaded: Preloaded) -> None:
    each = {"training": {**TRAINING, "evaluate_every": 1}}
    with Node(state, each, "--rounds", "2", preloaded=preloaded) as node:
        assert node.end() == 0
    assert node.rounds() == [0, 1]
    assert re.findall(r"held-out score (before training|after round \d)", node.text()) == [
        "before training", "after round 0",
    ]  # fmt: skip
