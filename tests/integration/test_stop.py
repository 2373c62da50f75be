"""A node that is asked to stop does so within ten seconds and has lost nothing; what goes wrong meanwhile is told."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmd.monitor.status import read_status
from swarmd.system.exits import EXIT_CONFIG, EXIT_OK
from swarmd.system.ledger_file import load
from tests.integration import saved
from tests.integration.node import Node, Preloaded, alive, until
from tests.models import save_small_model

STOP_SECONDS = 10.0
ROUNDS = 3
SETTINGS: dict[str, Any] = {"training": {"seed": 11, "evaluate_samples": 16, "evaluate_every": 1000}}
# Minutes a round, on any machine: some 16,000 completions that hardly ever end by themselves.
LONG = {
    "training": {
        **SETTINGS["training"], "tasks_per_round": 64, "group_size": 256, "max_new_tokens": 400, "temperature": 5.0,
    },
    "memory": {"limit": "2G"},
}  # fmt: skip
STOPS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, preloaded: Preloaded) -> Path:
    """A state directory after `--rounds 3`; to be copied, not used."""
    state = tmp_path_factory.mktemp("trained") / "state"
    with Node(state, SETTINGS, "--rounds", str(ROUNDS), preloaded=preloaded) as node:
        assert node.end() == EXIT_OK, node.text()
        assert node.rounds() == [0, 1, 2]
    return state


@pytest.fixture
def state(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "state")
    return tmp_path / "state"


@pytest.fixture
def start(preloaded: Preloaded) -> Iterator[Callable[..., Node]]:
    """Starts a node on a state directory; it does not outlive the test."""
    nodes: list[Node] = []

    def begin(state: Path, *arguments: str, settings: dict[str, Any] = SETTINGS, **more: Any) -> Node:
        node = Node(state, settings, *arguments, preloaded=None if "before" in more else preloaded, **more)
        nodes.append(node)
        return node

    yield begin
    for node in nodes:
        node.__exit__()


def stopped_in_time(node: Node, number: signal.Signals) -> None:
    children = node.descendants()
    begun = time.monotonic()
    node.send(number)
    assert node.end() == EXIT_OK, node.text()
    assert time.monotonic() - begun <= STOP_SECONDS
    assert "Traceback" not in node.text()
    assert node.lines()[-1] == f"swarmd: stopped: on {number.name}"
    assert not alive(children)


@STOPS
def test_a_node_that_is_told_to_stop_keeps_its_last_round(
    state: Path, start: Callable[..., Node], number: signal.Signals
) -> None:
    node = start(state)
    node.after_round(ROUNDS + 1)
    stopped_in_time(node, number)
    assert node.rounds() == list(range(ROUNDS, node.rounds()[-1] + 1))
    assert saved.newest_round(state) == node.rounds()[-1]
    assert saved.half_written(state) == []
    assert [row[0] for row in saved.rows(state, "round")] == list(range(node.rounds()[-1] + 1))
    assert (saved.status(state)["state"], read_status(state)["state"]) == ("stopped", "stopped")


@STOPS
def test_a_long_round_is_abandoned_and_leaves_no_trace(
    state: Path, start: Callable[..., Node], number: signal.Signals
) -> None:
    before = saved.newest(state)
    assert before is not None
    node = start(state, settings=LONG)
    until(lambda: read_status(state)["phase"] == "generate", why="the long round begins")
    stopped_in_time(node, number)
    assert "is abandoned" in node.text()
    assert node.rounds() == []
    after = saved.newest(state)
    assert after is not None and after.round == before.round
    assert saved.checksums(after.path) == saved.checksums(before.path)
    assert [row[0] for row in saved.rows(state, "round")] == list(range(ROUNDS))
    assert saved.status(state)["state"] == "stopped"


def test_a_stop_during_the_imports_is_a_clean_end(tmp_path: Path) -> None:
    with Node(tmp_path / "state", SETTINGS) as node:
        # The interpreter itself takes some milliseconds until it can answer.
        until(lambda: _catches(node.pid, signal.SIGTERM), every=0.001)
        begun = time.monotonic()
        node.send(signal.SIGTERM)
        assert node.end() == EXIT_OK
        assert time.monotonic() - begun <= STOP_SECONDS
        assert node.lines()[-1] == "swarmd: stopped: on SIGTERM, before the start was complete"


def _loads(node: Node, library: str) -> bool:
    return library in Path(f"/proc/{node.pid}/maps").read_text()


def test_a_stop_while_the_libraries_are_imported_is_taken_down_as_a_clean_end(tmp_path: Path) -> None:
    with Node(tmp_path / "state", SETTINGS) as node:
        until(lambda: _loads(node, "libtorch"), every=0.001, why="torch is being loaded")
        begun = time.monotonic()
        node.send(signal.SIGTERM)
        assert node.end() == EXIT_OK
        assert time.monotonic() - begun <= STOP_SECONDS
    assert "starts; this is its first start" in node.text()
    account = load(tmp_path / "state")
    assert (account.run, account.totals) == (None, {"clean": 1})


@STOPS
def test_a_node_that_waits_after_quick_failures_is_small_and_stops_at_once(
    tmp_path: Path, number: signal.Signals
) -> None:
    state = saved.failed(tmp_path / "state", 9)
    with Node(state, {**SETTINGS, "swarm": {"name": "patient"}}) as node:
        node.line("the last run ended by crash .*; it waits 128 s first")
        until(lambda: (state / "status.json").exists())
        assert (read_status(state)["state"], read_status(state)["name"]) == ("starting", "patient")
        assert not _loads(node, "libtorch")
        stopped_in_time(node, number)
    account = load(state)
    assert (account.run, account.stops[-1].cause, account.totals) == (None, "clean", {"crash": 9, "clean": 1})
    assert saved.status(state)["state"] == "stopped"


@STOPS
def test_a_stop_while_the_model_is_loaded_is_a_clean_end(
    tmp_path: Path, start: Callable[..., Node], number: signal.Signals
) -> None:
    node = start(tmp_path / "state")
    node.line("model embedded trains in ")
    stopped_in_time(node, number)
    assert saved.status(tmp_path / "state")["state"] == "stopped"
    assert saved.newest(tmp_path / "state") is None


def _catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process handles a signal itself (SigCgt of proc_pid_status(5))."""
    fields = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return bool(int(fields["SigCgt"], 16) >> (number - 1) & 1)


