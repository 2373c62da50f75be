"""Structured records: what reaches a journal's socket through libsystemd, and what happens while nobody listens.

libsystemd knows one address, /run/systemd/journal/socket: the programs below see a /run of their own, where a socket
takes journald's place.
"""

import functools
import json
import logging
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from swarmd.system.journal import JournalHandler, journal_handler, stderr_is_journal
from swarmd.system.message_ids import MESSAGE_IDS

ROOT = Path(__file__).resolve().parents[2]

PRELUDE = """
import json, logging, os, socket, subprocess, sys, threading, time, warnings
from pathlib import Path
if "inner" not in sys.argv:
    again = [sys.executable, "-P", "-s", "-c", sys.argv[1], sys.argv[1], "inner"]
    os.execvp("unshare", ["unshare", "--map-root-user", "--mount", *again])
subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
Path("/run/systemd/journal").mkdir(parents=True)
status = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"

def journal(reads=True):
    sink = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sink.bind("/run/systemd/journal/socket")
    if reads:
        start_reading(sink)
    return sink

found = []

def start_reading(sink):
    threading.Thread(target=read, args=(sink,), daemon=True).start()

def read(sink):
    while True:
        data, handed, *_ = socket.recv_fds(sink, 1 << 22, 1)
        if handed:
            data = os.pread(handed[0], 1 << 22, 0)
        record = {}
        while data:
            line, data = data.split(b"\\n", 1)
            name, equals, value = line.partition(b"=")
            if not equals:
                size, data = int.from_bytes(data[:8], "little"), data[8:]
                value, data = data[:size], data[size + 1:]
            record[name.decode()] = value.decode()
        found.append(record)

def records():
    logging.getLogger("swarmd").setLevel(logging.CRITICAL)
    last = {"MESSAGE": "the end"}
    while found[-1:] != [last]:
        for handler in 3 * logging.getLogger("swarmd").handlers:
            handler.flush()
            time.sleep(0.02)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"MESSAGE=the end\\n", "/run/systemd/journal/socket")
        time.sleep(0.05)
    return [record for record in found if record != last]

from swarmd.system.events import adopt_libraries, configure_logging, crashed, event, refused, set_context
from swarmd.system.streams import adopt_streams, report_uncaught
"""


@functools.cache
def own_run_is_possible() -> bool:
    command = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/run"]
    return subprocess.run(command, capture_output=True).returncode == 0


