"""The node in a test machine: its settings there, its status, its journal, its account of restarts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from swarmd.system.message_ids import MESSAGE_IDS
from tests.system import faults
from tests.system.vm.machine import PATIENCE, Machine

UNIT = "swarmd.service"
STATE = "/var/lib/swarmd"
# SD_MESSAGE_UNIT_OUT_OF_MEMORY of sd-messages.h.
_OUT_OF_MEMORY = "fe6faa94e7774663a0da52717891d8ef"
CHECKPOINTS = f"{STATE}/checkpoints"
_T = TypeVar("_T")

# An emulated processor needs minutes for what the shipped deadlines allow seconds; and rounds so small that it plays
# one in a second, a third of which is its checkpoint. The rest is as the package brings it.
_DROP_IN = f"""\
[Service]
TimeoutStartSec=40min
TimeoutStopSec=10min
TimeoutAbortSec=10min
WatchdogSec=10min
Environment=PYTHONPATH=/run/vm SWARMD_TASKS__ENVIRONMENT={faults.__name__.rpartition(".")[2]}:factory
Environment=SWARMD_TRAINING__TASKS_PER_ROUND=2 SWARMD_TRAINING__GROUP_SIZE=2 SWARMD_TRAINING__MAX_NEW_TOKENS=4
Environment=SWARMD_TRAINING__EVALUATE_SAMPLES=2 SWARMD_TRAINING__EVALUATE_EVERY=1000000
"""
FILES = {
    f"systemd/system/{UNIT}.d/80-slow-machine.conf": _DROP_IN,
    "vm/faults.py": Path(faults.__file__).read_text(),
}
"""What a machine needs in /run for the node to play small rounds and to fail on command."""


@dataclass(frozen=True)
class Run:
    """One run of the service. pid: of its main process; children: pids by name."""

    invocation: str
    pid: int
    children: dict[str, int] = field(default_factory=dict)


class Node:
    """The installed service in a running machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def start(self) -> float:
        """`systemctl start`, which returns when the node is READY; the seconds that took."""
        return self.machine.run("systemctl", "start", UNIT).seconds

    def show(self, *names: str) -> dict[str, str]:
        """Properties of the unit."""
        told = self.machine.run("systemctl", "show", UNIT, "--property", ",".join(names)).output
        return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)

    def current(self) -> Run:
        """The run that is going on."""
        told = self.show("InvocationID", "MainPID")
        children = {name: child["pid"] for name, child in self.status().get("children", {}).items()}
        return Run(told["InvocationID"], int(told["MainPID"]), children)

    def status(self) -> dict[str, Any]:
        """What the node last wrote about itself; empty before it has."""
        content = self.machine.read("/run/swarmd/status.json")
        return dict(json.loads(content)) if content else {}

    def events(self, kind: str, run: Run) -> list[dict[str, Any]]:
        """The journal's records of one kind of event in a run, oldest first."""
        return self._records(f"MESSAGE_ID={MESSAGE_IDS[kind]}", f"_SYSTEMD_INVOCATION_ID={run.invocation}")

    def out_of_memory(self) -> list[dict[str, Any]]:
        """systemd's records, of this boot, that the kernel has killed processes of the service for want of memory."""
        return self._records("--boot", f"MESSAGE_ID={_OUT_OF_MEMORY}", f"UNIT={UNIT}")

    def group_kills(self) -> list[str]:
        """The kernel's words, of this boot, that it killed all of the service's control group for want of memory."""
        group = self.show("ControlGroup")["ControlGroup"]
        told = [record["MESSAGE"] for record in self._records("--boot", "_TRANSPORT=kernel")]
        return [message for message in told if f"Tasks in {group} are going to be killed" in message]

    def _records(self, *matches: str) -> list[dict[str, Any]]:
        told = self.machine.run("journalctl", "--output=json", "--no-pager", "--quiet", *matches).output
        return [json.loads(line) for line in told.splitlines()]

    def rounds_finished(self, run: Run) -> list[int]:
        """The rounds that a run has told of, each after its checkpoint."""
        return [int(record["SWARMD_ROUND"]) for record in self.events("round_finished", run)]

    def restored(self, run: Run) -> int:
        """The round of the checkpoint that a run began with."""
        (record,) = self.events("checkpoint_restored", run)
        return int(record["SWARMD_ROUND"])

    def restarts(self) -> dict[str, Any]:
        """What `swarmd restarts --json` tells."""
        return dict(json.loads(self.machine.run("swarmd", "restarts", "--json").output))

    def end_of(self, run: Run) -> dict[str, Any]:
        """What `swarmd restarts` tells of the end of a run."""
        found = [event for event in self.restarts()["events"] if event["invocation_id"] == run.invocation]
        assert len(found) == 1, found
        return dict(found[0])

    def processes(self) -> list[int]:
        """All that is in the service's control group."""
        group = self.show("ControlGroup")["ControlGroup"]
        return [int(pid) for pid in (self.machine.read(f"/sys/fs/cgroup{group}/cgroup.procs") or b"").split()]

    def fault(self, command: str) -> None:
        """Has the node fail; see tests/system/faults.py."""
        self.machine.write(f"{STATE}/{faults.COMMAND_FILE}", command)

    def until(self, what: Callable[[], _T], why: str, seconds: float = PATIENCE, every: float = 0.5) -> _T:
        """What `what` returns, as soon as that is true. AssertionError with the node's last lines otherwise."""
        end = time.monotonic() + seconds
        while not (found := what()):
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds:g} s: {why}; the journal's end:\n{self.last_lines()}")
            time.sleep(every)
        return found

    def until_trains(self) -> Run:
        """Waits until the run that goes on has played and saved a round."""

        def trains() -> bool:
            status = self.status()
            # Not what a run before it has left: the file outlives the process.
            ours = str(status.get("process", {}).get("pid")) == self.show("MainPID")["MainPID"]
            return ours and status["state"] == "training" and status["rounds_done"] > 0

        self.until(trains, "training")
        return self.current()

    def last_lines(self, count: int = 60) -> str:
        """The end of the journal, of all units."""
        command = ("journalctl", "--no-pager", "--output=short-monotonic", f"--lines={count}")
        return self.machine.run(*command, check=False).output