def test_a_second_node_on_the_same_state_is_refused_by_name_of_the_first(
    state: Path, start: Callable[..., Node]
) -> None:
    first = start(state)
    first.line("starts; .*; state in")
    link = state.with_name("second")
    link.symlink_to(state)  # the same directory under another name, and other log files
    second = start(link)
    assert second.end() == EXIT_CONFIG
    assert second.lines()[-1] == (
        f"swarmd: error: {link}: the state directory is in use by process {first.pid}; "
        "stop that swarmd first, or name another directory with --state DIR"
    )
    first.after_round(ROUNDS)
    # Each writes its own state there: that of the second would be `failed`, and would stay.
    until(lambda: saved.status(state)["state"] == "training", why="the status is the first one's")


def test_after_so_many_rounds_it_ends_and_next_time_goes_on_from_there(
    state: Path, start: Callable[..., Node]
) -> None:
    node = start(state, "--rounds", "2")
    assert node.end() == EXIT_OK, node.text()
    assert node.rounds() == [ROUNDS, ROUNDS + 1]
    assert f"going on after round {ROUNDS - 1}, from {state}/checkpoints/round-" in node.text()
    assert node.lines()[-1] == "swarmd: stopped: all rounds asked for are done"
    assert saved.newest_round(state) == ROUNDS + 1
    assert (saved.status(state)["state"], saved.status(state)["rounds_done"]) == ("stopped", 2)


def test_a_killed_scorer_is_replaced_and_training_goes_on(state: Path, start: Callable[..., Node]) -> None:
    node = start(state)
    node.after_round(ROUNDS)
    # The status may still be that of a moment before the scorer was started.
    scorer = until(lambda: saved.status(state)["children"].get("scorer"))["pid"]
    assert scorer in node.descendants()
    os.kill(scorer, signal.SIGKILL)
    node.line("the scorer process was replaced: .*replacement 1")
    done = node.rounds()[-1]
    node.after_round(done + 2)
    child = until(lambda: saved.status(state)["children"].get("scorer"))
    assert (child["restarts"], child["pid"] in node.descendants()) == (1, True)
    stopped_in_time(node, signal.SIGTERM)
    rewards = [row[0] for row in saved.rows(state, "reward")]
    assert all(reward is not None and reward > 0 for reward in rewards), "no round went without its scores"


