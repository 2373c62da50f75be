"""A swarm of real nodes on loopback, made the way people make one: `swarmd found`, `swarmd join`, `swarmd run`."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from swarmd.monitor.status import StatusError, read_status
from tests.integration import saved
from tests.integration.node import ROOT, Node, Preloaded, environment, until

ROUND_SECONDS = 3.0
TRAINING: dict[str, Any] = {
    "evaluate_samples": 16, "evaluate_every": 1000, "tasks_per_round": 8, "checkpoint_every": 1,
}  # fmt: skip


def free_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Member:
    """A node of a swarm: its settings, its state, and the process while it runs.

    before: in front of every command line of its, and then it is not forked from `preloaded`.
    """

    def __init__(
        self, folder: Path, number: int, preloaded: Preloaded | None = None, before: Sequence[str] = ()
    ) -> None:
        self.state = folder / f"n{number}"
        self._preloaded, self._before = preloaded, before
        self.settings: dict[str, Any] = {
            "training": {**TRAINING, "seed": number + 1},
            "network": {"listen": [f"/ip4/127.0.0.1/tcp/{free_port()}"]},
        }
        self.node: Node | None = None
        self.write()

    def write(self) -> None:
        """Its settings, for the commands that read them: after a change."""
        self.state.with_name(self.state.name + ".yaml").write_text(json.dumps(self.settings))

    def command(self, *arguments: str) -> str:
        """What `swarmd ARGUMENTS` prints for this node's configuration; it must succeed."""
        config = self.state.with_name(self.state.name + ".yaml")
        options = ["--config", str(config), "--state", str(self.state)]
        done = subprocess.run(
            [*self._before, sys.executable, "-m", "swarmd", *arguments, *options],
            capture_output=True, text=True, cwd=ROOT, env=environment(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def found(self, name: str = "trial", *options: str) -> str:
        """Founds a swarm and returns the invite."""
        text = self.command("found", name, "--round-seconds", f"{ROUND_SECONDS:g}", "--json", *options)
        return str(json.loads(text)["invite"])

    def start(self) -> Node:
        self.node = Node(self.state, self.settings, preloaded=self._preloaded, before=self._before)
        return self.node

    def stop(self) -> None:
        if self.node is not None:
            self.node.__exit__()
            self.node = None

    def status(self) -> dict[str, Any]:
        try:
            return read_status(self.state)
        except StatusError:
            return {}

    def peers_of_rounds(self, since: int = -1) -> list[tuple[int, int, int]]:
        """(round, peers whose groups were trained on, groups of theirs) of each round after `since`."""
        rows = saved.rows(self.state, "round, used, peer_groups", "exchanges")
        return [(number, used, groups) for number, used, groups in rows if number > since]

    def last_round(self) -> int:
        assert self.node is not None
        return max(self.node.rounds(), default=-1)

    def child(self, name: str) -> int | None:
        """The process id of one of its children, as its status has it."""
        found = (self.status().get("children") or {}).get(name)
        return None if found is None else int(found["pid"])

    def trains_on(self, peers: int, since: int = -1) -> bool:
        """Whether in some round after `since` it trained on groups of so many peers."""
        try:
            return any(used >= peers and groups > 0 for _, used, groups in self.peers_of_rounds(since))
        except sqlite3.OperationalError:
            return False  # it has not made the table yet


def all_train_on(members: list[Member], peers: int, why: str) -> None:
    """Waits until each of them has trained on so many peers' groups in one round, from now on."""
    since = {member.state: member.last_round() for member in members}
    for member in members:
        until(lambda m=member: m.trains_on(peers, since[m.state]), every=0.2, why=f"{why}: {member.state.name}")


def all_are_training(members: Sequence[Member]) -> None:
    """Waits until none is degraded: what its network process knows reaches a node's status file some seconds later."""
    for member in members:
        until(lambda m=member: m.status()["state"] == "training", every=0.2, why=f"{member.state.name} has peers")


def gone(pid: int) -> Callable[[], bool]:
    return lambda: not os.path.exists(f"/proc/{pid}")
