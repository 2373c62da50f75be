"""One machine for all tests of this folder: a boot and a start of the node cost minutes on an emulated processor.

The tests share it and run in the order of their files; each begins with a node that trains and leaves one behind.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system import roots
from tests.system.vm.disk import image_of, make_disk
from tests.system.vm.kernel import CACHE, kernel
from tests.system.vm.machine import Machine, MachineError
from tests.system.vm.node import FILES, Node

_TOOLS = ("qemu-system-x86_64", "qemu-img", "mke2fs", "apt-get")


class Times:
    """What took how many seconds, for the table at the end."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float]] = []

    def took(self, what: str, seconds: float) -> None:
        self.rows.append((what, seconds))

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.took(what, time.monotonic() - begun)


_times = Times()


@pytest.fixture(scope="session")
def times() -> Times:
    return _times


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _times.rows:
        terminalreporter.section("seconds, on an emulated processor")
        for what, seconds in _times.rows:
            terminalreporter.write_line(f"{seconds:8.1f}  {what}")


@pytest.fixture(scope="session")
def machine(times: Times) -> Iterator[Machine]:
    """A booted machine with the package installed, which starts the node at each boot."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if reason := roots.why_not() or (f"needs {', '.join(missing)}: `make test-vm` installs them" if missing else None):
        pytest.skip(reason)
    with times.of("kernel and initrd"):
        booted = kernel(FILES)
    with times.of("root directory with the package installed"):
        root = roots.shared_root()
    with times.of("disk image"):
        image = image_of(root, CACHE)
    console = CACHE / "console.log"
    console.unlink(missing_ok=True)
    with Machine(make_disk(image, CACHE / "disk.qcow2"), booted, console) as running:
        times.took("boot", running.boot())
        yield running
        _keep_journal(running, CACHE / "journal.log")


def _keep_journal(machine: Machine, path: Path) -> None:
    """The journal of all boots, to look at after a failure."""
    try:
        path.write_text(machine.run("journalctl", "--no-pager", "--output=short-precise", check=False).output)
    except (MachineError, AssertionError) as error:
        path.write_text(f"the journal cannot be had: {error}")


@pytest.fixture(scope="session")
def started(machine: Machine, times: Times) -> Node:
    """The node, READY for the first time."""
    node = Node(machine)
    times.took("boot's first command to READY", node.start())
    return node


@pytest.fixture
def node(started: Node) -> Node:
    """The node, training."""
    started.until_trains()
    return started
