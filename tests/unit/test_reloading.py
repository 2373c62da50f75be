"""SIGHUP asks for a reload; that of a terminal that is gone ends the node."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

from swarmd.system.reloading import ReloadRequest


@pytest.fixture(autouse=True)
def _signals_of_the_test_runner() -> Iterator[None]:
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def hang_up() -> None:
    os.kill(os.getpid(), signal.SIGHUP)


def test_a_signal_is_one_request_however_often_it_comes() -> None:
    request = ReloadRequest(lambda: pytest.fail("no terminal is gone"))
    request.install()
    assert not request.take()
    hang_up()
    hang_up()
    assert request.take()
    assert not request.take()


def test_one_that_comes_before_the_node_is_ready_for_it_is_kept() -> None:
    ReloadRequest.note_early(lambda: pytest.fail("no terminal is gone"))
    hang_up()
    request = ReloadRequest(lambda: None)
    request.install()
    assert request.take()
    later = ReloadRequest(lambda: None)
    later.install()
    assert not later.take()


IN_A_TERMINAL = """
import sys, time
from swarmd.system.reloading import ReloadRequest

gone = []
request = ReloadRequest(lambda: gone.append(True))
request.install()
print("ready", flush=True)
while not gone and not request.take():
    time.sleep(0.01)
print("gone" if gone else "reload", flush=True)
"""


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "open"])
def test_when_its_terminal_is_closed_a_node_in_the_foreground_ends(closed: bool) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL], stdin=theirs, stderr=theirs, stdout=subprocess.PIPE,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as node:  # fmt: skip
        os.close(theirs)
        assert node.stdout is not None
        assert node.stdout.readline() == b"ready\n"
        if closed:
            os.close(ours)
        else:
            node.send_signal(signal.SIGHUP)
        assert node.stdout.readline() == (b"gone\n" if closed else b"reload\n")
    if not closed:
        os.close(ours)
