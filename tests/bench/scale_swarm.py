"""A swarm of DHT nodes in some processes, and what its rounds cost."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.scale_costs import connection_ends, cpu_seconds, load_average, loopback_bytes, resident_mib
from tests.bench.scale_measured import Cost, Measured, Plan, planned
from tests.bench.scale_memory import OutOfMemory, sleep_until
from tests.bench.scale_process import Process
from tests.bench.scale_records import authors, record

_LEAD_SECONDS = 0.5
_IDLE_PARTS = 2  # before the counted rounds, and as many behind: how much they differ tells what their mean is worth


def measure(scheme: str, nodes: int, plan: Plan) -> Measured:
    """Starts the nodes, lets them exchange, ends them. A failure is in the result's `error`."""
    result = planned(scheme, nodes, plan)
    processes: list[Process] = []
    with tempfile.TemporaryDirectory(prefix="swarmd-scale-") as state:
        try:
            _start(result, processes, Path(state), plan)
            for number in range(1, plan.warm_up + 1):
                _round(result, processes, number, counted=False)
            _idle(result, processes, plan)
            for number in range(plan.warm_up + 1, plan.warm_up + plan.rounds + 1):
                _round(result, processes, number, counted=True)
            _idle(result, processes, plan)
            _weigh(result, processes)
        except OutOfMemory as error:
            result.error = f"{error} ({sum(len(process.daemons) for process in processes)} of {nodes} nodes were up)"
            # Those that were asked to end would take more before they give any back.
            for process in processes:
                process.kill()
        except (RuntimeError, OSError) as error:
            result.error = str(error)
        finally:
            # All are asked before one is waited for: whoever is left alone with absent neighbours calls them in vain.
            for process in processes:
                process.ask_to_end()
            for process in processes:
                process.end()
    if result.error:
        say(f"{scheme}, {nodes} nodes: {result.error}")
    return result


def _start(result: Measured, processes: list[Process], state: Path, plan: Plan) -> None:
    identities, peers = list(authors(result.nodes)), list[str]()
    for first in range(0, result.nodes, plan.per_process):
        group = identities[first : first + plan.per_process]
        # Those of the first process know none at first, but for its first node, which all others join at.
        parts = [group] if peers else [group[:1], group[1:]]
        for part in parts:
            if not part:
                continue
            process = Process(result.scheme, part, state, peers, plan.patience, result.gogc)
            processes.append(process)
            # One process after the other: dozens of p2pd that start at once on a few cores keep each other from it.
            process.started()
            peers = peers or [process.address]
    say(f"{result.scheme}, {result.nodes} nodes: started; load average {load_average():.1f}")


def _round(result: Measured, processes: Sequence[Process], round: int, *, counted: bool) -> None:
    rng = random.Random(round)
    # Made here, in a process that is none of the nodes', and before the counting: no cost of theirs.
    records = [record(author, round, rng) for author in authors(result.nodes).values()]
    begin, before = time.monotonic(), _cost(processes)
    first, tasks = 0, []
    for process in processes:
        tasks.append({"do": "publish", "round": round, "records": records[first : first + process.count]})
        first += process.count
    stored = _all(processes, tasks, result.spread)
    published = _cost(processes)
    gathered = _all(processes, [{"do": "gather", "round": round}] * len(processes), result.spread)
    read, busy = _cost(processes), time.monotonic() - begin
    sleep_until(begin + result.round_seconds)
    after, took = _cost(processes), time.monotonic() - begin
    seconds, per_node = sorted(took for _, took in gathered), 1 / result.nodes
    say(
        f"{result.scheme}, {result.nodes} nodes, round {round}{'' if counted else ' (not counted)'}: "
        f"busy {busy:.0f} of {took:.0f} s, gather median {seconds[len(seconds) // 2]:.2f} s, least records "
        f"{min(count for count, _ in gathered)}; a node: CPU {(after.cpu - before.cpu) * per_node:.3f} s, "
        f"{(after.bytes - before.bytes) * per_node / 1e3:.0f} kB; {sum(not kept for kept, _ in stored)} not stored, "
        f"load {load_average():.1f}"
    )
    if not counted:
        return
    result.rounds += 1
    result.seconds += took
    result.late += 0 < result.round_seconds < busy
    result.stored += [bool(kept) for kept, _ in stored]
    result.gathers += [took for _, took in gathered]
    result.found += [count for count, _ in gathered]
    result.publishing.append(_between(before, published))
    result.gathering.append(_between(published, read))
    result.resting.append(_between(read, after))
    result.loads.append(load_average())
    result.record_bytes = sum(len(one["value"]) * 3 / 4 for one in records) / len(records)


def _all(processes: Sequence[Process], tasks: Sequence[dict[str, Any]], spread: float) -> list[tuple[Any, float]]:
    at = time.time() + _LEAD_SECONDS
    for process, task in zip(processes, tasks, strict=True):
        process.tell({**task, "at": at, "spread": spread})
    return [(result, took) for process in processes for result, took in process.answer()["done"]]


def _idle(result: Measured, processes: Sequence[Process], plan: Plan) -> None:
    """Half of the idle time. The connections are counted with it: both halves are to have the same."""
    result.idle_seconds = plan.idle_seconds / 2 / _IDLE_PARTS
    result.connections.append(connection_ends() / result.nodes)
    for _ in range(_IDLE_PARTS):
        before = _cost(processes)
        sleep_until(time.monotonic() + result.idle_seconds)
        result.idle.append(_between(before, _cost(processes)))


def _weigh(result: Measured, processes: Sequence[Process]) -> None:
    result.daemons = resident_mib(pid for process in processes for pid in process.daemons) / result.nodes
    result.resident = result.daemons + resident_mib(process.pid for process in processes) / result.nodes


def _cost(processes: Sequence[Process]) -> Cost:
    daemons = cpu_seconds(pid for process in processes for pid in process.daemons)
    return Cost(cpu_seconds(process.pid for process in processes) + daemons, loopback_bytes(), daemons)


def _between(before: Cost, after: Cost) -> Cost:
    return Cost(after.cpu - before.cpu, after.bytes - before.bytes, after.daemons - before.daemons)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
