"""Hostile members of a swarm for tests: the process of `hostile_nodes`, what it tells, and its end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.integration.node import ROOT, environment, until

_END_SECONDS = 30.0


@dataclass(frozen=True)
class Settings:
    """swarm_id, shards, epoch, round_seconds, datasets (a preset's name): the swarm's. peers: multiaddresses of nodes
    to join at. folder: where the process writes what it sends and meets."""

    swarm_id: str
    shards: int
    epoch: float
    round_seconds: float
    datasets: str
    peers: tuple[str, ...]
    folder: str
    seed: int = 1


class HostilePeers:
    """A process of hostile nodes. A context manager, which ends it."""

    def __init__(self, settings: Settings) -> None:
        self.folder = Path(settings.folder)
        self.folder.mkdir(parents=True)
        self._out, self._err = self.folder / "out", self.folder / "err"
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.hostile_nodes"],
                stdin=subprocess.PIPE, stdout=out, stderr=err, cwd=ROOT, env=environment(),
            )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(settings)).encode() + b"\n")
        self._process.stdin.flush()

    def __enter__(self) -> HostilePeers:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it, after the round it is in."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def peer_ids(self) -> list[str]:
        """Of its nodes. Waits until they listen."""
        told: list[dict[str, Any]] = until(lambda: self._told("peer_ids"), every=0.1, why="hostile nodes that listen")
        return list(told[0]["peer_ids"])

    @property
    def all_kinds(self) -> set[str]:
        """All kinds of records that it knows to send."""
        return set(self._told("all")[0]["all"])

    def rounds(self) -> list[dict[str, Any]]:
        """What it told of its rounds so far: round, victims, kinds {kind: [records, times taken]}, lies {kind: answers
        to searches so far}, done_after_s seconds since the round's begin."""
        return self._told("round")

    def kinds(self) -> dict[str, list[int]]:
        """All that was sent so far: {kind: [records, times that a victim took one]}."""
        sent: Counter[str] = Counter()
        taken: Counter[str] = Counter()
        for told in self.rounds():
            for kind, (records, times) in told["kinds"].items():
                sent[kind] += records
                taken[kind] += times
        return {kind: [sent[kind], taken[kind]] for kind in sent}

    def lies(self) -> dict[str, int]:
        """How its nodes answered searches: {kind: times}."""
        return dict(self.rounds()[-1]["lies"])

    def _told(self, key: str) -> list[dict[str, Any]]:
        text = self._err.read_text(errors="replace")
        assert self._process.poll() in (None, 0), f"the hostile nodes have ended; they wrote:\n{text}"
        whole = self._out.read_bytes().rpartition(b"\n")[0].splitlines()
        return [message for line in whole if line.startswith(b"{") and key in (message := json.loads(line))]
