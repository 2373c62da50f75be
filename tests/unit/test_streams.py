"""What child processes and libraries print: each line in the log, with its source, and nothing lost."""

import io
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmd.system.child import Child, start_child
from swarmd.system.events import configure_logging
from swarmd.system.link import LinkClosed
from swarmd.system.streams import LineReader, LineStream

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(), logging.getLogger("swarmd")]
    saved = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    logging.captureWarnings(False)
    for logger, handlers, level, propagate in saved:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


def logged(level: str = "debug") -> io.StringIO:
    stream = io.StringIO()
    configure_logging(level, stream)
    return stream


@pytest.fixture
def child_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A child that runs the given lines after it has adopted its parent."""
    monkeypatch.syspath_prepend(str(tmp_path))
    children: list[Child] = []

    def start(lines: str) -> Child:
        program = "import faulthandler, os, sys, time\n"
        program += "from swarmd.system.child import adopt_parent\nlink = adopt_parent()\n"
        (tmp_path / "printing_child.py").write_text(program + textwrap.dedent(lines))
        children.append(start_child("scorer", "printing_child"))
        return children[-1]

    yield start
    for child in children:
        child.kill()


def ended(child: Child) -> None:
    with pytest.raises(LinkClosed):
        child.link.receive(30)


def waited_for(out: io.StringIO, text: str) -> bool:
    deadline = time.monotonic() + 20
    while text not in out.getvalue():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_what_a_child_prints_is_told_line_by_line_with_its_name(child_that) -> None:
    out = logged()
    child_that("""
        print("out", flush=True)
        os.write(2, b"one\\ntwo \\xff\\x1b[2J\\n\\nhf_abcdefghijklmnopqrstuvwxyz\\r50%\\r100%\\nrest")
        time.sleep(60)
    """)
    assert waited_for(out, "100%")
    assert out.getvalue().splitlines() == [
        "swarmd: scorer: out",
        "swarmd: scorer: one",
        "swarmd: scorer: two \\xff\\x1b[2J",
        "swarmd: scorer: hf_***",
        "swarmd: scorer: 50%",
        "swarmd: scorer: 100%",
    ]


def test_at_info_a_childs_chatter_is_not_shown_and_its_death_is(child_that) -> None:
    out = logged("info")
    child = child_that("""
        faulthandler.enable(2)
        print("a question of life and death", flush=True)
        os.abort()
    """)
    ended(child)
    assert out.getvalue() == ""
    assert child.kill() == -signal.SIGABRT
    lines = out.getvalue().splitlines()
    assert lines[0] == "swarmd: warning: the scorer process died with signal ABRT, its last lines:"
    assert lines[1] == "a question of life and death"
    assert "Fatal Python error: Aborted" in lines
    assert any(line.endswith('printing_child.py", line 7 in <module>') for line in lines), lines


def test_an_exit_with_a_code_is_a_death_too(child_that) -> None:
    out = logged("info")
    child = child_that("raise ValueError('no')")
    ended(child)
    assert child.kill() == 1
    assert "the scorer process died with exit status 1, its last lines:" in out.getvalue()
    assert out.getvalue().endswith("ValueError: no\n")


@pytest.mark.parametrize("lines", ["os._exit(0)", "time.sleep(60)"])
def test_a_child_that_ends_well_or_by_our_hand_is_no_warning(child_that, lines: str) -> None:
    out = logged("info")
    child = child_that(lines)
    if "exit" in lines:
        ended(child)
    child.kill()
    assert out.getvalue() == ""


def test_a_child_that_somebody_else_killed_is_a_warning(child_that) -> None:
    out = logged("info")
    child = child_that("time.sleep(60)")
    os.kill(child.pid, signal.SIGKILL)
    ended(child)
    deadline = time.monotonic() + 20
    while child.alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    child.kill()
    assert out.getvalue() == "swarmd: warning: the scorer process died with signal KILL, without a word\n"


def test_a_line_without_an_end_is_told_in_pieces_and_the_last_lines_are_bounded() -> None:
    out = logged()
    read_end, write_end = os.pipe()
    reader = LineReader("p2pd", read_end)
    with open(write_end, "w") as pipe:
        pipe.write("x" * 100_000 + "\n" + "".join(f"{n}\n" for n in range(1000)))
    last = reader.last_lines(30)
    assert last == [str(n) for n in range(940, 1000)]
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) < 9000
    assert sum(line.count("x") for line in lines) == 100_000
    with pytest.raises(OSError):
        os.fstat(read_end)


def test_the_last_lines_have_no_marks_that_only_this_process_understands() -> None:
    logged()
    read_end, write_end = os.pipe()
    reader = LineReader("network", read_end, leveled=True)
    with open(write_end, "w") as pipe:
        pipe.write("<6>no peer answers\nTraceback\n")
    assert reader.last_lines(30) == ["no peer answers", "Traceback"]


def test_a_stream_in_place_of_stderr_tells_whole_lines() -> None:
    out = logged()
    stream = LineStream("stderr", 2)
    print("a", "b", file=stream)
    stream.write("c")
    stream.write("d\n\n  \ne")
    assert out.getvalue().splitlines() == ["swarmd: stderr: a b", "swarmd: stderr: cd"]
    assert (stream.fileno(), stream.isatty(), stream.writable()) == (2, False, True)


def python(program: str) -> subprocess.CompletedProcess[str]:
    prelude = (
        "import sys, threading\n"
        "from swarmd.system.events import configure_logging\n"
        "from swarmd.system.streams import adopt_streams, report_uncaught\n"
    )
    return subprocess.run(
        [sys.executable, "-P", "-s", "-c", prelude + textwrap.dedent(program)],
        capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_an_exception_that_nobody_caught_is_told_without_its_secrets() -> None:
    done = python("""
        report_uncaught()
        raise OSError("no answer from https://user:hunter2hunter2@host/")
    """)
    assert done.returncode == 1
    first = "swarmd: critical: the node ends: OSError: no answer from https://***@host/\n"
    assert done.stderr.startswith(first + "Traceback")
    assert "hunter2" not in done.stderr


def test_so_is_one_in_a_thread_and_one_in_a_finalizer() -> None:
    done = python("""
        configure_logging("debug")
        report_uncaught()
        class Finalized:
            def __del__(self):
                raise OSError("password=hunter2hunter2")
        Finalized()
        thread = threading.Thread(target=lambda: [].pop(), name="worker")
        thread.start()
        thread.join()
    """)
    assert "swarmd: ignored in " in done.stderr
    assert "password=***" in done.stderr and "hunter2" not in done.stderr
    assert "swarmd: error: the thread worker ended: IndexError" in done.stderr


def test_a_log_that_cannot_be_written_and_a_replaced_stderr_do_not_call_each_other_for_ever() -> None:
    done = python("""
        import logging
        configure_logging("debug")
        adopt_streams()
        class Broken(logging.Handler):
            def emit(self, record):
                try:
                    raise OSError("the log is broken")
                except OSError:
                    self.handleError(record)
        logging.getLogger("swarmd").handlers[:] = [Broken()]
        print("hello")
    """)
    assert done.returncode == 0
    assert "the log is broken" in done.stderr
