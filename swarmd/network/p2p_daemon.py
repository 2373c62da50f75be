"""p2pd, hivemind's libp2p daemon: started our way, and asked whether it lives.

hivemind starts it with the whole environment, which holds secrets, with NAT port mapping, relaying and UDP on, with
its control sockets in a shared directory, and lets two of them listen on one port (SO_REUSEPORT), each getting half
of the connections. Here it gets an empty environment, TCP only, a private directory, and a port that is free.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import math
import os
import re
import secrets
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

from swarmd.network.addresses import is_circuit
from swarmd.network.hivemind_dht import DEFAULT_MAX_MSG_SIZE, P2P, Multiaddr, P2PDaemonError, p2pclient
from swarmd.network.p2pd_arguments import CONFIGURATION, DaemonSettings, arguments
from swarmd.network.p2pd_control import ConnectedPeer, PendingCalls, Pulse, address_text, ask
from swarmd.system.child import die_with, sleep_loosely
from swarmd.system.memory import rss_bytes_if_any

_LONGEST_LINE = 400
_START_SECONDS = 15.0
# A p2pd that does not answer at once is asked anew, over another connection, before it is taken for hung.
_PULSE_SECONDS, _IDENTIFY_SECONDS = 0.5, 1.5
# How old what it says of its addresses may be: where it has to find a relay, what there was of it is soon missed.
_ADDRESSES_SECONDS, _RELAYED_ADDRESSES_SECONDS = 30.0, 5.0
_END_SECONDS = 2.0
# Strangers' connections and streams take p2pd's memory, and the kernel, where the service's is used up, ends the
# training with it. Go's collector works harder beyond this (pkg.go.dev/runtime, GOMEMLIMIT); it is no hard limit.
_MEMORY = "256MiB"
# Each connection has a timer for either side's measurements of the round trip, and Go a thread that looks after the
# others a moment after each of them woke: most of what p2pd costs while nothing happens. With this it costs half.
_TIMER_SLACK = 0.5

# /p2p, a length, a CID of version 1 for a libp2p key, then the multihash (SHA-256, or the key itself).
_ID_AS_CID = re.compile(rb"\xa5\x03(.)\x01\x72(?=\x12\x20|\x00\x24)", re.DOTALL)

_log = logging.getLogger("swarmd")


class PortTaken(Exception):
    """The address to listen on is in use, or not ours; the message names it and the fix."""


def check_ports(listen: tuple[str, ...]) -> None:
    """PortTaken where somebody else listens. p2pd itself would not notice: it binds with SO_REUSEPORT."""
    for text in listen:
        address = Multiaddr(text)
        host, port = address.value_for_protocol(address.protocols()[0].code), int(address["tcp"])
        family = socket.AF_INET6 if ":" in str(host) else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((str(host), port))
                if port:
                    # A bind alone succeeds beside one that has bound and does not listen yet.
                    probe.listen(1)
            except OSError as error:
                raise PortTaken(_port_message(text, port, error)) from error


def _port_message(address: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"network.listen: {address}: port {port} is in use by another program (`ss -ltnp 'sport = :{port}'` names "
            "it); stop that program, or choose another port in network.listen"
        )
    if error.errno == errno.EACCES:
        return f"network.listen: {address}: port {port} may not be opened; choose one above 1023 in network.listen"
    return f"network.listen: {address}: {error.strerror}; name an address of this machine in network.listen"


def _prepare(parent: int) -> None:
    """In the child, before it becomes p2pd."""
    die_with(parent)
    sleep_loosely(_TIMER_SLACK)


class Daemon(P2P):
    """A running p2pd and the connection to it. As hivemind's P2P, but for how it starts.

    relay: whether there may be connections through relays. relayed: whether others can call this node through one.
    addresses: where it listens and is called, as p2pd said last, without the peer id.
    """

    relay = relayed = False
    addresses: tuple[str, ...] = ()
    _relay_lost: float | None = None
    _pulse: Pulse | None = None
    _identified = -math.inf

    @classmethod
    async def launch(cls, settings: DaemonSettings) -> Daemon:
        """Starts p2pd. PortTaken; P2PDaemonError or OSError where it does not start, with its last line."""
        check_ports(settings.listen)
        self = cls()
        self.relay = settings.relay
        name = secrets.token_hex(4)
        self._daemon_listen_maddr = Multiaddr(f"/unix{settings.sockets}/p2pd-{name}.sock")
        self._client_listen_maddr = Multiaddr(f"/unix{settings.sockets}/client-{name}.sock")
        self._child = await asyncio.create_subprocess_exec(
            *arguments(settings, self._daemon_listen_maddr),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={
                "PATH": "/usr/bin:/bin",
                "GOLOG_LOG_LEVEL": "warn",
                "GOLOG_LOG_FMT": "json",
                "GOMEMLIMIT": _MEMORY,
                # What it does comes in small pieces. With more threads each piece wakes some that find nothing to do:
                # an eighth of its CPU with two, which is Go's default on two cores, and more on more.
                "GOMAXPROCS": "1",
            },
            cwd="/",
            start_new_session=True,
            preexec_fn=partial(_prepare, os.getpid()),
        )
        self._child.stdin.write(CONFIGURATION)
        self._child.stdin.close()
        self._alive = True
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader_task = asyncio.create_task(self._read_outputs(ready))
        try:
            async with asyncio.timeout(_START_SECONDS):
                await ready
                self._client = await p2pclient.Client.create(
                    control_maddr=self._daemon_listen_maddr,
                    listen_maddr=self._client_listen_maddr,
                    persistent_conn_max_msg_size=DEFAULT_MAX_MSG_SIZE,
                )
                self._client.control._pending_calls = PendingCalls()
                await self._ping_daemon()
                await self._identify()
        except TimeoutError:
            await self.kill()
            raise P2PDaemonError(f"p2pd did not start within {_START_SECONDS:.0f} s") from None
        except EOFError as error:
            await self.kill()
            raise P2PDaemonError("p2pd has ended while it was starting") from error
        # Whatever ends the start, being cancelled too, leaves no p2pd behind.
        except BaseException:
            await self.kill()
            raise
        return self

    async def _read_outputs(self, ready: asyncio.Future[None]) -> None:
        """p2pd's lines, as DEBUG lines of our own. hivemind's reader ends at a line of more than 64 KiB."""
        rest, last = b"", "it printed nothing"
        while chunk := await self._child.stdout.read(2**16):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-(2**16) :]
            for line in lines:
                if line.strip():
                    last = _readable(line)
                    _log.debug("p2pd: %s", last)
                if line.startswith(b"Peer ID:") and not ready.done():
                    ready.set_result(None)
        if not ready.done():
            ready.set_exception(P2PDaemonError(f"p2pd did not start: {last}"))

    @property
    def pid(self) -> int:
        return int(self._child.pid)

    @property
    def memory(self) -> int:
        """Bytes of it that are in memory; 0 for a process that has ended."""
        return rss_bytes_if_any(self.pid)

    async def ended(self) -> None:
        """Returns when the process has ended."""
        await self._child.wait()

    async def lives(self) -> bool:
        """Whether p2pd answers within 2 s and the pipe to it flows in both directions; cheap enough for each second."""
        # hivemind keeps a task for each request that its sender gave up.
        tasks = self._client.control._handler_tasks
        for call in [call for call, task in tasks.items() if task.done()]:
            tasks.pop(call, None)
        most = _RELAYED_ADDRESSES_SECONDS if self.relay else _ADDRESSES_SECONDS
        if self.flows and time.monotonic() - self._identified < most and await self._beats():
            return True
        return await self.answers()

    async def answers(self) -> bool:
        """Whether p2pd tells its addresses within 1.5 s and the pipe to it flows in both directions."""
        if not self.flows:
            return False
        try:
            async with asyncio.timeout(_IDENTIFY_SECONDS):
                await self._identify()
        except (OSError, EOFError, P2PDaemonError):
            self._identified = -math.inf  # a pulse says nothing of what did not answer here
            return False
        return True

    @property
    def flows(self) -> bool:
        """Whether p2pd runs and the pipe to it has not broken."""
        control = self._client.control
        return not (self._child.returncode is not None or control._read_task.done() or control._write_task.done())

    async def _beats(self) -> bool:
        try:
            async with asyncio.timeout(_PULSE_SECONDS):
                if self._pulse is None:
                    self._pulse = await Pulse.take(self._control)
                await self._pulse.beat()
        except OSError:  # TimeoutError among them
            # What comes late on this connection would be taken for the answer of the next time.
            self._end_pulse()
            return False
        return True

    def _end_pulse(self) -> None:
        if self._pulse is not None:
            self._pulse.close()
        self._pulse = None

    @property
    def _control(self) -> str:
        return str(self._daemon_listen_maddr["unix"])

    async def _identify(self) -> None:
        reply = await ask(self._control, "IDENTIFY")
        self.addresses = tuple(filter(None, map(address_text, reply.identify.addrs)))
        self._identified = time.monotonic()
        self._look_for_relay()

    async def list_peers(self) -> list[ConnectedPeer]:
        """Who p2pd is connected to. OSError, EOFError, P2PDaemonError where it does not answer."""
        reply = await ask(self._control, "LIST_PEERS")
        return [ConnectedPeer(peer.id, peer.addrs) for peer in reply.peers]

    def _look_for_relay(self) -> None:
        before, self.relayed = self.relayed, any(map(is_circuit, self.addresses))
        if self.relayed:
            self._relay_lost = None
        elif before:
            self._relay_lost = time.monotonic()

    @property
    def without_relay(self) -> float:
        """Seconds since it lost its last relay; 0.0 while it has one, or never had."""
        return 0.0 if self._relay_lost is None else time.monotonic() - self._relay_lost

    async def kill(self) -> None:
        """Ends p2pd at once, hung or not, and takes its sockets away."""
        if self._child.returncode is None:
            try:
                self._child.kill()
            except ProcessLookupError:
                _log.debug("p2pd had ended already")
        self._end_pulse()
        self._terminate()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._child.wait()
        except TimeoutError:
            _log.warning("p2pd (pid %d) does not end", self.pid)
        Path(self._control).unlink(missing_ok=True)


def dialable(address: str) -> Multiaddr:
    """A multiaddress without the peer's id, for p2pd to connect to.

    Inside one through a relay is the relay's id, which hivemind writes as a CID; libp2p knows it as a multihash only.
    """
    raw = Multiaddr(address).to_bytes()
    return Multiaddr(_ID_AS_CID.sub(lambda found: b"\xa5\x03" + bytes([found[1][0] - 2]), raw))


def waiting_messages(p2p: Any) -> int:
    """Messages that p2pd has not taken yet: requests of ours and replies to others."""
    return 0 if p2p is None else int(p2p._client.control._pending_messages.qsize())


def _readable(line: bytes) -> str:
    """A line of go-log (JSON) as "logger: message: error"; any other as it is. Strangers can put text into both."""
    text = line.decode(errors="replace").strip()
    if text.startswith("{"):
        try:
            record = json.loads(text)
            parts = [record.get(name) for name in ("logger", "msg", "error")] if isinstance(record, dict) else []
        except (ValueError, RecursionError):
            parts = []
        text = ": ".join(str(part) for part in parts if part) or text
    return ascii(text[:_LONGEST_LINE])[1:-1]
