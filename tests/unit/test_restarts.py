"""The report of `swarmd restarts`, and what it says where it cannot read."""

import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from swarmd.commands.restarts import HistoryUnreadable, moment, restart_json, restart_lines, restarts
from swarmd.system import journal_reader
from swarmd.system.journal_reader import Journal, JournalUnreadable
from swarmd.system.ledger import note_end, note_start
from swarmd.system.ledger_file import LEDGER_FILE, End
from swarmd.system.restart_history import Ended, History, Running

ROOT = Path(__file__).resolve().parents[2]
BEGUN = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
EVENT = Ended(BEGUN + timedelta(hours=1), BEGUN, "watchdog", 3600.0, "train", 7, None, "ABRT", "i1")
REFUSED = Ended(BEGUN + timedelta(hours=2), None, "config", None, None, None, 78, None, "i2")
TOLD = History((EVENT, REFUSED), Running(BEGUN, 90061.0), {"watchdog": 1, "config": 1}, 93661.0, None, ("a note",))


@pytest.fixture
def no_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(journal_reader, "_PLACES", (tmp_path / "no-journal",))


def test_the_json_has_the_promised_keys() -> None:
    document = restart_json(TOLD)
    json.dumps(document, allow_nan=False)
    assert {"events", "totals", "mtbf_s"} <= set(document)
    assert document["events"][0] == {
        "time": "2026-11-23T10:00:00.000Z", "cause": "watchdog", "uptime_s": 3600.0, "phase": "train", "round": 7,
        "exit_code": None, "signal": "ABRT", "started": "2026-11-23T09:00:00.000Z", "invocation_id": "i1",
    }  # fmt: skip
    assert document["events"][1]["started"] is None
    assert document["running"] == {"started": "2026-11-23T09:00:00.000Z", "uptime_s": 90061.0}
    assert document["totals"] == {"watchdog": 1, "config": 1}
    empty = restart_json(History((), None, {}, None))
    assert (empty["events"], empty["totals"], empty["mtbf_s"], empty["running"]) == ([], {}, None, None)


def test_the_table_has_a_line_for_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = list(restart_lines(TOLD))
    assert lines[0].split() == ["started", "ended", "uptime", "cause", "how", "phase", "round"]
    assert "1 h 0 min  watchdog    signal ABRT     train       7" in lines[1]
    assert "config      exit code 78    -           -" in lines[2]
    assert lines[3].endswith("1 d 1 h  running")
    assert lines[4:] == ["", "totals: watchdog 1, config 1", "mean time between failures: 1 d 2 h", "note: a note"]


def test_nothing_known_is_said_in_words() -> None:
    assert list(restart_lines(History((), None, {}, None))) == ["no start or stop is known"]
    running = list(restart_lines(History((), Running(BEGUN, 1.0), {}, None, BEGUN)))
    assert running[-1].startswith("no stop is known since")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T06:30:00Z", datetime(2026, 11, 22, 6, 30, tzinfo=UTC)),
        ("2026-11-22 06:30+02:00", datetime(2026, 11, 22, 4, 30, tzinfo=UTC)),
        ("2026-11-22", datetime(2026, 11, 22).astimezone()),
        ("today", datetime(2026, 11, 23).astimezone()),
        (" Yesterday ", datetime(2026, 11, 22).astimezone()),
        ("now", BEGUN),
        ("7d", BEGUN - timedelta(days=7)),
        ("2 w ago", BEGUN - timedelta(days=14)),
        ("90min", BEGUN - timedelta(minutes=90)),
    ],
)
def test_since_takes_dates_and_durations(text: str, expected: datetime) -> None:
    assert moment(text, BEGUN) == expected


@pytest.mark.parametrize("text", ["", "soon", "7", "d7", "2026-13-01", "999999w", "7 days"])
def test_any_other_point_in_time_is_refused_with_what_is_understood(text: str) -> None:
    with pytest.raises(ValueError, match="no point in time; write 2026-01-31"):
        moment(text, BEGUN)


