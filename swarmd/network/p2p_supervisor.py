"""Keeps p2pd running: one that has died, hangs or takes too much memory is replaced by another with the same identity,
within five seconds, or twelve where it computes and does not answer; and one that has lost its relay, which would not
look for it again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

from swarmd.network.hivemind_dht import P2PDaemonError
from swarmd.network.p2p_daemon import Daemon, PortTaken
from swarmd.network.p2pd_arguments import DaemonSettings
from swarmd.system.activity import Activity
from swarmd.system.exits import ConfigurationError

_PROBE_SECONDS = 1.0
_PORT_SECONDS = 3.0
_FIRST_DELAY, _LONGEST_DELAY = 0.2, 10.0
# An eighth of a second late each time is too late for the four steps of a question and its answer.
_BEAT_SECONDS, _IN_TIME_SHARE = 0.25, 2 / 3
# On a machine with too much to do each p2pd that is replaced makes it worse: the others' connections to it have to be
# made anew. One that waits for a processor or a disk, or computes, is given as long as a busy machine may take; what a
# p2pd does that hangs, such as keeping connections alive, is less than this share of a processor.
_STARVED_SECONDS, _BUSY_SHARE = 10.0, 0.05
# go-libp2p asks a relay that it has lost for a place again after an hour (p2p/host/autorelay, backoff).
_NO_RELAY_SECONDS = 30.0
# Twice of what Go's collector aims at in p2p_daemon, and ten times of what p2pd needs in a swarm of hundreds.
_MOST_MEMORY = 512 * 2**20

_log = logging.getLogger("swarmd")


class Supervisor:
    """attach: called with each p2pd that was started; detach: when it is lost; doubt: with True when it does not answer
    and may only have no time to, and with False when that is settled. hidden: whether this node can be called through a
    relay only, so that it misses one that is gone. restarts: how often one was replaced.

    problem: why there is no p2pd at the moment, in a sentence; "" while there is one.
    """

    def __init__(
        self, settings: DaemonSettings, attach: Callable[[Daemon], Awaitable[None]], detach: Callable[[], None],
        doubt: Callable[[bool], None], hidden: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._settings, self._attach, self._detach = settings, attach, detach
        self._doubt, self._hidden = doubt, hidden
        self.daemon: Daemon | None = None
        self.restarts = 0
        self.problem = ""

    async def start(self) -> None:
        """The first p2pd. ConfigurationError where the port is taken; P2PDaemonError, OSError, TimeoutError else."""
        end = time.monotonic() + _PORT_SECONDS
        while True:
            try:
                return await self._launch()
            except PortTaken as error:
                # The p2pd of a process that was just killed takes a moment to end, on a busy machine a second.
                if time.monotonic() > end:
                    raise ConfigurationError(str(error)) from error
                await asyncio.sleep(_FIRST_DELAY)

    async def run(self) -> None:
        """Watches p2pd and replaces it, for ever."""
        while True:
            daemon = self.daemon
            lives = daemon is not None and await self._lives(daemon)
            if daemon is not None and (memory := daemon.memory) > _MOST_MEMORY:
                await self._replace(f"takes {memory >> 20} MiB of memory, {_MOST_MEMORY >> 20} are allowed")
            elif daemon is None or not lives:
                await self._replace("has died or hangs")
            elif daemon.without_relay > _NO_RELAY_SECONDS and self._hidden():
                await self._replace(f"has lost its relay, and has been without one for {daemon.without_relay:.0f} s")
            else:
                await self._wait_or_death(daemon)

    async def _lives(self, daemon: Daemon) -> bool:
        """Whether it answers, sooner or later: where it or this process had no time, it is asked again for a while."""
        begun = time.monotonic()
        try:
            while True:
                then = Activity.of(daemon.pid)
                answered, in_time = await self._ask(daemon)
                if answered:
                    return True
                hangs = then.stopped or (in_time and then.idle_since(_BUSY_SHARE * _PROBE_SECONDS))
                late = time.monotonic() - begun > _STARVED_SECONDS
                if hangs or late or not daemon.flows or daemon.memory > _MOST_MEMORY:
                    return False
                self._doubt(True)
                await asyncio.sleep(_BEAT_SECONDS)
        finally:
            self._doubt(False)

    @staticmethod
    async def _ask(daemon: Daemon) -> tuple[bool, bool]:
        """Whether it answers, and whether our own loop ran in time meanwhile: an answer that it is late to read is none
        of p2pd's failures."""
        probe, begun = asyncio.create_task(daemon.lives()), time.monotonic()
        beats = 0
        while not probe.done():
            await asyncio.wait({probe}, timeout=_BEAT_SECONDS)
            beats += 1
        return probe.result(), beats * _BEAT_SECONDS >= _IN_TIME_SHARE * (time.monotonic() - begun)

    @staticmethod
    async def _wait_or_death(daemon: Daemon) -> None:
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await daemon.ended()
        except TimeoutError:
            return

    async def _replace(self, why: str) -> None:
        if self.daemon is not None:
            _log.warning("p2pd (pid %d) %s; another one takes over its identity", self.daemon.pid, why)
            await self._drop()
        self.restarts += 1
        delay = _FIRST_DELAY
        while True:
            try:
                await self._launch()
            except (PortTaken, P2PDaemonError, OSError, TimeoutError) as error:
                problem = str(error) or type(error).__name__
                if problem != self.problem:
                    _log.warning("p2pd is not running: %s", problem)
                self.problem = problem
                await asyncio.sleep(random.uniform(0.5, 1.0) * delay)
                delay = min(delay * 2, _LONGEST_DELAY)
            else:
                return

    async def _launch(self) -> None:
        daemon = await Daemon.launch(self._settings)
        try:
            await self._attach(daemon)
        # Whatever ends this, being cancelled too, leaves no p2pd behind that nobody watches.
        except BaseException:
            await daemon.kill()
            raise
        self.daemon, self.problem = daemon, ""

    async def _drop(self) -> None:
        daemon, self.daemon = self.daemon, None
        self._detach()
        if daemon is not None:
            await daemon.kill()

    async def close(self) -> None:
        """Ends p2pd; `run` must have been cancelled before."""
        await self._drop()
