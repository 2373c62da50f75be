"""A swarm of DHT nodes in some processes, and what its rounds cost."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.scale_costs import cpu_seconds, load_average, loopback_bytes, resident_mib
from tests.bench.scale_records import authors, record
from tests.bench.scale_settings import NODES_PER_PROCESS, PEERS_PER_ROUND

_ROOT = Path(__file__).resolve().parents[2]
_IDLE_SECONDS = 20.0
_LEAD_SECONDS = 0.5
_LEAST_SPREAD = 1.0
_END_SECONDS = 30.0


@dataclass(frozen=True)
class Cost:
    """Of all nodes together, CPU in seconds. bytes: over loopback."""

    cpu: float
    bytes: int


@dataclass
class Measured:
    """One scheme with one number of nodes, of the counted rounds.

    warm_up: rounds before those. seconds: of all rounds. gathers: seconds of each. found: records that each of them
    read. stored: whether publishing succeeded, each time. idle: costs of idle_seconds without a round. resident,
    daemons: MiB of a node, of its p2pd.
    """

    scheme: str
    nodes: int
    spread: float
    warm_up: int = 1
    rounds: int = 0
    seconds: float = 0.0
    gathers: list[float] = field(default_factory=list)
    found: list[int] = field(default_factory=list)
    stored: list[bool] = field(default_factory=list)
    publishing: list[Cost] = field(default_factory=list)
    gathering: list[Cost] = field(default_factory=list)
    idle: list[Cost] = field(default_factory=list)
    idle_seconds: float = _IDLE_SECONDS
    resident: float = 0.0
    daemons: float = 0.0
    record_bytes: float = 0.0
    loads: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def failed_reads(self) -> int:
        return sum(count < min(PEERS_PER_ROUND, self.nodes) for count in self.found)

    @property
    def share_read(self) -> float:
        """Records that a gather found, mean."""
        return sum(self.found) / max(1, len(self.found))


class _Process:
    """A worker. Its first answer comes when its nodes are up."""

    def __init__(
        self, scheme: str, identities: Sequence[Path], state: Path, peers: Sequence[str], patience: float
    ) -> None:
        self.count = len(identities)
        self.daemons: list[int] = []
        self.address = ""
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.scale_worker", scheme],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT, text=True,
            env={**os.environ, "HIVEMIND_LOGLEVEL": "ERROR"},
        )  # fmt: skip
        names = list(map(str, identities))
        self.tell({"identities": names, "state": str(state), "peers": list(peers), "patience": patience})

    def started(self) -> None:
        """Returns when its nodes are up."""
        first = self.answer()
        self.daemons, self.address = first["daemons"], first["address"]

    @property
    def pid(self) -> int:
        return self._popen.pid

    def tell(self, message: dict[str, Any]) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(message) + "\n")
        self._popen.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with code {self._popen.wait()}; its stderr is above")
        return dict(json.loads(line))

    def end(self) -> None:
        """Ends it with its nodes. Its p2pd processes are killed by the process id where it does not do it itself."""
        try:
            self.tell({"do": "end"})
            self._popen.wait(_END_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            self._popen.kill()
            self._popen.wait()


def measure(scheme: str, nodes: int, rounds: int, spread: float, patience: float, warm_up: int) -> Measured:
    """Starts the nodes, lets them exchange, ends them. A failure is in the result's `error`.

    spread: seconds for each node within which all publish, and all read. patience: what time limits are multiplied by.
    warm_up: rounds that are not counted: connections are made and tables of contacts fill.
    """
    result = Measured(scheme, nodes, spread=max(_LEAST_SPREAD, spread * nodes), warm_up=warm_up)
    processes: list[_Process] = []
    with tempfile.TemporaryDirectory(prefix="swarmd-scale-") as state:
        try:
            _start(result, processes, Path(state), patience)
            for number in range(1, rounds + warm_up + 1):
                _round(result, processes, number, counted=number > warm_up)
            _idle(result, processes)
        except (RuntimeError, OSError) as error:
            result.error = str(error)
        finally:
            for process in processes:
                process.end()
    return result


def read(entry: dict[str, Any]) -> Measured:
    """A result from its JSON form."""
    costs = {name: [Cost(**one) for one in entry[name]] for name in ("publishing", "gathering", "idle")}
    return Measured(**{**entry, **costs})


def _start(result: Measured, processes: list[_Process], state: Path, patience: float) -> None:
    identities, peers = list(authors(result.nodes)), list[str]()
    for first in range(0, result.nodes, NODES_PER_PROCESS):
        group = identities[first : first + NODES_PER_PROCESS]
        # Those of the first process know none at first, but for its first node, which all others join at.
        parts = [group] if peers else [group[:1], group[1:]]
        for part in parts:
            if not part:
                continue
            process = _Process(result.scheme, part, state, peers, patience)
            processes.append(process)
            # One process after the other: dozens of p2pd that start at once on a few cores keep each other from it.
            process.started()
            peers = peers or [process.address]
    say(f"{result.scheme}, {result.nodes} nodes: started; load average {load_average():.1f}")


def _round(result: Measured, processes: Sequence[_Process], round: int, *, counted: bool) -> None:
    rng = random.Random(round)
    records = [record(author, round, rng) for author in authors(result.nodes).values()]
    before, begin = _cost(processes), time.monotonic()
    first, tasks = 0, []
    for process in processes:
        tasks.append({"do": "publish", "round": round, "records": records[first : first + process.count]})
        first += process.count
    stored = _all(processes, tasks, result.spread)
    between = _cost(processes)
    gathered = _all(processes, [{"do": "gather", "round": round}] * len(processes), result.spread)
    after = _cost(processes)
    seconds, per_node = sorted(took for _, took in gathered), 1 / result.nodes
    say(
        f"{result.scheme}, {result.nodes} nodes, round {round}{'' if counted else ' (not counted)'}: gather median "
        f"{seconds[len(seconds) // 2]:.2f} s, least records {min(count for count, _ in gathered)}; a node: CPU "
        f"{(after.cpu - before.cpu) * per_node:.3f} s, {(after.bytes - before.bytes) * per_node / 1e3:.0f} kB; "
        f"{sum(not kept for kept, _ in stored)} not stored, load {load_average():.1f}"
    )
    if not counted:
        return
    result.rounds += 1
    result.seconds += time.monotonic() - begin
    result.stored += [bool(kept) for kept, _ in stored]
    result.gathers += [took for _, took in gathered]
    result.found += [count for count, _ in gathered]
    result.publishing.append(Cost(between.cpu - before.cpu, between.bytes - before.bytes))
    result.gathering.append(Cost(after.cpu - between.cpu, after.bytes - between.bytes))
    result.loads.append(load_average())
    result.record_bytes = sum(len(one["value"]) * 3 / 4 for one in records) / len(records)


def _all(processes: Sequence[_Process], tasks: Sequence[dict[str, Any]], spread: float) -> list[tuple[Any, float]]:
    at = time.time() + _LEAD_SECONDS
    for process, task in zip(processes, tasks, strict=True):
        process.tell({**task, "at": at, "spread": spread})
    return [(result, took) for process in processes for result, took in process.answer()["done"]]


def _idle(result: Measured, processes: Sequence[_Process]) -> None:
    before = _cost(processes)
    time.sleep(_IDLE_SECONDS)
    after = _cost(processes)
    result.idle.append(Cost(after.cpu - before.cpu, after.bytes - before.bytes))
    result.daemons = resident_mib(pid for process in processes for pid in process.daemons) / result.nodes
    result.resident = result.daemons + resident_mib(process.pid for process in processes) / result.nodes


def _cost(processes: Sequence[_Process]) -> Cost:
    pids = [pid for process in processes for pid in (process.pid, *process.daemons)]
    return Cost(cpu_seconds(pids), loopback_bytes())


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
