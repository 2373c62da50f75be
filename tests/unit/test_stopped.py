"""The accounting that the service manager runs after every stop, in a process of its own as there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarmd.monitor.status import STATUS_FILE, Status, StatusFile
from swarmd.stopped import ended
from swarmd.system.ledger import note_start, read_totals, this_boot
from swarmd.system.ledger_file import LEDGER_FILE, load

ROOT = Path(__file__).resolve().parents[2]


def environment(result: str, code: str = "", status: str = "", **more: str) -> dict[str, str]:
    return {"SERVICE_RESULT": result, "EXIT_CODE": code, "EXIT_STATUS": status, "INVOCATION_ID": "i1", **more}


def run(variables: dict[str, str], **options: object) -> subprocess.CompletedProcess[str]:
    """`python -m swarmd.stopped` with just these variables."""
    command = [sys.executable, "-P", "-s", "-m", "swarmd.stopped"]
    base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=base | variables, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    ("result", "code", "status", "cause", "exit_code", "signal"),
    [
        ("success", "exited", "0", "clean", 0, None),
        ("success", "killed", "TERM", "clean", None, "TERM"),
        ("exit-code", "exited", "75", "crash", 75, None),
        ("exit-code", "exited", "78", "config", 78, None),
        ("exit-code", "exited", "243", "config", 243, None),
        ("signal", "killed", "SEGV", "crash", None, "SEGV"),
        ("core-dump", "dumped", "ABRT", "crash", None, "ABRT"),
        ("watchdog", "killed", "ABRT", "watchdog", None, "ABRT"),
        ("watchdog", "dumped", "ABRT", "watchdog", None, "ABRT"),
        ("oom-kill", "killed", "KILL", "oom-kill", None, "KILL"),
        ("timeout", "killed", "KILL", "timeout", None, "KILL"),
        ("protocol", "exited", "0", "crash", 0, None),
        ("resources", "", "", "crash", None, None),
        ("", "", "", "crash", None, None),
    ],
)
def test_what_the_service_manager_says_becomes_a_cause(
    result: str, code: str, status: str, cause: str, exit_code: int | None, signal: str | None
) -> None:
    end = ended(environment(result, code, status), "train", 7)
    assert (end.cause, end.exit_code, end.signal) == (cause, exit_code, signal)
    assert (end.phase, end.round, end.invocation) == ("train", 7, "i1")


@pytest.fixture
def node(tmp_path: Path) -> dict[str, str]:
    """The directories of a node that has begun a run and told that it trains."""
    state, runtime = tmp_path / "state", tmp_path / "run"
    state.mkdir()
    runtime.mkdir()
    note_start(state, "1.0", this_boot(), "i1")
    StatusFile(runtime / STATUS_FILE).write(Status("training", phase="train", round=7), force=True)
    return {"STATE_DIRECTORY": str(state), "RUNTIME_DIRECTORY": str(runtime)}


def test_a_stop_is_booked_with_phase_round_and_uptime_and_told(node: dict[str, str]) -> None:
    done = run(environment("signal", "killed", "KILL", **node))
    assert done.returncode == 0
    assert done.stderr.startswith("swarmd: error: the service stopped: crash (signal KILL) after ")
    assert done.stderr.endswith(" s, in phase train, round 7\n")
    ledger = load(Path(node["STATE_DIRECTORY"]))
    assert ledger.totals == {"crash": 1}
    assert ledger.run is None
    (stop,) = ledger.stops
    assert (stop.cause, stop.phase, stop.round, stop.signal, stop.version) == ("crash", "train", 7, "KILL", "1.0")
    assert stop.uptime_s is not None and 0 <= stop.uptime_s < 600


def test_the_status_of_an_earlier_run_says_nothing_of_this_one(node: dict[str, str]) -> None:
    run(environment("exit-code", "exited", "78", **node) | {"INVOCATION_ID": "i2"})
    (stop,) = load(Path(node["STATE_DIRECTORY"])).stops
    assert (stop.cause, stop.phase, stop.round) == ("config", None, None)
    os.utime(Path(node["RUNTIME_DIRECTORY"], STATUS_FILE), (0, 0))
    run(environment("signal", "killed", "KILL", **node))
    assert load(Path(node["STATE_DIRECTORY"])).stops[-1].phase is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1]", b'{"state": "training", "process": {}, "round": "x"}'])
def test_a_status_that_cannot_be_read_does_not_keep_the_stop_from_being_booked(
    node: dict[str, str], content: bytes
) -> None:
    Path(node["RUNTIME_DIRECTORY"], STATUS_FILE).write_bytes(content)
    done = run(environment("watchdog", "killed", "ABRT", **node))
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert read_totals(Path(node["STATE_DIRECTORY"])) == {"watchdog": 1}


@pytest.mark.parametrize("result", ["success", "signal"])
def test_without_any_directory_it_only_tells(result: str) -> None:
    done = run(environment(result, "exited", "0"))
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert "the service stopped" in done.stderr


def test_without_anything_in_the_environment_it_does_not_fail() -> None:
    done = run({})
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


def test_a_full_disk_does_not_fail_the_unit(node: dict[str, str]) -> None:
    # A limit of 0 bytes for files that it writes: the nearest thing to a full disk that a test may make.
    done = run(
        environment("signal", "killed", "KILL", **node),
        preexec_fn=lambda: __import__("resource").setrlimit(__import__("resource").RLIMIT_FSIZE, (0, 0)),
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert json.loads(Path(node["STATE_DIRECTORY"], LEDGER_FILE).read_text())["starts"] == 1, "the old one is whole"
    assert [path.name for path in Path(node["STATE_DIRECTORY"]).iterdir()] == [LEDGER_FILE]


def test_it_loads_nothing_heavy() -> None:
    program = "import sys, swarmd.stopped; print(sorted({'torch', 'numpy', 'pydantic', 'msgpack'} & set(sys.modules)))"
    loaded = subprocess.run(
        [sys.executable, "-P", "-s", "-c", program], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert loaded.stdout == "[]\n", loaded.stderr
