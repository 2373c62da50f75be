"""What holds for every test: libraries are told before they are imported, and who may run beside others does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from swarmd.system.startup import prepare_process

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

# Offline, no telemetry, no thread pools that deadlock in a forked child; also inherited by the processes tests start.
prepare_process()
# Tests hold small tensors; on them threads cost more than they bring, and tests that train run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")


ALONE = (
    "tests/system/", "tests/integration/test_swarm_", "tests/integration/test_bootnode.py",
    "tests/integration/test_peers_and_doctor.py",
)  # fmt: skip
"""Of these a test runs while no other does, but for the first few: they start machines and swarms, which fill the
cores by themselves, and look at whether rounds and repairs come in time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that run alone come last. The unit tests stay first: some fork their process or look at it, which it must
    not have filled with threads and open files by then."""
    items.sort(key=lambda item: item.nodeid.startswith(ALONE))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling | None:
    """With `-n 2` the files of tests go to two workers, and then all those that run alone to one of them.

    The first of these may still run beside the other worker's last file. With another --dist xdist does what that says.
    """
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import LoadFileScheduling

    class AloneAtTheEnd(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "alone" if nodeid.startswith(ALONE) else super()._split_scope(nodeid)

    config.option.loadscopereorder = False  # the largest scope would come first
    return AloneAtTheEnd(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport, sched: LoadFileScheduling) -> None:
    """A test that hangs ends its worker (faulthandler_exit_on_timeout), and so the run: it would hang again."""
    sched.config.hook.pytest_runtest_logreport(report=report)
    pytest.exit(f"{crashitem} ended its worker; if it hung, all stacks are above", pytest.ExitCode.TESTS_FAILED)
