"""One of swarmd's units in a test machine: configured, started, broken, and asked how it is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.system.faults import COMMAND_FILE
from tests.system.machine import PATIENCE, Finished, Machine

FAULTS = Path(__file__).with_name("faults.py")
_FAULTS_FOLDER = "/usr/local/lib/swarmd-faults"

# Little work, and a second's pause between two rounds, so that many nodes fit on two cores.
SMALL: dict[str, dict[str, Any]] = {
    "training": {"tasks_per_round": 4, "group_size": 4, "evaluate_every": 3, "evaluate_samples": 20},
    "coordinator": {"kind": "clock", "round_seconds": 1},
    "swarm": {"id": "0123456789abcdef"},
    "network": {"listen": []},  # many nodes on one machine, and no peers
}
FAULTY: dict[str, dict[str, Any]] = {**SMALL, "tasks": {"environment": "faults:factory"}}
SLOW: dict[str, dict[str, Any]] = {**SMALL, "tasks": {"environment": "faults:slow_factory"}}


class Service:
    """The unit swarmd.service, or swarmd@NAME.service for a node that has a name."""

    def __init__(self, machine: Machine, name: str | None = None) -> None:
        self.machine = machine
        self.name = name
        self.unit = "swarmd.service" if name is None else f"swarmd@{name}.service"
        self.config = f"/etc/swarmd/{name or 'config'}.yaml"
        below = "swarmd" if name is None else f"swarmd/{name}"
        self.state = f"/var/lib/{below}"
        self._runtime = f"/run/{below}"

    def configure(self, settings: dict[str, dict[str, Any]], unit: str = "") -> None:
        """Writes the configuration of a node with a name, and with `unit` a drop-in for its section [Service]."""
        self.machine.write(self.config, json.dumps(settings))
        self.drop_in("test", f"Environment=PYTHONPATH={_FAULTS_FOLDER}\n{unit}")
        self.machine.write(f"{_FAULTS_FOLDER}/faults.py", FAULTS.read_text())

    def drop_in(self, name: str, lines: str) -> None:
        """Adds lines to the unit's section [Service]."""
        self.machine.write(f"/run/systemd/system/{self.unit}.d/{name}.conf", f"[Service]\n{lines}\n")
        self.machine.run("systemctl", "daemon-reload")

    def systemctl(self, verb: str, *options: str, seconds: float = PATIENCE, check: bool = True) -> Finished:
        return self.machine.run("systemctl", verb, *options, self.unit, seconds=seconds, check=check)

    def show(self, name: str) -> str:
        """A property, as `systemctl show` has it."""
        return self.machine.run("systemctl", "show", "--value", "-p", name, self.unit).output.strip()

    @property
    def main_pid(self) -> int:
        """0 where there is none."""
        return int(self.show("MainPID"))

    def running(self) -> bool:
        return self.show("ActiveState") == "active"

    def status(self) -> dict[str, Any]:
        """What status.json says; empty before there is one."""
        try:
            told: dict[str, Any] = json.loads(self.machine.path(f"{self._runtime}/status.json").read_text())
        except FileNotFoundError:
            return {}
        return told

    def silence(self) -> float:
        """For how many seconds status.json has not been written anew."""
        return time.time() - self.machine.path(f"{self._runtime}/status.json").stat().st_mtime

    def rounds_done(self) -> int:
        return int(self.status().get("rounds_done") or 0)

    def command_fault(self, command: str) -> None:
        """Has the node fail; see faults.py."""
        self.machine.write(f"{self.state}/{COMMAND_FILE}", command)

    def wait_for_restart(self, previous: int, seconds: float = PATIENCE) -> int:
        """Waits until it is active with another main process than `previous`; returns that."""

        def restarted() -> int | None:
            pid = self.main_pid
            return pid if pid not in (0, previous) and self.running() else None

        return self.machine.until(restarted, seconds, f"{self.unit} has come back")

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """What the journal holds about the unit, from the node and from systemd, oldest first."""
        told = self.machine.run("journalctl", "--no-pager", "-o", "json", "-u", self.unit, *matches).output
        return [json.loads(line) for line in told.splitlines() if line.startswith("{")]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The node's own records of this kind."""
        return [record for record in self.journal() if record.get("SWARMD_EVENT") == kind]

    def restarts(self) -> dict[str, Any]:
        """What `swarmd restarts --json` tells."""
        which = [] if self.name is None else ["--instance", self.name]
        told: dict[str, Any] = json.loads(self.machine.run("swarmd", "restarts", "--json", *which).output)
        return told


def unexplained(machine: Machine) -> dict[str, str]:
    """What `journalctl -x` says about the kinds of events in the journal that have no entry in the catalog, or one
    with gaps; by kind."""
    listed = machine.run("journalctl", "--no-pager", "-o", "json", "--output-fields=SWARMD_EVENT,MESSAGE_ID").output
    records = [json.loads(line) for line in listed.splitlines() if line.startswith("{")]
    kinds = {record["SWARMD_EVENT"]: record["MESSAGE_ID"] for record in records if "SWARMD_EVENT" in record}
    assert kinds, "no node has written to the journal"
    told = {
        kind: machine.run("journalctl", "-x", "--no-pager", "-n1", f"MESSAGE_ID={message_id}").output
        for kind, message_id in kinds.items()
    }
    return {kind: text for kind, text in told.items() if "Subject:" not in text or "@SWARMD_" in text}
