"""A p2pd that has no time to answer is not replaced, one that hangs is; of the daemon only what is asked of it."""

import asyncio
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from swarmd.network import p2p_supervisor
from swarmd.network.p2p_supervisor import Supervisor
from swarmd.network.p2pd_arguments import DaemonSettings

COMPUTES, SLEEPS = "print(flush=True)\nwhile True: pass", "import time; print(flush=True); time.sleep(600)"


class Asked:
    """A process in p2pd's place, with the answers that are given to `lives`, the last one again and again."""

    def __init__(self, pid: int, answers: Iterable[bool], flows: bool = True) -> None:
        self.pid, self.flows, self.asked, self.memory = pid, flows, 0, 0
        self._answers = list(answers)

    async def lives(self) -> bool:
        self.asked += 1
        await asyncio.sleep(1.2)  # as long as a probe that gets no answer
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    answers = lives


def probed(program: str, answers: Iterable[bool], flows: bool = True, memory: int = 0) -> tuple[bool, int]:
    """Whether it counts as living, and how often it was asked. Whenever it is settled no doubt is left."""
    doubts: list[bool] = []

    async def nothing(daemon: Any) -> None:
        pass

    supervisor = Supervisor(DaemonSettings(Path("/k"), Path("/s")), nothing, lambda: None, doubts.append, lambda: False)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline()
            daemon: Any = Asked(process.pid, answers, flows)
            daemon.memory = memory
            lives = asyncio.run(supervisor._lives(daemon))
            assert doubts == [True] * (daemon.asked - 1) + [False]
            return lives, daemon.asked
        finally:
            process.kill()


def test_who_computes_and_does_not_answer_at_once_is_asked_again() -> None:
    assert probed(COMPUTES, [False, False, True]) == (True, 3)


def test_who_neither_answers_nor_computes_hangs() -> None:
    living, asked = probed(SLEEPS, [False])
    assert not living and asked <= 2


def test_who_computes_without_an_end_hangs_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p2p_supervisor, "_STARVED_SECONDS", 2.0)
    living, asked = probed(COMPUTES, [False])
    assert not living and asked <= 2


def test_whose_pipe_is_broken_is_not_asked_again() -> None:
    assert probed(COMPUTES, [False, True], flows=False) == (False, 1)


def test_who_takes_too_much_memory_is_not_given_time() -> None:
    assert probed(COMPUTES, [False, True], memory=p2p_supervisor._MOST_MEMORY + 1) == (False, 1)
