"""Running nodes of unmodified GenRL for tests: what they are told, what they tell, and their end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from tests.integration.genrl_venvs import python_with_genrl
from tests.integration.node import environment, until

_END_SECONDS = 10.0


@dataclass(frozen=True)
class Settings:
    """peers: multiaddresses of nodes to join at; none: it is the swarm's first node. epoch, round_seconds: the swarm's
    clock; offset: seconds into a round at which it publishes. datasets: GenRL's YAML file; tasks: a round; right:
    completions of eight. lies: with a false answer and false metadata. foreign: and a task more that nobody else has.
    identity: a file for its RSA key.
    """

    peers: tuple[str, ...]
    epoch: float
    round_seconds: float
    offset: float
    datasets: str
    tasks: int = 2
    seed: int = 0
    right: int = 3
    lies: bool = False
    foreign: bool = False
    identity: str | None = None


def write_datasets(path: Path, names: tuple[str, ...]) -> Path:
    """RL Swarm's datasets as the file that GenRL's data manager reads, those of these names."""
    table = yaml.safe_load((files("swarmd.tasks") / "legacy" / "incumbent.yaml").read_text(encoding="utf-8"))
    chosen = [
        {"name": entry["name"], "weight": 1,
         "config": {**entry["config"], "seed": entry["seed"], "size": entry["size"]}}
        for entry in table["datasets"] if entry["name"] in names
    ]  # fmt: skip
    path.write_text(yaml.safe_dump({"size": 500, "seed": 42, "datasets": chosen}))
    return path


class GenrlPeer:
    """A process of `genrl_peer` under GenRL of one version. A context manager, which ends it with all it started."""

    def __init__(self, version: str, home: Path) -> None:
        """Starts it, so that it imports what it needs; it joins a swarm when it is told. home: for what it writes."""
        home.mkdir(parents=True)
        self._out, self._err = home / "out", home / "err"
        script = Path(__file__).with_name("genrl_peer.py")
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self._process = subprocess.Popen(
                [python_with_genrl(version), "-P", script], stdin=subprocess.PIPE, stdout=out, stderr=err, cwd=home,
                start_new_session=True,
                env=environment({"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONPATH": ""}),
            )  # fmt: skip

    def join(self, settings: Settings) -> None:
        """Lets it join. One of the peers must answer by then: stock hivemind tries once, and ends."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(settings)).encode() + b"\n")
        self._process.stdin.flush()

    def __enter__(self) -> GenrlPeer:
        return self

    def leave(self) -> None:
        """Lets it end, after the round it is in."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def __exit__(self, *_: object) -> None:
        self.leave()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)  # its own session: itself, its DHT process, p2pd
            self._process.wait()

    @property
    def peer_id(self) -> str:
        """Waits until it has joined."""
        return str(self._joined()["peer_id"])

    @property
    def address(self) -> str:
        """Its multiaddress on loopback. Waits until it has joined."""
        return next(text for text in self._joined()["addresses"] if text.startswith("/ip4/127.0.0.1/tcp/"))

    def _joined(self) -> dict[str, Any]:
        told: list[dict[str, Any]] = until(lambda: self._told("peer_id"), every=0.1, why="a GenRL peer that has joined")
        return told[0]

    def rounds(self) -> list[dict[str, Any]]:
        """What it told of its rounds so far: round, published, gathered, trains_on."""
        return self._told("round")

    def text(self) -> str:
        """All that it has written to stderr."""
        return self._err.read_text(errors="replace")

    def _told(self, key: str) -> list[dict[str, Any]]:
        assert self._process.poll() is None, f"a GenRL peer has ended; it wrote:\n{self.text()}"
        whole = self._out.read_bytes().rpartition(b"\n")[0].splitlines()
        return [message for line in whole if line.startswith(b"{") and key in (message := json.loads(line))]
