"""The watchdog vouches for a node that gets on, and ends one that hangs, whatever the hang holds."""

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from swarmd.system import watchdog as module
from swarmd.system.notify import Notifier
from swarmd.system.phases import Phases
from swarmd.system.watchdog import Watchdog
from tests.service_manager import ServiceManager

LONG = 3600.0
WATCHDOG_SECONDS = 0.4


class Watched:
    """A watchdog over phases that a test plays, with a service manager at the other end."""

    def __init__(self, manager: ServiceManager | None, monkeypatch: pytest.MonkeyPatch, **deadlines: float) -> None:
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
            monkeypatch.delenv(name, raising=False)
        for name, value in (manager.variables if manager else {}).items():
            monkeypatch.setenv(name, value)
        self.phases = Phases(lambda phase: None)
        self.aborted = threading.Event()
        everywhere = dict.fromkeys(("start", "between", "train", "admit"), LONG)
        self.watchdog = Watchdog(self.phases, {**everywhere, **deadlines}, Notifier(), self.aborted.set)

    def __enter__(self) -> "Watched":
        self.watchdog.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.watchdog.close()

    def work(self, seconds: float, phase: str = "train") -> None:
        """A phase that gets on."""
        with self.phases.enter(phase):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                self.phases.beat()
                time.sleep(0.01)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    with ServiceManager(tmp_path / "notify", WATCHDOG_SECONDS) as manager:
        yield manager


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    found: list[logging.LogRecord] = []
    logger = logging.getLogger("swarmd")
    before = logger.handlers[:]
    logger.handlers[:] = [Kept()]
    yield found
    logger.handlers[:] = before


def test_a_phase_may_last_longer_than_its_deadline_as_long_as_it_gets_on(
    manager: ServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Watched(manager, monkeypatch, train=0.6) as node:
        node.work(1.5)
    assert not node.aborted.is_set()
    assert {message.fields["WATCHDOG"] for message in manager.of("WATCHDOG")} == {"1"}
    assert len(manager.of("WATCHDOG")) >= 1.5 / WATCHDOG_SECONDS


@pytest.mark.parametrize(
    ("phase", "round", "told"),
    [
        ("train", 7, "hung in phase train of round 7: 1 s without progress"),
        ("between", 7, "hung between two phases of round 7: 1 s without progress"),
        ("start", None, "hung in the start: 1 s without progress"),
    ],
)
def test_one_that_does_not_get_on_is_told_and_the_service_manager_asked_to_end_it(
    manager: ServiceManager, monkeypatch: pytest.MonkeyPatch, lines: list[logging.LogRecord],
    phase: str, round: int | None, told: str,
) -> None:  # fmt: skip
    with ExitStack() as stack:
        node = stack.enter_context(Watched(manager, monkeypatch, **{phase: 0.6}))
        if phase != "start":
            node.work(0.1)
        node.phases.round = round
        if phase == "train":
            stack.enter_context(node.phases.enter("train"))
        request = manager.field("WATCHDOG", "trigger")
        assert request.fields["STATUS"] == told
        (line,) = lines
        assert line.getMessage() == f"{told}; all stacks follow"
        fields = dict(vars(line)["event_fields"])
        assert 0.6 <= fields.pop("seconds") < 10.0
        assert (vars(line)["event_kind"], fields) == ("hung", {"phase": phase, "round": round})
        before = len(manager.messages)
        time.sleep(2 * WATCHDOG_SECONDS)
        assert len(manager.messages) == before, "not a word more: WatchdogSec= is what is left"
        assert not node.aborted.is_set(), "the service manager does it"


def test_until_the_first_phase_it_asks_for_more_time_and_afterwards_pings(
    manager: ServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EXTEND_EVERY", 0.2)
    with Watched(manager, monkeypatch) as node:
        manager.field("EXTEND_TIMEOUT_USEC", "60000000", after=2)
        assert manager.of("WATCHDOG") == []
        node.work(0.5)
        manager.field("WATCHDOG", "1")


def test_who_hangs_in_the_writing_of_a_line_is_ended_as_well(
    manager: ServiceManager, monkeypatch: pytest.MonkeyPatch, lines: list[logging.LogRecord]
) -> None:
    monkeypatch.setattr(module, "_LAST_WORDS_SECONDS", 0.3)
    (handler,) = logging.getLogger("swarmd").handlers
    with Watched(manager, monkeypatch, train=0.6) as node, node.phases.enter("train"):
        handler.acquire()
        try:
            request = manager.field("WATCHDOG", "trigger")
        finally:
            handler.release()
    assert "hung in phase train" in request.fields["STATUS"]


def test_outside_a_service_it_ends_the_node_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with Watched(None, monkeypatch, admit=0.6) as node, node.phases.enter("admit"):
        assert node.aborted.wait(60.0)


def test_a_service_manager_that_does_not_watch_gets_its_chance_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 0.2)
    with ServiceManager(tmp_path / "unwatched") as manager:
        with Watched(manager, monkeypatch, admit=0.6) as node, node.phases.enter("admit"):
            assert node.aborted.wait(60.0)
        assert manager.field("WATCHDOG").fields["WATCHDOG"] == "trigger"


def test_deadlines_may_change_while_it_watches(manager: ServiceManager, monkeypatch: pytest.MonkeyPatch) -> None:
    with Watched(manager, monkeypatch) as node, node.phases.enter("train"):
        manager.field("WATCHDOG", "1")
        node.watchdog.deadlines = {"between": LONG, "train": 0.6}
        manager.field("WATCHDOG", "trigger")


def test_a_phase_without_a_deadline_of_its_own_has_that_between_phases(
    manager: ServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Watched(manager, monkeypatch, between=0.6) as node, node.phases.enter("juggle"):
        assert "hung in phase juggle" in manager.field("WATCHDOG", "trigger").fields["STATUS"]


STOPPED = """
import time
from swarmd.system.notify import Notifier
from swarmd.system.phases import Phases
from swarmd.system.watchdog import Watchdog

phases = Phases(lambda phase: None)
Watchdog(phases, {"between": 1.0}, Notifier()).start()
with phases.enter("train"):
    print("works", flush=True)
    while True:
        # Slower than the watchdog looks, so that only its own count of the time tells.
        time.sleep(0.5)
        phases.beat()
        print("works", flush=True)
"""


def test_a_process_that_was_stopped_for_a_while_did_not_hang() -> None:
    with subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE) as node:
        assert node.stdout is not None
        node.stdout.readline()
        for _ in range(3):
            node.send_signal(signal.SIGSTOP)
            time.sleep(1.5)
            node.send_signal(signal.SIGCONT)
            time.sleep(0.3)
        for _ in range(3):
            assert node.stdout.readline() == b"works\n"
        assert node.poll() is None
        node.kill()


def test_it_ends_a_hung_process_with_the_stacks_of_all_threads() -> None:
    hung = STOPPED.partition("    while True:")[0] + "    def sleeps_on():\n        time.sleep(3600)\n    sleeps_on()\n"
    script = "from swarmd.system.startup import prepare_process\nprepare_process()\n" + hung
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ended.returncode == -signal.SIGABRT
    assert "in sleeps_on" in ended.stderr
    assert "hung in phase train: 1 s without progress; all stacks follow" in ended.stderr