@pytest.mark.usefixtures("no_journal")
def test_without_a_journal_the_ledger_tells_and_the_report_says_so(tmp_path: Path) -> None:
    note_start(tmp_path, "1", "b", "i1")
    note_end(tmp_path, End("oom-kill", "train", 3, None, "KILL", "i1"), "1", "b")
    account = restarts("swarmd.service", tmp_path, None)
    assert [event.cause for event in account.events] == ["oom-kill"]
    assert account.totals == {"oom-kill": 1}
    assert any("from the ledger in" in note for note in account.notes)


@pytest.mark.usefixtures("no_journal")
@pytest.mark.parametrize(("unit", "instance"), [("swarmd.service", ""), ("swarmd@gpu0.service", "gpu0")])
def test_an_account_that_a_full_disk_sent_to_the_runtime_directory_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str, instance: str
) -> None:
    state, runtime = tmp_path / "lib" / instance, tmp_path / "run" / instance
    for place in (state, runtime):
        place.mkdir(parents=True)
        note_start(place, "1", "b", "i1")
    note_end(runtime, End("crash", invocation="i1"), "1", "b")
    monkeypatch.setattr("swarmd.commands.restarts.STATE", tmp_path / "lib")
    monkeypatch.setattr("swarmd.commands.restarts.RUNTIME", tmp_path / "run")
    assert restarts(unit, state, None).totals == {"crash": 1}
    assert restarts("swarmd@other.service", state, None).totals == {}


@pytest.mark.usefixtures("no_journal")
def test_without_journal_and_ledger_it_says_what_is_missing(tmp_path: Path) -> None:
    why = "there is no journal on this machine|systemd-python is not installed here"
    with pytest.raises(HistoryUnreadable, match=why):
        restarts("swarmd.service", tmp_path, None)
    (tmp_path / LEDGER_FILE).write_text("{")
    with pytest.raises(HistoryUnreadable):
        restarts("swarmd.service", None, None)


def test_an_empty_journal_has_no_records(tmp_path: Path) -> None:
    pytest.importorskip("systemd.journal")
    journal = Journal(tmp_path)
    assert list(journal.records("swarmd.service")) == []
    assert journal.begins() is None
    assert journal.last_sign("0" * 32) is None


def test_a_directory_that_is_not_there_is_named_as_the_fault(tmp_path: Path) -> None:
    pytest.importorskip("systemd.journal")
    with pytest.raises(JournalUnreadable, match="the journal cannot be opened"):
        list(Journal(tmp_path / "gone").records("swarmd.service"))


WITHOUT_SYSTEMD = """
import sys
sys.modules["systemd"] = None
from swarmd.commands.restarts import HistoryUnreadable, restarts
try:
    restarts("swarmd.service", None, None)
except HistoryUnreadable as error:
    print(error)
"""


def test_without_systemd_python_it_says_what_to_install() -> None:
    command, path = [sys.executable, "-c", WITHOUT_SYSTEMD], {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | path)
    assert "systemd-python is not installed" in done.stdout, done.stderr


FORBIDDEN = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from swarmd.system import journal_reader
os.setgroups([]); os.setgid(65534); os.setuid(65534)
journal_reader._PLACES = (Path(sys.argv[1]),)
try:
    journal_reader._check_access()
except journal_reader.JournalUnreadable as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
@pytest.mark.parametrize("mode", [0o750, 0o755])
def test_who_may_not_read_the_journal_learns_how_to(mode: int) -> None:
    # Not below tmp_path: its parents are closed to others, and the journal's are not.
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        machine = Path(place, "0123")
        machine.mkdir()
        (machine / "system.journal").touch(0o640)
        machine.chmod(mode)
        command = [sys.executable, "-P", "-s", "-c", FORBIDDEN, place, str(ROOT)]
        done = subprocess.run(command, capture_output=True, text=True)
    assert "sudo adduser $USER systemd-journal" in done.stdout, done.stderr
