"""The account of starts and stops in the state directory."""

import errno
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.system import ledger_file
from swarmd.system.ledger import (
    HEALTHY_SECONDS,
    PreviousEnd,
    backoff_seconds,
    described,
    note_end,
    note_start,
    read_totals,
    this_boot,
)
from swarmd.system.ledger_file import LEDGER_FILE, End, Ledger, LedgerUnreadable, load, read, save


@pytest.fixture(autouse=True)
def no_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)


def start(state: Path, invocation: str, version: str = "1", boot: str = "boot1") -> PreviousEnd:
    return note_start(state, version, boot, invocation)


def stop(state: Path, invocation: str, cause: str = "clean", **more: object) -> ledger_file.Stop:
    return note_end(state, End(cause, invocation=invocation, **more), "1", "boot1")  # type: ignore[arg-type]


def lived(state: Path, seconds: float) -> None:
    """As if the run in progress had begun so long ago."""
    ledger = load(state)
    assert ledger.run is not None
    run = replace(ledger.run, started_clock=ledger.run.started_clock - seconds)
    save(state, replace(ledger, run=run))


def test_the_first_start_knows_of_no_end(tmp_path: Path) -> None:
    previous = start(tmp_path, "a")
    assert (previous.cause, previous.quick_failures, previous.totals) == (None, 0, {})
    assert described(previous) == "this is its first start"


def test_a_start_tells_how_the_run_before_it_ended(tmp_path: Path) -> None:
    start(tmp_path, "a")
    lived(tmp_path, 100)
    stop(tmp_path, "a", "crash", phase="train", round=7, signal="KILL")
    previous = start(tmp_path, "b")
    assert (previous.cause, previous.phase, previous.round, previous.signal) == ("crash", "train", 7, "KILL")
    assert previous.totals == {"crash": 1}
    assert previous.uptime_s is not None and 100 <= previous.uptime_s < 110
    assert described(previous) == "the last run ended by crash (signal KILL) after 100 s, in phase train, round 7"


@pytest.mark.parametrize(
    ("version", "boot", "cause"),
    [("1", "boot1", "clean"), ("2", "boot1", "upgrade"), ("1", "boot2", "reboot"), ("2", "boot2", "reboot")],
)
def test_a_clean_stop_is_named_by_what_came_after_it(tmp_path: Path, version: str, boot: str, cause: str) -> None:
    start(tmp_path, "a")
    stop(tmp_path, "a")
    assert start(tmp_path, "b", version, boot).cause == cause
    assert read_totals(tmp_path) == {cause: 1}


def test_a_crash_before_an_upgrade_stays_a_crash(tmp_path: Path) -> None:
    start(tmp_path, "a")
    stop(tmp_path, "a", "crash")
    assert start(tmp_path, "b", "2", "boot2").cause == "crash"


@pytest.mark.parametrize(("boot", "cause"), [("boot2", "power-loss"), ("boot1", "unknown")])
def test_a_run_without_a_stop_is_noticed_at_the_next_start(tmp_path: Path, boot: str, cause: str) -> None:
    start(tmp_path, "a")
    assert start(tmp_path, "b", boot=boot).cause == cause
    assert read_totals(tmp_path) == {cause: 1}


def test_the_service_manager_corrects_what_the_node_said_of_its_end(tmp_path: Path) -> None:
    start(tmp_path, "a")
    stop(tmp_path, "a", phase="train", round=3)
    booked = stop(tmp_path, "a", "timeout", signal="KILL")
    assert (booked.cause, booked.phase, booked.round) == ("timeout", "train", 3)
    assert read_totals(tmp_path) == {"timeout": 1}
    assert load(tmp_path).run is None


def test_a_stop_before_the_start_was_noted_is_counted_and_leaves_another_run_alone(tmp_path: Path) -> None:
    start(tmp_path, "by hand")
    assert stop(tmp_path, "refused", "config", exit_code=78).uptime_s is None
    ledger = load(tmp_path)
    assert ledger.run is not None and ledger.run.invocation == "by hand"
    assert ledger.totals == {"config": 1}


def test_outside_systemd_the_node_books_its_own_end(tmp_path: Path) -> None:
    note_start(tmp_path, "1", "boot1", None)
    note_end(tmp_path, End("clean"), "1", "boot1")
    assert note_start(tmp_path, "1", "boot1", None).cause == "clean"


def test_the_last_stops_are_listed_and_all_are_in_the_totals(tmp_path: Path) -> None:
    start(tmp_path, "0")
    stop(tmp_path, "0", "crash")
    ledger = load(tmp_path)
    many = tuple(replace(ledger.stops[0], invocation=f"old{n}") for n in range(500))
    save(tmp_path, replace(ledger, stops=many, totals={"crash": 1234}))
    stop(tmp_path, "new", "watchdog")
    ledger = load(tmp_path)
    assert len(ledger.stops) == 500
    assert ledger.stops[-1].cause == "watchdog"
    assert ledger.totals == {"crash": 1234, "watchdog": 1}


