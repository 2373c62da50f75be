"""The main process's side of the network process: starts it, talks to it, and replaces it when it dies or hangs.

A thread of its own owns the child and the link, because the kernel ends a child together with the thread that
started it, and because the child must be watched while the game computes.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from swarmd.network.settings import NetworkSettings, NetworkState
from swarmd.system.activity import Activity
from swarmd.system.child import Child, ChildKeeper, start_child
from swarmd.system.events import event
from swarmd.system.exits import ConfigurationError
from swarmd.system.link import LinkError, LinkProtocolError, LinkTimeout, pack_frame
from swarmd.system.memory import rss_bytes_if_any

MODULE = "swarmd.network.process"
_PING_SECONDS = 1.0
# With the start of another one, some two seconds, a hung process is replaced within five. One that computes gets more
# time: on a busy machine it may only be slow.
_SILENCE_SECONDS = 1.9
_BUSY_SILENCE_SECONDS = 4.0
_START_SECONDS = 60.0
_SEND_SECONDS = 2.0
_END_SECONDS, _CLOSE_SECONDS = 2.0, 4.0
# Longer between two looks than this thread ever waits.
_GAP_SECONDS = 2.0
# It needs a tenth of that. What strangers make it take would be missing to the training, which the kernel then ends.
_MOST_BYTES = 2**30
# The id of calls whose answer nobody waits for.
_NOBODY = -1
_WAIT_STEP = 0.1

_log = logging.getLogger("swarmd")


class NetworkDown(Exception):
    """The network process did not answer: it is gone, being replaced, or too slow. Training goes on without it."""


class _StartRefused(Exception):
    """The child cannot start, and says why; `permanent`: only a person can mend it."""

    def __init__(self, message: str, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


@dataclass
class _Call:
    number: int
    frame: bytes
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None


class NetworkProcess:
    """The network process, whoever it is at the moment.

    state: what it said last; changes behind the caller's back.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings
        self._keeper = ChildKeeper("network", self._start_child)
        self._numbers = itertools.count(1)
        self._waiting: deque[_Call] = deque()
        self._sent: dict[int, _Call] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closing = threading.Event()
        self._settled = threading.Event()  # the first start has succeeded or failed
        self._refusal: _StartRefused | None = None
        self._told = ""
        self._round: int | None = None  # whose records are kept for others
        self.state = NetworkState()
        self._thread = threading.Thread(target=self._keep, name="network", daemon=True)

    @property
    def pid(self) -> int | None:
        """Of the child, None between two of them."""
        return self._keeper.pid

    @property
    def restarts(self) -> int:
        return self._keeper.restarts

    def start(self, beat: Callable[[], None], seconds: float = _START_SECONDS) -> None:
        """Starts the child and waits until it listens; after `seconds` it goes on without.

        Raises ConfigurationError for what only a person can mend, such as an address that is not this machine's.
        """
        self._thread.start()
        deadline = time.monotonic() + seconds
        while not self._settled.wait(_WAIT_STEP) and time.monotonic() < deadline:
            beat()
        if self._refusal is not None and self._refusal.permanent:
            self.close()
            raise ConfigurationError(str(self._refusal))

    def call(self, name: str, patience: float, beat: Callable[[], None], **arguments: Any) -> Any:
        """Has the child do something and returns what came of it. Raises NetworkDown after `patience`, in seconds.

        beat: called while it waits; what it raises goes through and the answer is forgotten.
        """
        call = self._queue(name, arguments)
        deadline = time.monotonic() + patience
        try:
            while not call.done.wait(_WAIT_STEP):
                beat()
                if time.monotonic() >= deadline:
                    raise NetworkDown(f"no answer to `{name}` within {patience:.1f} s")
        finally:
            call.done.set()  # if it has not been sent yet, it need not be
            self._sent.pop(call.number, None)
        if isinstance(call.result, Exception):
            raise call.result
        return call.result

    def post(self, name: str, **arguments: Any) -> None:
        """Has the child do something, and does not wait for it; if there is no child now, it is not done."""
        if self.pid is not None:
            self._queue(name, arguments)

    def _queue(self, name: str, arguments: Mapping[str, Any]) -> _Call:
        number = next(self._numbers)
        # Packed here: a message that cannot be is the caller's fault, not the link's.
        call = _Call(number, pack_frame({"call": name, "id": number, **arguments}))
        if "round" in arguments:
            self._round = int(arguments["round"])
        self._waiting.append(call)
        self._rouse()
        return call

    def close(self) -> None:
        """Ends the child for good."""
        self._closing.set()
        self._rouse()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)

    def _rouse(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it has been roused often enough
            os.eventfd_write(self._wake, 1)

    def _keep(self) -> None:
        while not self._closing.is_set():
            try:
                child = self._keeper.get()
            except (OSError, LinkError, _StartRefused) as error:
                self._not_started(error)
                continue
            self._refusal = None
            self._settled.set()
            try:
                self._serve(child)
            except LinkError as error:
                self._discard(str(error))
            # Whatever else goes wrong here, the node must not be left without a swarm for ever.
            except Exception as error:
                _log.exception("the link to the network process failed")
                self._discard(f"{type(error).__name__}: {error}")
        self._fail_calls("the node ends")
        self._keeper.close({"call": "stop", "id": 0}, _END_SECONDS)

    def _discard(self, why: str) -> None:
        self._fail_calls(why)
        self.state = NetworkState()
        self._keeper.discard(why)

    def _not_started(self, error: Exception) -> None:
        if str(error) != self._told:
            self._told = str(error)
            permanent = isinstance(error, _StartRefused) and error.permanent and not self._settled.is_set()
            _log.warning("the network process cannot start: %s%s", error, "" if permanent else "; it is tried again")
        self._refusal = error if isinstance(error, _StartRefused) else None
        self._settled.set()
        self._fail_calls(str(error))
        self._closing.wait(_PING_SECONDS)

    def _start_child(self) -> Child:
        child = start_child("network", MODULE, leveled=True)
        try:
            child.link.send(self._settings.to_message(), _SEND_SECONDS)
            answer = child.link.receive(_START_SECONDS)
            if "failed" in answer:
                raise _StartRefused(str(answer["failed"]), bool(answer["permanent"]))
            self.state = _state_in(answer, "state")
            if self._round is not None:
                # Else it would keep nobody's records until this node shares again.
                child.link.send({"call": "open", "id": _NOBODY, "round": self._round}, _SEND_SECONDS)
        except (LinkError, _StartRefused, KeyError, TypeError):
            child.kill()
            raise
        return child

    def _serve(self, child: Child) -> None:
        """Carries calls and answers to and fro until this object is closed. Raises LinkError when the child fails."""
        poll = select.poll()
        poll.register(child.link.fileno(), select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        heard = pinged = looked = time.monotonic()
        then = Activity.of(child.pid)
        while not self._closing.is_set():
            ready = dict(poll.poll(1000 * max(0.05, pinged + _PING_SECONDS - time.monotonic())))
            now = time.monotonic()
            if child.link.fileno() in ready or now - looked > _GAP_SECONDS:
                # In a gap this thread stood still, perhaps the whole machine: that says nothing about the child.
                heard, then = now, Activity.of(child.pid)
            looked = now
            if self._wake in ready:
                os.eventfd_read(self._wake)
            if child.link.fileno() in ready:
                self._take_answers(child)
            silence = now - heard
            if silence > _BUSY_SILENCE_SECONDS or (silence > _SILENCE_SECONDS and then.idle_since()):
                raise LinkTimeout(f"it did not answer for {silence:.1f} s")
            if now - pinged >= _PING_SECONDS:
                if (used := rss_bytes_if_any(child.pid)) > _MOST_BYTES:
                    raise LinkError(f"it uses {used // 2**20} MiB of memory")
                pinged = now
                child.link.send({"call": "ping", "id": 0}, _SEND_SECONDS)
            while self._waiting:
                call = self._waiting.popleft()
                if call.done.is_set():
                    continue
                self._sent[call.number] = call
                child.link.send_frame(call.frame, _SEND_SECONDS)

    def _take_answers(self, child: Child) -> None:
        while True:
            try:
                answer = child.link.receive(0)
            except LinkTimeout:
                return
            self._take(answer)

    def _take(self, answer: Any) -> None:
        """Raises LinkProtocolError for what is no answer: the child handles what strangers send, and is not trusted."""
        if not isinstance(answer, Mapping) or not isinstance(answer.get("id"), int):
            raise LinkProtocolError("what came is no answer")
        if answer["id"] == 0:
            self._take_state(_state_in(answer, "result"))
            return
        call = self._sent.pop(answer["id"], None)
        if call is not None:  # else nobody waits for it any more
            call.result = NetworkDown(str(answer["error"])) if "error" in answer else answer.get("result")
            call.done.set()

    def _take_state(self, state: NetworkState) -> None:
        if state.daemon_restarts > self.state.daemon_restarts:
            event(
                "child_replaced",
                f"p2pd was replaced (replacement {state.daemon_restarts})",
                priority=4,
                child="p2pd",
                reason="it had died or did not answer",
                restarts=state.daemon_restarts,
                pid=state.daemon_pid,
            )
        self.state = state

    def _fail_calls(self, why: str) -> None:
        calls = [*self._sent.values(), *self._waiting]
        self._sent.clear()
        self._waiting.clear()
        for call in calls:
            call.result = NetworkDown(why)
            call.done.set()


def _state_in(answer: Any, key: str) -> NetworkState:
    """Raises LinkProtocolError."""
    try:
        return NetworkState.from_message(answer[key])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LinkProtocolError(f"what came is no state: {error!r}") from error
