"""Several DHT nodes in one process, of swarmd or stock hivemind; told by lines of JSON what to do, answers in kind.

    python -m tests.bench.scale_worker SCHEME

The first line names the nodes: {"identities": [FILE, ...], "state": DIR, "peers": [MULTIADDRESS, ...]}.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from swarmd.system.startup import prepare_process

_STARTING_AT_ONCE = 4
_SPREAD_SECONDS = 1.0


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
            return await start(Path(identity), Path(settings["state"]), settings["peers"])

    nodes = await asyncio.gather(*map(one, settings["identities"]))
    answer: dict[str, Any] = {"daemons": [node.daemon for node in nodes], "address": nodes[0].address}
    while True:
        print(json.dumps(answer), file=out, flush=True)
        told = await _line()
        if told["do"] == "end":
            break
        if told["do"] == "publish":
            records = [(r["key"], r["subkey"], base64.b64decode(r["value"]), r["expires"]) for r in told["records"]]
            calls = [
                lambda node=node, record=record: node.publish(told["round"], *record)
                for node, record in zip(nodes, records, strict=True)
            ]
        else:
            calls = [lambda node=node: node.gather(told["round"]) for node in nodes]
        answer = {"done": await asyncio.gather(*(_timed(call, told["at"]) for call in calls))}
    await asyncio.gather(*(node.close() for node in nodes))


async def _timed(call: Callable[[], Awaitable[Any]], at: float) -> tuple[Any, float]:
    """The call's result and its seconds, begun within a second of `at` (seconds since 1970), as on a common clock."""
    await asyncio.sleep(max(0.0, at - time.time()) + random.uniform(0, _SPREAD_SECONDS))
    begin = time.monotonic()
    result = await call()
    return result, time.monotonic() - begin


async def _line() -> dict[str, Any]:
    """The next line; {"do": "end"} where whoever tells us is gone."""
    return dict(json.loads(await asyncio.to_thread(sys.stdin.readline) or '{"do": "end"}'))


def _opener(scheme: str) -> Callable[[Path, Path, Sequence[str]], Awaitable[BenchNode]]:
    # Each in its own processes: stock hivemind loads torch, which is no cost of ours.
    if scheme == "swarmd":
        from tests.bench.scale_swarmd import start

        return start
    from tests.bench.scale_stock import start as start_stock

    return start_stock


if __name__ == "__main__":
    if sys.argv[1] == "swarmd":
        prepare_process()
        asyncio.run(main("swarmd"))
    else:
        import uvloop

        uvloop.run(main("stock"))