def test_uptime_adds_up_over_the_runs(tmp_path: Path) -> None:
    for name in "ab":
        start(tmp_path, name)
        lived(tmp_path, 1000)
        stop(tmp_path, name)
    assert 2000 <= load(tmp_path).uptime_s < 2010


def crash(state: Path, name: str, seconds: float = 0.0) -> None:
    start(state, name)
    lived(state, seconds)
    stop(state, name, "crash")


def test_restarts_wait_longer_and_longer_up_to_five_minutes(tmp_path: Path) -> None:
    delays = []
    for n in range(14):
        delays.append(backoff_seconds(start(tmp_path, str(n))))
        stop(tmp_path, str(n), "crash")
    assert delays[:4] == [0, 0, 0, 2]
    assert delays[3:] == sorted(delays[3:])
    assert delays[-1] == 300


def test_ten_minutes_of_work_end_the_waiting_and_time_spent_waiting_is_no_work(tmp_path: Path) -> None:
    for n in range(12):
        crash(tmp_path, f"a{n}")
    waited = backoff_seconds(start(tmp_path, "b"))
    lived(tmp_path, HEALTHY_SECONDS + waited - 30)
    stop(tmp_path, "b", "crash")
    assert backoff_seconds(start(tmp_path, "c")) == 300
    lived(tmp_path, HEALTHY_SECONDS + 300)
    stop(tmp_path, "c", "crash")
    assert backoff_seconds(start(tmp_path, "d")) == 0


@pytest.mark.parametrize("cause", ["clean", "config"])
def test_an_end_that_is_no_failure_ends_the_waiting(tmp_path: Path, cause: str) -> None:
    for n in range(6):
        crash(tmp_path, f"a{n}")
    start(tmp_path, "b")
    stop(tmp_path, "b", cause)
    assert backoff_seconds(start(tmp_path, "c")) == 0


@given(st.integers(0, 10**9), st.floats(0, 1e6))
def test_no_number_of_failures_waits_longer_than_the_longest(failures: int, longest: float) -> None:
    previous = PreviousEnd("crash", None, None, None, None, None, None, failures, {})
    assert 0 <= backoff_seconds(previous, longest) <= longest


def test_a_ledger_is_replaced_in_one_step(tmp_path: Path) -> None:
    start(tmp_path, "a")
    assert [path.name for path in tmp_path.iterdir()] == [LEDGER_FILE]


def full_disk(monkeypatch: pytest.MonkeyPatch, full: Path, code: int) -> None:
    """Has `full` take no new content: root may fill no disk of this machine to see it."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_relative_to(full):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_on_a_full_disk_the_account_goes_on_in_the_runtime_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    state, runtime = tmp_path / "state", tmp_path / "run"
    state.mkdir()
    runtime.mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(runtime))
    start(state, "a")
    with monkeypatch.context() as patch:
        full_disk(patch, state, code)
        stop(state, "a", "crash")
        start(state, "b")
        stop(state, "b", "oom-kill")
        assert [path.name for path in state.iterdir()] == [LEDGER_FILE], "a torn file is left"
    assert read_totals(state) == {"crash": 1, "oom-kill": 1}
    start(state, "c")
    assert not (runtime / LEDGER_FILE).exists(), "the disk takes it again: one copy is enough"
    assert load(state).starts == 3


def test_a_disk_that_refuses_for_good_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full_disk(monkeypatch, tmp_path, errno.ENOSPC)
    assert start(tmp_path, "a").cause is None
    assert stop(tmp_path, "a", "crash").cause == "crash"
    assert "the account of restarts cannot be written" in caplog.text


def test_a_missing_state_directory_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert stop(tmp_path / "gone", "a", "crash").cause == "crash"
    assert "cannot be written" in caplog.text


def test_reading_changes_nothing_and_says_what_hinders_it(tmp_path: Path) -> None:
    assert read(tmp_path) == Ledger()
    assert not list(tmp_path.iterdir())
    (tmp_path / LEDGER_FILE).mkdir()
    with pytest.raises(LedgerUnreadable, match="cannot be read"):
        read(tmp_path)


def test_the_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    start(tmp_path, "a")
    stop(tmp_path, "a", "crash", phase="train", round=7, exit_code=75)
    start(tmp_path, "b")
    first = load(tmp_path)
    save(tmp_path, first)
    assert asdict(replace(load(tmp_path), serial=0)) == asdict(replace(first, serial=0))


def test_the_boot_is_written_as_in_the_journal() -> None:
    assert len(this_boot()) == 32
    int(this_boot(), 16)
