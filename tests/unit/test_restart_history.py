"""What the journal's records say of starts and stops, on records that a real systemd 252 wrote."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from swarmd.system.ledger_file import Ledger, Run, Stop
from swarmd.system.message_ids import MESSAGE_IDS
from swarmd.system.restart_history import History, history
from swarmd.system.restart_records import RunRecord, runs, with_last_signs

DUMP = Path(__file__).resolve().parents[1] / "data" / "journal_of_restarts.jsonl"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ELSEWHERE = "0" * 32
STARTING, STARTED = "7d4958e842da4a758f6c1cdc7b36dcc5", "39f53479d3a045ac8e11786248231fbf"
MAIN_EXITED, FAILED = "98e322203f7a4ed290d09fe03c09fe15", "d9b373ed55a64feb8242e02dbe79a49c"
SUCCEEDED, OOM = "7ad2d189f7e94e70a38c781354912448", "fe6faa94e7774663a0da52717891d8ef"


def dump() -> list[dict[str, Any]]:
    return [json.loads(line) for line in DUMP.read_text(encoding="utf-8").splitlines()]


def manager(message: str, at: float, invocation: str = "a", boot: str = "b1", **fields: str) -> dict[str, Any]:
    return {
        "_PID": "1", "_BOOT_ID": boot, "MESSAGE_ID": message, "INVOCATION_ID": invocation, "time": at, "clock": at,
    } | fields  # fmt: skip


def ours(kind: str, at: float, invocation: str = "a", boot: str = "b1", **fields: str) -> dict[str, Any]:
    return {
        "_BOOT_ID": boot, "MESSAGE_ID": MESSAGE_IDS[kind], "_SYSTEMD_INVOCATION_ID": invocation,
        "time": at, "clock": at,
    } | fields  # fmt: skip


def told(records: Sequence[dict[str, Any]], ledger: Ledger | None = None, since: datetime | None = None) -> History:
    return history(runs(records, "b1"), ledger or Ledger(), NOW, since)


def stop(invocation: str, cause: str = "crash", day: int = 1, **more: Any) -> Stop:
    fields = {"uptime_s": 100.0, "phase": "train", "round": 7, "exit_code": None, "signal": "KILL"} | more
    time = f"2026-11-{day:02}T00:00:00.000Z"
    return Stop(time, None, cause, invocation=invocation, boot_id="b1", version="1", **fields)


# What was done to the unit, in this order: kill -9 twice, exit 75, SIGSEGV twice, two hangs, a restart, a stop, a start
# with a broken configuration, a reboot; kill -9, the plug pulled; an upgrade, SIGINT, kill -9, the plug pulled; the
# same without an upgrade.
DONE = [
    ("crash", None, "KILL"), ("crash", None, "KILL"), ("crash", 75, None), ("crash", None, "SEGV"),
    ("crash", None, "SEGV"), ("watchdog", None, "ABRT"), ("watchdog", None, "ABRT"), ("clean", 0, None),
    ("clean", 0, None), ("config", 78, None), ("reboot", 0, None),
    ("crash", None, "KILL"), ("power-loss", None, None),
    ("upgrade", 0, None), ("clean", None, "INT"), ("crash", None, "KILL"), ("power-loss", None, None),
    ("clean", 0, None), ("clean", None, "INT"), ("crash", None, "KILL"), ("power-loss", None, None),
]  # fmt: skip


def test_every_stop_in_a_real_journal_gets_its_cause() -> None:
    found = [(run.cause, run.exit_code, run.signal) for run in runs(dump(), ELSEWHERE)]
    assert found == DONE


def test_uptime_phase_and_round_come_from_the_records() -> None:
    first, *_, eighth = runs(dump(), ELSEWHERE)[:8]
    assert (first.phase, first.round, first.version) == ("train", 7, "0.1.0")
    assert (eighth.phase, eighth.round) == ("train", 8)
    assert [first.uptime_s, eighth.uptime_s] == pytest.approx([2.098, 7.027], abs=0.002)


def test_without_our_own_records_the_service_managers_suffice() -> None:
    # The upgrade is the exception: only the node's own records tell its version.
    expected = [("clean" if cause == "upgrade" else cause, code, signal) for cause, code, signal in DONE]
    records = [record for record in dump() if record.get("_PID") == "1"]
    # It does not write either how the main process ended when that was well.
    expected = [(cause, code or None, None if cause == "clean" else signal) for cause, code, signal in expected]
    assert [(run.cause, run.exit_code, run.signal) for run in runs(records, ELSEWHERE)] == expected


def test_without_the_service_managers_records_ours_suffice() -> None:
    records = [record for record in dump() if record.get("_PID") != "1"]
    assert [(run.cause, run.exit_code, run.signal) for run in runs(records, ELSEWHERE)] == DONE


def test_the_last_run_of_the_present_boot_goes_on() -> None:
    *ended, last = runs(dump(), dump()[-1]["_BOOT_ID"])
    assert last.cause is None
    assert [run.cause for run in ended] == [cause for cause, *_ in DONE[:-1]]
    account = history([*ended, last], Ledger(), NOW, None)
    assert account.running is not None
    assert account.running.uptime_s == pytest.approx(NOW.timestamp() - dump()[-3]["time"], abs=1)
    assert len(account.events) == len(ended)


def test_a_run_that_was_cut_off_lasted_until_the_last_sign_of_its_boot() -> None:
    run = RunRecord("a", "b0", began=100.0, began_clock=10.0, last_seen=100.1, last_clock=10.1, cause="power-loss")
    other = RunRecord("b", "b0", began=1.0, began_clock=1.0, ended=5.0, cause="crash", uptime_s=4.0)
    cut_off, untouched = with_last_signs([run, other], {"b0": (3700.0, 3610.0)})
    assert (cut_off.uptime_s, cut_off.last_seen) == (3600.0, 3700.0)
    assert untouched == other


@pytest.mark.parametrize(
    ("result", "status", "code", "cause"),
    [
        ("oom-kill", "9", "killed", "oom-kill"),
        ("watchdog", "6", "dumped", "watchdog"),
        ("timeout", "9", "killed", "timeout"),
        ("core-dump", "11", "dumped", "crash"),
        ("protocol", "0", "exited", "crash"),
        ("resources", "", "", "crash"),
        ("exit-code", "78", "exited", "config"),
        ("exit-code", "203", "exited", "crash"),
        ("exit-code", "243", "exited", "config"),
    ],
)
def test_each_result_of_the_service_manager_has_its_cause(result: str, status: str, code: str, cause: str) -> None:
    records = [
        manager(STARTING, 1),
        manager(OOM, 1.5) if result == "oom-kill" else manager(STARTED, 1.5),
        manager(MAIN_EXITED, 2, EXIT_CODE=code, EXIT_STATUS=status),
        manager(FAILED, 3, UNIT_RESULT=result),
    ]
    (run,) = runs(records, "b1")
    assert (run.cause, run.uptime_s) == (cause, 1.0)


def test_a_reload_that_was_refused_ends_no_run() -> None:
    records = [
        manager(STARTING, 1), manager(STARTED, 2),
        manager(MAIN_EXITED, 3, EXIT_CODE="exited", EXIT_STATUS="78",
                MESSAGE="swarmd.service: Control process exited, code=exited, status=78/CONFIG"),
    ]  # fmt: skip
    (run,) = runs(records, "b1")
    assert (run.cause, run.exit_code, run.uptime_s) == (None, None, None)


def test_the_oom_killers_hit_on_a_child_alone_ends_no_run() -> None:
    records = [manager(STARTING, 1), manager(OOM, 2), manager(SUCCEEDED, 9)]
    (run,) = runs(records, "b1")
    assert run.cause == "clean"
    (goes_on,) = runs(records[:2], "b1")
    assert (goes_on.cause, goes_on.ended) == (None, None)


def test_where_the_journal_breaks_off_the_oom_killer_is_not_forgotten() -> None:
    exited = manager(MAIN_EXITED, 3, EXIT_CODE="killed", EXIT_STATUS="9")
    (killed,) = runs([manager(STARTING, 1), manager(OOM, 2), exited], "b1")
    (crashed,) = runs([manager(STARTING, 1), exited], "b1")
    assert (killed.cause, crashed.cause) == ("oom-kill", "crash")


def test_the_watchdogs_last_words_name_the_phase() -> None:
    records = [
        ours("started", 1, SWARMD_VERSION="1"),
        ours("hung", 50, SWARMD_PHASE="share", SWARMD_ROUND="9"),
        ours("service_stopped", 60, SWARMD_PHASE="train", SWARMD_ROUND="9", SWARMD_CAUSE="watchdog"),
    ]
    (run,) = runs(records, "b1")
    assert (run.cause, run.phase, run.round) == ("watchdog", "share", 9)


def test_a_run_whose_end_was_not_written_is_unknown_while_the_machine_stayed_up() -> None:
    first, second = runs([manager(STARTING, 1), manager(STARTING, 9, invocation="b")], "b1")
    assert (first.cause, second.cause) == ("unknown", None)


def test_the_old_versions_stop_may_be_booked_by_the_new_version() -> None:
    records = [
        ours("started", 1, SWARMD_VERSION="1"),
        ours("service_stopped", 2, SWARMD_VERSION="2", SWARMD_CAUSE="clean"),
        ours("started", 3, invocation="b", SWARMD_VERSION="2"),
    ]
    assert runs(records, "b1")[0].cause == "upgrade"


@pytest.mark.parametrize("field", ["SWARMD_ROUND", "SWARMD_UPTIME_S", "EXIT_STATUS", "SWARMD_CAUSE", "UNIT_RESULT"])
@pytest.mark.parametrize("value", ["", "x", "-1", "nan", "9" * 5000, "\u0663", "1e400"])
def test_odd_values_in_a_record_do_no_harm(field: str, value: str) -> None:
    records = [record | {field: value} for record in dump()]
    account = told(records)
    assert len(account.events) >= len(DONE) - 1
    json.dumps([event.uptime_s for event in account.events], allow_nan=False)


def test_records_without_an_invocation_are_left_out() -> None:
    nameless = [{key: value for key, value in record.items() if "INVOCATION" not in key} for record in dump()]
    assert runs(nameless, "b1") == []


def test_totals_and_the_mean_time_between_failures() -> None:
    records = []
    for n in range(4):
        name = f"r{n}"
        records += [manager(STARTING, 1000 * n, invocation=name), manager(STARTED, 1000 * n + 1, invocation=name)]
        end = manager(SUCCEEDED, 1000 * n + 900, invocation=name)
        records.append(end if n == 3 else end | {"MESSAGE_ID": FAILED, "UNIT_RESULT": "watchdog" if n else "signal"})
    account = told(records)
    assert account.totals == {"clean": 1, "crash": 1, "watchdog": 2}
    assert account.mtbf_s == 4 * 900 / 3


def test_a_fault_of_the_configuration_or_the_mains_is_no_failure_of_the_node() -> None:
    ledger = Ledger(stops=(stop("a", "config"), stop("b", "power-loss")), totals={"config": 1, "power-loss": 1})
    assert told([], ledger).mtbf_s is None


def test_what_the_journal_has_lost_comes_from_the_ledger() -> None:
    ledger = Ledger(
        totals={"crash": 10, "clean": 2},
        uptime_s=5000.0,
        stops=(stop("old", day=1), stop("new", "clean", day=2, phase=None)),
    )
    records = [
        manager(STARTING, NOW.timestamp() - 500, invocation="new"),
        manager(SUCCEEDED, NOW.timestamp() - 400, invocation="new"),
    ]
    account = told(records, ledger)
    assert [event.invocation for event in account.events] == ["old", "new"]
    assert account.totals == {"clean": 2, "crash": 10}
    assert account.mtbf_s == 500.0
    assert any(note.startswith("1 of these stops are no longer in the journal") for note in account.notes)
    assert "10 older stops are in the totals only" in account.notes


def test_a_stop_that_both_know_counts_once_and_each_fills_the_others_gaps() -> None:
    ledger = Ledger(totals={"unknown": 1}, stops=(stop("a", "unknown", round=33),), uptime_s=100.0)
    records = [manager(STARTING, 1), manager(FAILED, 11, UNIT_RESULT="oom-kill")]
    account = told(records, ledger)
    assert account.totals == {"oom-kill": 1}
    (event,) = account.events
    assert (event.cause, event.uptime_s, event.phase, event.round, event.signal) == (
        "oom-kill", 10.0, "train", 33, "KILL",
    )  # fmt: skip


def test_a_run_whose_end_only_the_ledger_knows_does_not_go_on() -> None:
    ledger = Ledger(totals={"crash": 1}, stops=(stop("a"),), uptime_s=100.0)
    account = told([manager(STARTING, 1)], ledger)
    assert (account.running, account.totals) == (None, {"crash": 1})


def test_since_leaves_out_what_ended_before_but_not_what_runs_now() -> None:
    ledger = Ledger(totals={"crash": 9}, stops=(stop("a", day=1), stop("b", day=20)), uptime_s=900.0)
    account = told([manager(STARTING, 1, invocation="c")], ledger, datetime(2026, 11, 10, tzinfo=UTC))
    assert [event.invocation for event in account.events] == ["b"]
    assert account.totals == {"crash": 1}
    assert account.notes == ()
    now = told([manager(STARTING, 1, invocation="c")], ledger, NOW + timedelta(seconds=1))
    assert now.events == () and now.running is not None


def test_a_run_in_the_ledger_alone_is_no_event() -> None:
    ledger = Ledger(run=Run("a", "b1", "1", "2026-11-01T00:00:00.000Z", 0.0, 0.0))
    assert told([], ledger).events == ()
