"""What it costs two p2pds to make a connection and close it again.

    python -m tests.bench.connection

On loopback, the same two all the time, so that the address is known. CPU of the p2pds alone, less what they do anyway.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from swarmd.system.startup import prepare_process

prepare_process()

from tests.bench.scale_costs import cpu_seconds  # noqa: E402  (the environment comes first)
from tests.p2pd_pair import Pair, two_p2pds  # noqa: E402

_PAUSE = 0.05  # after connecting and after closing, so that both sides come to the end of it
_STARTED = 10.0  # until p2pd is through with its start
_IDLE = 30.0


async def main(times: int) -> None:
    with tempfile.TemporaryDirectory(prefix="swarmd-connection-") as folder:
        async with two_p2pds(Path(folder)) as pair:

            async def make_and_close() -> None:
                for _ in range(times):
                    await pair.connect()
                    await asyncio.sleep(_PAUSE)
                    await pair.disconnect()
                    await asyncio.sleep(_PAUSE)

            await asyncio.sleep(_STARTED)
            idle, idle_seconds = await _cpu(pair, lambda: asyncio.sleep(_IDLE))
            busy, seconds = await _cpu(pair, make_and_close)
    each = [(b - i / idle_seconds * seconds) / times * 1e3 for b, i in zip(busy, idle, strict=True)]
    print(f"{'ms of CPU':<32}{'caller':>8}{'called':>8}")
    print(f"{f'to make and close one, of {times}':<32}{each[0]:>8.2f}{each[1]:>8.2f}")


async def _cpu(pair: Pair, work: Callable[[], Awaitable[None]]) -> tuple[list[float], float]:
    """CPU-seconds of the caller and the called while the work goes on, and for how many seconds it does."""
    pids = [pair.calling.pid, pair.called.pid]
    before, begin = [cpu_seconds([pid]) for pid in pids], time.monotonic()
    await work()
    after = [cpu_seconds([pid]) for pid in pids]
    return [late - early for late, early in zip(after, before, strict=True)], time.monotonic() - begin


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200, help="connections to make (default: 200)")
    asyncio.run(main(parser.parse_args().times))
