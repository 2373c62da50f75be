"""The main process's side of the network process: whatever that does, another one takes its place."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmd.network import network_process
from swarmd.network.network_process import NetworkDown, NetworkProcess
from swarmd.network.settings import ExchangeLimits, NetworkSettings
from swarmd.network.swarm_link import Swarm
from tests.unit.network_child import ANSWERS

PATIENCE = 60.0


def settings(state: Path, manner: str) -> NetworkSettings:
    return NetworkSettings(
        swarm_id="5eed1e55", dialect="swarmd", shards=1, secret="", identity_file="", state=str(state),
        runtime=str(state), listen=(), announce=(), relay=False, peers=(), datasets="embedded",
        limits=ExchangeLimits(16384, 64, 4, 8192), model=manner, trains=True,
    )  # fmt: skip


@pytest.fixture
def process(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NetworkProcess]:
    monkeypatch.setattr(network_process, "MODULE", "tests.unit.network_child")
    started = NetworkProcess(settings(tmp_path, request.param))
    started.start(lambda: None)
    yield started
    started.close()


def until(what: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def told(folder: Path) -> list[dict[str, Any]]:
    path = folder / "told"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("process", [*ANSWERS, "hangs"], indirect=True)
def test_a_child_that_answers_nonsense_or_not_at_all_is_replaced(process: NetworkProcess, tmp_path: Path) -> None:
    first = process.pid
    assert first is not None
    process.post("open", round=7)
    until(lambda: process.restarts == 1 and process.pid not in (None, first))
    assert process.call("echo", PATIENCE, lambda: None, text="well") == "well"
    # The new one is told at once whose records to keep, and not only at the next exchange.
    opened = [message for message in told(tmp_path) if message["call"] == "open"]
    assert [message["round"] for message in opened][-1] == 7
    assert opened[-1]["id"] < 0, "nobody waits for that answer"


@pytest.mark.parametrize("process", ["good"], indirect=True)
def test_at_the_end_the_child_is_asked_before_it_is_killed(process: NetworkProcess, tmp_path: Path) -> None:
    process.close()
    assert told(tmp_path)[-1]["call"] == "stop"


@pytest.mark.parametrize("process", ["good"], indirect=True)
def test_an_answer_that_does_not_come_is_given_up(process: NetworkProcess) -> None:
    with pytest.raises(NetworkDown, match="no answer to `silence`"):
        process.call("silence", 0.3, lambda: None)
    assert process.call("echo", PATIENCE, lambda: None, text="still there") == "still there"


@pytest.mark.parametrize("process", ["good"], indirect=True)
def test_a_message_that_cannot_be_sent_is_its_callers_fault_alone(process: NetworkProcess) -> None:
    with pytest.raises(TypeError):
        process.call("echo", PATIENCE, lambda: None, text=object())
    assert process.call("echo", PATIENCE, lambda: None, text="still there") == "still there"
    assert process.restarts == 0


def test_what_the_child_warns_of_is_a_warning_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(network_process, "MODULE", "tests.unit.network_child")
    monkeypatch.setattr(logging.getLogger("swarmd"), "propagate", True)
    caplog.set_level(logging.INFO, "swarmd")
    started = NetworkProcess(settings(tmp_path, "good"))
    started.start(lambda: None)
    try:
        until(lambda: "a warning of the child" in caplog.text)
    finally:
        started.close()
    [record] = [record for record in caplog.records if "a warning of the child" in record.getMessage()]
    assert (record.levelno, record.getMessage()) == (logging.WARNING, "network: a warning of the child")


class Answering:
    """Stands for a process that has been taken over: it answers a share with what it likes."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def post(self, name: str, **arguments: Any) -> None:
        pass

    def call(self, name: str, patience: float, beat: Any, **arguments: Any) -> Any:
        return self.answer


GROUP = {"peer_id": "Qm", "round": 3, "completions": ["a", "b"], "provenance": None, "question": "?"}


@pytest.mark.parametrize(
    "answer",
    [
        None, 5, [], {}, {"groups": 1, "seen": 0, "refused": {}}, {"groups": [5], "seen": 0, "refused": {}},
        {"groups": [{**GROUP, "completions": [1]}], "seen": 0, "refused": {}},
        {"groups": [{**GROUP, "provenance": {"seed": 1}}], "seen": 0, "refused": {}},
        {"groups": [{**GROUP, "peer_id": 4}], "seen": 0, "refused": {}},
        {"groups": [], "seen": "many", "refused": {}}, {"groups": [], "seen": 0, "refused": [1]},
    ],
)  # fmt: skip
def test_an_exchange_that_answers_nonsense_is_no_exchange(answer: Any) -> None:
    swarm = Swarm(Answering(answer), "me", "5eed1e55", 1, lambda round: time.time() + 60.0, 0.5, lambda: None)
    swarm.begin_round(3)
    assert swarm.all_gather_object({}) == {"me": {}}


def test_an_exchange_in_good_form_brings_its_groups() -> None:
    answer = {"groups": [GROUP], "seen": 1, "refused": {"copied": 2}}
    swarm = Swarm(Answering(answer), "me", "5eed1e55", 1, lambda round: time.time() + 60.0, 0.5, lambda: None)
    swarm.begin_round(3)
    gathered = swarm.all_gather_object({})
    [[payload]] = gathered["Qm"].values()
    assert payload.actions == ["a", "b"] and payload.world_state.environment_states == {"question": "?"}
    assert swarm.last == {**answer, "admitted": 1}