def program(text: str) -> tuple[list[dict[str, str]], str]:
    """What the program printed as JSON, and its stderr."""
    pytest.importorskip("systemd.journal")
    if not own_run_is_possible():
        pytest.skip("this machine allows no mount namespaces")
    source = PRELUDE + textwrap.dedent(text)
    done = subprocess.run(
        [sys.executable, "-P", "-s", "-c", source, source],
        capture_output=True, text=True, timeout=120, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_an_event_is_a_record_with_its_fields_and_the_context() -> None:
    (record,), stderr = program("""
        journal()
        configure_logging()
        set_context(round=7, phase="train")
        event("child_replaced", "the scorer was replaced: 100%", priority=4, child="scorer", phase="share", pid=12,
              seconds={"train": 1.5, "inner": [1, None]}, nothing=None, fine=True)
        print(json.dumps(records()))
        """)
    assert stderr == ""
    line = int(record.pop("CODE_LINE"))
    assert 0 < line < 100
    assert record == {
        "MESSAGE": "the scorer was replaced: 100%",
        "MESSAGE_ID": MESSAGE_IDS["child_replaced"],
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "swarmd",
        "CODE_FILE": "<string>",
        "CODE_FUNC": "<module>",
        "SWARMD_EVENT": "child_replaced",
        "SWARMD_CHILD": "scorer",
        "SWARMD_ROUND": "7",
        "SWARMD_PHASE": "share",
        "SWARMD_PID": "12",
        "SWARMD_SECONDS": '{"train": 1.5, "inner": [1, null]}',
        "SWARMD_FINE": "true",
    }


def test_each_priority_reaches_the_journal_as_it_is() -> None:
    found, _ = program("""
        journal()
        configure_logging("debug")
        for priority in range(8):
            event("started", "x", priority=priority)
        log = logging.getLogger("swarmd")
        for level in (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG):
            log.log(level, "x")
        print(json.dumps(records()))
        """)
    assert [int(record["PRIORITY"]) for record in found] == [*range(8), 2, 3, 4, 6, 7]


def test_a_traceback_stays_whole_in_one_record() -> None:
    (crash, refusal), _ = program("""
        journal()
        configure_logging()
        try:
            raise OSError("cannot reach https://user:hunter2hunter2@host/")
        except OSError as error:
            crashed(error)
        refused("it cannot be used:\\nconfig.yaml:3: token: hf_abcdefghijklmnopqrstuv\\nline\\x1b[2J 3", 78)
        print(json.dumps(records()))
        """)
    lines = crash["MESSAGE"].splitlines()
    assert lines[0] == "the node ends: OSError: cannot reach https://***@host/"
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "OSError: cannot reach https://***@host/"
    assert crash["PRIORITY"] == "2"
    assert refusal["MESSAGE"].splitlines() == ["it cannot be used:", "config.yaml:3: token: hf_***", "line\\x1b[2J 3"]
    assert refusal["SWARMD_EXIT_CODE"] == "78"


def test_libraries_warnings_prints_and_uncaught_exceptions_reach_the_journal_with_their_source() -> None:
    found, stderr = program("""
        journal()
        configure_logging("debug")
        report_uncaught()
        stdout = sys.stdout
        adopt_streams()
        logging.getLogger("some.library").warning("lost %d peers", 3)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        print("printed", 3, flush=True)
        sys.stderr.write("10%|#   |\\r 20%|##  |\\r\\nhalf a line")
        thread = threading.Thread(target=lambda: 1 / 0, name="worker")
        thread.start()
        thread.join()
        os.write(2, b"of C\\n")
        time.sleep(0.2)
        found_now = records()
        print(json.dumps(found_now), file=stdout, flush=True)
        """)
    told = [(record["PRIORITY"], record.get("SWARMD_SOURCE"), record["MESSAGE"].splitlines()[0]) for record in found]
    assert told[0] == ("7", "some.library", "some.library: warning: lost 3 peers")
    assert told[1][:2] == ("7", "py.warnings") and "DeprecationWarning: old" in told[1][2]
    assert told[2:5] == [
        ("7", "stdout", "stdout: printed 3"),
        ("7", "stderr", "stderr: 10%|#   |"),
        ("7", "stderr", "stderr:  20%|##  |"),
    ]
    assert told[5][0] == "3" and told[5][2].startswith("the thread worker ended: ZeroDivisionError")
    assert len(told) == 6
    assert stderr == "of C\n"


def test_while_nobody_listens_the_node_goes_on_and_nothing_is_lost() -> None:
    found, _ = program("""
        configure_logging()
        for n in range(3000):
            event("started", f"absent {n}")
        journal()
        event("started", "back")
        print(json.dumps(records()))
        """)
    assert [record["MESSAGE"] for record in found] == [*(f"absent {n}" for n in range(3000)), "back"]


def test_a_journal_that_does_not_read_blocks_nobody_and_what_did_not_fit_is_counted() -> None:
    found, _ = program("""
        sink = journal(reads=False)
        configure_logging()
        for n in range(3000):
            event("started", f"{n} " + "x" * 8000)
        start_reading(sink)
        print(json.dumps([{"MESSAGE": record["MESSAGE"][:60]} for record in records()]))
        """)
    messages = [record["MESSAGE"] for record in found]
    (missing,) = [message for message in messages if "lines are missing here" in message]
    numbers = [int(message.split()[0]) for message in messages if message != missing]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 2999
    assert len(numbers) + int(missing.split()[0]) == 3000


def test_at_the_end_a_journal_that_is_away_is_waited_for_once_and_not_for_ever() -> None:
    journal_away, _ = program("""
        configure_logging()
        for n in range(100):
            event("started", f"{n}")
        for handler in logging.getLogger("swarmd").handlers:
            handler.flush()
        print("[]")
        """)
    assert journal_away == []


def record(message: str = "x", **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("swarmd", logging.INFO, "file.py", 1, message, None, None)
    vars(made).update(extra)
    return made


@pytest.fixture
def reader(tmp_path: Path) -> Iterable[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sink:
        sink.bind(str(tmp_path / "socket"))
        yield sink


def sent_with(reader: socket.socket, error: OSError | None = None) -> tuple[JournalHandler, list[list[bytes]]]:
    sent: list[list[bytes]] = []

    def send(fields: Iterable[bytes]) -> None:
        fields = list(fields)
        if error is not None and b"bad" in fields[0]:
            raise error
        sent.append(fields)

    return JournalHandler(dict, send, reader.getsockname()), sent


def test_a_record_that_the_journal_refuses_holds_up_no_other(reader: socket.socket) -> None:
    handler, sent = sent_with(reader, OSError(90, "Message too long"))
    for message in ("good", "bad", "better"):
        handler.handle(record(message))
    texts = [fields[0].decode() for fields in sent]
    missing = "MESSAGE=1 lines are missing here: the journal did not take them"
    assert texts == ["MESSAGE=good", missing, "MESSAGE=better"]


def test_a_journal_that_refuses_even_the_account_of_what_it_refused_gets_it_later(
    reader: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    refuses, sent = True, []

    def send(fields: Iterable[bytes]) -> None:
        if refuses:
            raise OSError(105, "No buffer space available")
        sent.append(next(iter(fields)))

    handler = JournalHandler(dict, send, reader.getsockname())
    logging.getLogger("swarmd").addHandler(handler)
    try:
        for message in "abc":
            handler.handle(record(message))
        refuses = False
        handler.handle(record("d"))
        handler.handle(record("e"))
    finally:
        logging.getLogger("swarmd").removeHandler(handler)
    missing = b"MESSAGE=3 lines are missing here: the journal did not take them"
    assert sent == [b"MESSAGE=d", missing, b"MESSAGE=e"]
    assert capsys.readouterr().err == "", "the handler told of a fault of its own"


def test_names_of_fields_are_made_such_as_the_journal_takes(reader: socket.socket) -> None:
    handler, sent = sent_with(reader)
    handler.handle(record(event_fields={"a-b.c é": 1, "x" * 100: 2, "text": "\ud800"}))
    names = [field.split(b"=")[0].decode() for field in sent[0]]
    assert {"SWARMD_A_B_C__", "SWARMD_TEXT"} <= set(names)
    assert max(map(len, names)) == 64


def test_a_record_that_cannot_be_written_ends_nobody(
    reader: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unwritable:
        def __str__(self) -> str:
            raise RuntimeError("not to be written")

    handler, sent = sent_with(reader)
    handler.handle(record(event_fields={"x": Unwritable()}))
    handler.handle(record("next"))
    assert [fields[0] for fields in sent] == [b"MESSAGE=next"]
    assert "not to be written" in capsys.readouterr().err


def test_the_journal_is_used_only_where_stderr_leads_there(monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.fstat(2)
    for value in ("", "1", "1:2", "x:y", f"{status.st_dev}:{status.st_ino + 1}"):
        monkeypatch.setenv("JOURNAL_STREAM", value)
        assert not stderr_is_journal()
        assert journal_handler(dict) is None
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    assert stderr_is_journal()
    monkeypatch.setitem(sys.modules, "systemd.journal", None)
    assert journal_handler(dict) is None, "without systemd-python, lines on stderr"
