"""p2pd's timers: the kernel may fire several at once, which takes half of what it costs while nothing happens."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.p2pd_pair import two_p2pds


def slack(task: int | str) -> float:
    """Seconds by which the task's timers may be late (proc_pid_timerslack_ns(5))."""
    return int(Path(f"/proc/{task}/timerslack_ns").read_text()) / 1e9


@pytest.mark.skipif(os.geteuid() != 0, reason="of another process the kernel tells it to root alone")
def test_p2pd_may_be_woken_late_by_all_its_timers_and_who_started_it_may_not(tmp_path: Path) -> None:
    before = slack("self")

    async def of_threads() -> set[float]:
        async with two_p2pds(tmp_path) as pair:
            await pair.connect()
            return {slack(thread.name) for thread in Path(f"/proc/{pair.called.pid}/task").iterdir()}

    assert before < 0.01
    assert asyncio.run(of_threads()) == {0.5}
    assert slack("self") == before
