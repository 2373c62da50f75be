"""What the service manager is told, at the other end of a real socket."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmd.system.notify import Notifier
from tests.service_manager import ServiceManager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    with ServiceManager(tmp_path / "notify", watchdog_seconds=60.0) as manager:
        yield manager


def connected(manager: ServiceManager, monkeypatch: pytest.MonkeyPatch, **variables: str) -> Notifier:
    for name, value in {**manager.variables, **variables}.items():
        monkeypatch.setenv(name, value)
    return Notifier()


def test_each_message_says_what_sd_notify_documents(
    manager: ServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifier = connected(manager, monkeypatch)
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    notifier.extend(60)
    notifier.ready("training")
    notifier.status("round 7")
    notifier.ping()
    notifier.reloading()
    notifier.stopping("waits")
    notifier.failed("no such model:\n  a.yaml:3: model.name", 22)
    notifier.trigger("hung")
    manager.field("WATCHDOG", "trigger")
    found = [message.fields for message in manager.messages]
    usec = int(found[4].pop("MONOTONIC_USEC"))
    assert before <= usec / 1e6 <= time.clock_gettime(time.CLOCK_MONOTONIC)
    assert found == [
        {"EXTEND_TIMEOUT_USEC": "60000000"},
        {"READY": "1", "STATUS": "training"},
        {"STATUS": "round 7"},
        {"WATCHDOG": "1"},
        {"RELOADING": "1", "STATUS": "reading the configuration anew"},
        {"STOPPING": "1", "STATUS": "waits"},
        {"STATUS": "no such model: a.yaml:3: model.name", "ERRNO": "22"},
        {"STATUS": "hung", "WATCHDOG": "trigger"},
    ]


def test_outside_a_service_nothing_is_said_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    notifier = Notifier()
    assert (notifier.connected, notifier.watchdog_seconds) == (False, None)
    notifier.ready("training")
    notifier.ping()


def test_no_child_may_speak_for_the_node(manager: ServiceManager, monkeypatch: pytest.MonkeyPatch) -> None:
    notifier = connected(manager, monkeypatch, WATCHDOG_PID=str(os.getpid()))
    show = "import os; print([name for name in os.environ if 'NOTIFY' in name or 'WATCHDOG' in name])"
    assert subprocess.run([sys.executable, "-c", show], capture_output=True, text=True).stdout == "[]\n"
    assert notifier.watchdog_seconds == 60.0


@pytest.mark.parametrize(
    "variables", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "-1"}]
)
def test_a_watchdog_that_is_not_for_this_process_is_none(
    manager: ServiceManager, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    notifier = connected(manager, monkeypatch, **variables)
    assert (notifier.connected, notifier.watchdog_seconds) == (True, None)


def test_a_status_is_one_line_of_text_without_secrets(
    manager: ServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifier = connected(manager, monkeypatch)
    notifier.status("Grüße, 世界\nREADY=1 token=abcdefgh1234 hf_abcdefghijkl")
    assert manager.field("STATUS").fields == {"STATUS": "Grüße, 世界\\nREADY=1 token=*** hf_***"}
    notifier.status("x" * 100_000)
    assert len(manager.status("xxx").fields["STATUS"]) < 1000


def test_an_abstract_address_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    with ServiceManager(f"@swarmd-test-{os.getpid()}") as manager:
        connected(manager, monkeypatch).ready("training")
        assert manager.field("READY").fields["READY"] == "1"


def test_readiness_that_did_not_fit_goes_with_the_next_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as busy:
        busy.bind(str(tmp_path / "busy"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "busy"))
        notifier = Notifier()
        # Fills the queue as somebody else's messages would.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            other.connect(str(tmp_path / "busy"))
            with pytest.raises(BlockingIOError):
                while True:
                    other.send(b"STATUS=other")
        notifier.ready("training")
        busy.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                assert busy.recv(4096) == b"STATUS=other"
        notifier.status("round 1")
        assert busy.recv(4096) == b"READY=1\nSTATUS=round 1"
        notifier.status("round 2")
        assert busy.recv(4096) == b"STATUS=round 2"


def test_a_new_socket_in_the_old_place_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ServiceManager(tmp_path / "notify") as first:
        notifier = connected(first, monkeypatch)
        notifier.ping()
        first.field("WATCHDOG")
    (tmp_path / "notify").unlink()
    notifier.ping()
    with ServiceManager(tmp_path / "notify") as second:
        notifier.stopping("waits")
        assert second.field("STOPPING").fields == {"STOPPING": "1", "STATUS": "waits"}


def test_a_service_manager_that_is_not_there_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    with caplog.at_level("WARNING", logger="swarmd"):
        notifier = Notifier()
        notifier.ready("training")
    assert not notifier.connected
    assert [record.getMessage() for record in caplog.records] == [
        f"the service manager cannot be told anything: [Errno 2] No such file or directory "
        f"($NOTIFY_SOCKET {tmp_path / 'nobody'})"
    ]
