"""Several DHT nodes in one process, of swarmd or stock hivemind; told by lines of JSON what to do, answers in kind.

    python -m tests.bench.scale_worker swarmd|default|stock

The first line names the nodes: {"identities": [FILE, ...], "state": DIR, "peers": [MULTIADDRESS, ...], "patience": N}.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from swarmd.system.startup import prepare_process

_STARTING_AT_ONCE = 2


class BenchNode(Protocol):
    """A node of either scheme. daemon: p2pd's process id."""

    daemon: int
    address: str

    async def publish(self, round: int, key: str, subkey: str, value: bytes, expires: float) -> bool: ...

    async def gather(self, round: int) -> int: ...

    async def close(self) -> None: ...


async def main(scheme: str) -> None:
    start = _opener(scheme)
    # The answers' way out is kept from what libraries print.
    out, sys.stdout = sys.stdout, sys.stderr
    settings = await _line()
    starting = asyncio.Semaphore(_STARTING_AT_ONCE)

    async def one(identity: str) -> BenchNode:
        async with starting:
            return await start(Path(identity), Path(settings["state"]), settings["peers"], settings["patience"])

    nodes = await asyncio.gather(*map(one, settings["identities"]))
    answer: dict[str, Any] = {"daemons": [node.daemon for node in nodes], "address": nodes[0].address}
    while True:
        print(json.dumps(answer), file=out, flush=True)
        told = await _line()
        if told["do"] == "end":
            break
        answer = {
            "done": await asyncio.gather(*(_timed(call, told["at"], told["spread"]) for call in _calls(told, nodes)))
        }
    await asyncio.gather(*(node.close() for node in nodes))


def _calls(told: dict[str, Any], nodes: Sequence[BenchNode]) -> list[Callable[[], Awaitable[Any]]]:
    """What each node is to do."""
    if told["do"] == "gather":
        return [partial(node.gather, told["round"]) for node in nodes]
    records = [(r["key"], r["subkey"], base64.b64decode(r["value"]), r["expires"]) for r in told["records"]]
    return [partial(node.publish, told["round"], *record) for node, record in zip(nodes, records, strict=True)]


async def _timed(call: Callable[[], Awaitable[Any]], at: float, spread: float) -> tuple[Any, float]:
    """The call's result and its seconds, begun within `spread` seconds of `at` (seconds since 1970)."""
    await asyncio.sleep(max(0.0, at - time.time()) + random.uniform(0, spread))
    begin = time.monotonic()
    result = await call()
    return result, time.monotonic() - begin


async def _line() -> dict[str, Any]:
    """The next line; {"do": "end"} where whoever tells us is gone."""
    return dict(json.loads(await asyncio.to_thread(sys.stdin.readline) or '{"do": "end"}'))


def _opener(scheme: str) -> Callable[[Path, Path, Sequence[str], float], Awaitable[BenchNode]]:
    # Each in its own processes: stock hivemind loads torch, which is no cost of ours.
    if scheme != "stock":
        from tests.bench.scale_swarmd import start

        return partial(start, scheme == "default")
    from tests.bench.scale_stock import start as start_stock

    return start_stock


if __name__ == "__main__":
    if sys.argv[1] != "stock":
        prepare_process()
        asyncio.run(main(sys.argv[1]))
    else:
        import uvloop

        uvloop.run(main("stock"))
