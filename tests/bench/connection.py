"""What a connection between two p2pds costs: made and closed again, and kept without anything going over it.

    python -m tests.bench.connection

On loopback, CPU of both sides. What p2pd does anyway is measured before, and taken off.
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


async def main(times: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="swarmd-connection-") as folder:
        async with two_p2pds(Path(folder)) as pair:
            idle = await _cpu_a_second(pair, lambda: asyncio.sleep(seconds))

            async def make_and_close() -> None:
                for _ in range(times):
                    await pair.connect()
                    await asyncio.sleep(_PAUSE)
                    await pair.disconnect()
                    await asyncio.sleep(_PAUSE)

            begin = time.monotonic()
            busy = await _cpu_a_second(pair, make_and_close)
            took = time.monotonic() - begin
            await pair.connect()
            kept = await _cpu_a_second(pair, lambda: asyncio.sleep(seconds))
    print(f"{'':<44}{'caller':>10}{'called':>10}")
    made = [(with_it - without) * took / times * 1e3 for with_it, without in zip(busy, idle, strict=True)]
    a_minute = [(with_it - without) * 60e3 for with_it, without in zip(kept, idle, strict=True)]
    print(f"{f'ms to make and close one, of {times}':<44}{made[0]:>10.2f}{made[1]:>10.2f}")
    print(f"{f'ms a minute to keep one, in {seconds:g} s':<44}{a_minute[0]:>10.2f}{a_minute[1]:>10.2f}")


async def _cpu_a_second(pair: Pair, work: Callable[[], Awaitable[None]]) -> list[float]:
    """Of the caller and the called, while the work goes on."""
    pids = [pair.calling.pid, pair.called.pid]
    before, begin = [cpu_seconds([pid]) for pid in pids], time.monotonic()
    await work()
    took = time.monotonic() - begin
    return [(cpu_seconds([pid]) - earlier) / took for pid, earlier in zip(pids, before, strict=True)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200, help="connections to make (default: 200)")
    parser.add_argument("--seconds", type=float, default=120.0, help="of idling, each time (default: 120)")
    options = parser.parse_args()
    asyncio.run(main(options.times, options.seconds))
