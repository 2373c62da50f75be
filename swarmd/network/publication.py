"""Keeps this node's records of the round and the last one in the DHT: until somebody has them, and as long as the
round lasts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from swarmd.network.dialects import Dialect, OutgoingGroup
from swarmd.network.signing import Signer

# Within the 900 s that readers allow, whatever the round's length is.
_LONGEST_LIFE = 850.0
_REPEAT_SECONDS = 600.0
_PUBLISH_SECONDS = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE, _PAUSE_GROWTH = 0.5, 8.0, 1.6

_log = logging.getLogger("swarmd")


class Publishing(Protocol):
    """Where records are put: the DHT."""

    async def publish(self, key: str, subkey: str, value: bytes, expires: float, deadline: float) -> bool: ...


@dataclass(frozen=True)
class Publication:
    """A record that is being published. kept, left_out: its groups, and those that found no room in it. out: set as
    soon as somebody has it."""

    kept: int
    left_out: int
    out: asyncio.Event

    async def groups_out(self, seconds: float) -> int:
        """How many groups somebody has; waits so long for it."""
        if self.kept and not self.out.is_set():
            try:
                await asyncio.wait_for(self.out.wait(), seconds)
            except TimeoutError:
                _log.debug("nobody has taken this node's record yet; it is offered again")
        return self.kept if self.out.is_set() else 0


class Publications:
    """The records of this node. A failure to publish is told in the log, and raised nowhere."""

    def __init__(
        self, space: Publishing, dialect: Dialect, signer: Signer, model: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._space, self._dialect, self._signer, self._model, self._clock = space, dialect, signer, model, clock
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def begin(self, round: int, groups: Sequence[OutgoingGroup], expires: float) -> Publication:
        """Begins to publish these groups, in the place of what was being published for the round. Those of the last
        round go on, all others end.

        expires: until when they are to be found, seconds since 1970. Nothing goes out where that has passed, nor
        where there is no group that others could read.
        """
        for number in [number for number in self._tasks if number != round - 1]:
            self._tasks.pop(number).cancel()
        out = asyncio.Event()
        if not groups or expires <= self._clock() + 1.0:
            return Publication(0, len(groups), out)
        lives = outlives(expires, self._clock())
        try:
            encoded = await asyncio.to_thread(self._dialect.encode, groups, round, self._signer, lives, self._model)
        except ValueError as error:
            _log.warning("the groups of round %d are not published: %s", round, error)
            return Publication(0, len(groups), out)
        if encoded.kept:
            self._tasks[round] = asyncio.create_task(self._run(round, groups, expires, encoded.value, lives, out))
        return Publication(encoded.kept, encoded.left_out, out)

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    async def _run(
        self,
        round: int,
        groups: Sequence[OutgoingGroup],
        expires: float,
        value: bytes,
        lives: float,
        out: asyncio.Event,
    ) -> None:
        key, subkey = self._dialect.key_for(round, self._signer.peer_id), self._signer.peer_id
        pause = _FIRST_PAUSE
        # Again and again: there may have been nobody to give it to, or those who have it may be gone.
        while True:
            try:
                if await self._space.publish(key, subkey, value, lives, _PUBLISH_SECONDS):
                    out.set()
            except ValueError as error:  # the record has expired meanwhile, or the clock was set
                _log.debug("the record of round %d is not published: %s", round, error)
            if out.is_set():
                if lives >= expires:
                    return
                pause = _REPEAT_SECONDS
            await asyncio.sleep(pause)
            pause = min(_PAUSE_GROWTH * pause, _LONGEST_PAUSE)
            if self._clock() + 1.0 >= expires:
                return
            lives = outlives(expires, self._clock())
            encoded = await asyncio.to_thread(self._dialect.encode, groups, round, self._signer, lives, self._model)
            value = encoded.value


def outlives(expires: float, now: float) -> float:
    """When a record that is written now expires, which is to be found until `expires`: at most a second after it, and
    at most 850 s from now. Seconds since 1970.

    The later it is written, the later it expires: replicas keep the record that expires last, so that one which is
    written anew, as by a restarted node, takes the place of the one before.
    """
    return min(expires + max(0.0, 1.0 - (expires - now) / _LONGEST_LIFE), now + _LONGEST_LIFE)