def test_a_damaged_checkpoint_is_passed_over_with_a_line(state: Path, start: Callable[..., Node]) -> None:
    newest = saved.newest(state)
    assert newest is not None
    weights = newest.path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 0x01
    weights.chmod(0o600)
    weights.write_bytes(content)
    node = start(state, "--rounds", "1")
    assert node.end() == EXIT_OK, node.text()
    told = node.line("is damaged")
    assert told == (
        f"swarmd: warning: checkpoint {newest.path} is damaged: model.safetensors does not match its checksum; "
        f"it is not used and now called damaged-{newest.path.name}"
    )
    before = newest.round - 1
    assert f"going on after round {before}, from {newest.path.with_name(f'round-{before:08d}')}" in node.text()
    assert node.rounds() == [newest.round]
    assert [row[0] for row in saved.rows(state, "round")] == list(range(newest.round + 1))


def test_another_model_on_the_same_state_is_refused(
    state: Path, start: Callable[..., Node], tmp_path: Path
) -> None:
    other = save_small_model(tmp_path / "other")
    node = start(state, settings={**SETTINGS, "model": {"name": str(other)}})
    assert node.end() == EXIT_CONFIG, node.text()
    newest = saved.newest(state)
    assert newest is not None
    assert node.lines()[-1] == (
        f"swarmd: error: {newest.path} holds the training of model embedded, and model.name is {other}; "
        "set model.name back to embedded, or start anew with another --state DIR"
    )
    assert saved.status(state)["state"] == "failed"


def by_the_clock(round_seconds: float, epoch: float) -> dict[str, Any]:
    clock = {"kind": "clock", "round_seconds": round_seconds, "epoch": epoch}
    nobody_else = {"listen": [], "gather_seconds": 0.5}
    return {**SETTINGS, "coordinator": clock, "swarm": {"id": "5eed1e55"}, "network": nobody_else}


def test_the_clock_says_which_round_it_is(tmp_path: Path, start: Callable[..., Node]) -> None:
    epoch = time.time() - 1000.0
    state = tmp_path / "state"
    settings = by_the_clock(1, epoch)
    node = start(state, "--rounds", "3", settings=settings)
    assert node.end() == EXIT_OK, node.text()
    rounds = saved.rows(state, "round, time")
    assert len(rounds) == 3
    for number, ended in rounds:
        assert 1000 <= number <= ended - epoch, "a round begins with its second, not before"
    assert [number for number, _ in rounds] == sorted({number for number, _ in rounds})
    again = start(state, "--rounds", "1", settings=settings)
    assert again.end() == EXIT_OK, again.text()
    assert saved.rows(state, "round")[-1][0] > rounds[-1][0]


def test_a_stop_while_waiting_for_the_clock_ends_the_node_at_once(state: Path, start: Callable[..., Node]) -> None:
    node = start(state, settings=by_the_clock(86_400, 0.0))
    node.line("swarmd: round ")
    until(lambda: read_status(state)["phase"] == "coordinate")
    stopped_in_time(node, signal.SIGTERM)
    assert "abandoned" not in node.text()


def test_a_full_disk_is_told_once_and_training_goes_on(
    trained: Path, tmp_path: Path, start: Callable[..., Node]
) -> None:
    """The state directory is a file system of its own, with room for one checkpoint and a half."""
    unshare = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    state = tmp_path / "state"
    state.mkdir()
    newest = saved.newest(trained)
    assert newest is not None
    one = sum(file.stat().st_size for file in newest.path.iterdir())
    script = 'mount -t tmpfs -o size=$2 none "$1" && head -c $3 /dev/zero > "$1/ballast" && shift 3 && exec "$@"'
    sizes = [str(4 * one), str(5 * one // 2)]
    node = start(state, before=[*unshare, "sh", "-c", script, "sh", str(state), *sizes])
    inside = Path(f"/proc/{node.pid}/root{state}")
    failed = node.line("cannot be saved")
    assert failed.startswith("swarmd: error: round ")
    assert "No space left on device" in failed
    assert "training goes on, the last good one is " in failed
    done = node.rounds()[-1]
    node.after_round(done + 2)
    assert node.text().count("cannot be saved") == 1, "told once, not each round"
    (inside / "ballast").unlink()
    node.line("checkpoints can be written again")
    stopped_in_time(node, signal.SIGTERM)


def test_the_output_of_a_node_that_is_no_terminal_has_no_progress_bars(trained: Path) -> None:
    output = trained.with_name("state.err").read_text()
    assert "held-out score before training" in output, "the evaluation that would have one took place"
    assert "\r" not in output and "it/s" not in output and "%|" not in output
    assert all(line.startswith("swarmd: ") for line in output.splitlines())
    assert trained.with_name("state.out").read_text() == ""
