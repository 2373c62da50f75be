"""p2pd's control socket, asked by ourselves where hivemind's client costs too much.

A node is connected to hundreds of others and asks p2pd all the time: whether it lives, and who is connected. hivemind
makes objects of every address in every answer, which takes tens of milliseconds; here they stay bytes until somebody
looks at one, and the text of one that was seen before is at hand.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

from google.protobuf.message import DecodeError

from swarmd.network.hivemind_dht import Multiaddr, P2PDaemonError, PeerID, p2pd_pb2

# p2pd is connected to 512 peers, and for a short time to more; a peer is a hundred bytes, and 40 for each connection.
_LONGEST_REPLY = 8 * 2**20
_LONGEST_ADDRESS = 256
# A request to connect to nobody: p2pd refuses it without looking anything up. Its length, then the type.
_TO_NOBODY = b"\x02\x08\x01"

_log = logging.getLogger("swarmd")


@lru_cache(maxsize=2048)
def address_text(raw: bytes) -> str:
    """A multiaddress in binary form as text; "" for one that is too long or that this py-multiaddr does not know."""
    if len(raw) > _LONGEST_ADDRESS:
        return ""
    try:
        return str(Multiaddr(raw))
    # py-multiaddr raises whatever its codecs for the parts raise.
    except Exception as error:
        _log.debug("an address that is not understood (%s): %s", type(error).__name__, raw.hex())
        return ""


@lru_cache(maxsize=2048)
def _peer_id(raw: bytes) -> PeerID:
    return PeerID(raw)


@dataclass(frozen=True)
class ConnectedPeer:
    """A peer as hivemind's PeerInfo has it, but nothing of it is read before it is asked for."""

    raw_id: bytes
    raw_addresses: Sequence[bytes]

    @property
    def peer_id(self) -> PeerID:
        return _peer_id(self.raw_id)

    @property
    def addrs(self) -> list[str]:
        """Those that could be read."""
        return [text for raw in self.raw_addresses if (text := address_text(raw))]


async def ask(path: str, kind: str) -> Any:
    """p2pd's response to a request that is of a kind and no more. OSError, EOFError or P2PDaemonError without one."""
    request = p2pd_pb2.Request(type=kind).SerializeToString()
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(bytes([len(request)]) + request)
        raw = await reader.readexactly(await _length(reader))
    finally:
        writer.close()
    response = p2pd_pb2.Response()
    try:
        response.ParseFromString(raw)
    except DecodeError as error:
        raise P2PDaemonError(f"p2pd's answer to {kind} is not understood: {error}") from error
    if response.type != p2pd_pb2.Response.OK:
        raise P2PDaemonError(f"p2pd refused {kind}: {response.error.msg[:200]}")
    return response


async def _length(reader: asyncio.StreamReader) -> int:
    """The varint before a message (protobuf.dev/programming-guides/encoding)."""
    length = 0
    for shift in range(0, 28, 7):
        (byte,) = await reader.readexactly(1)
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    if not 0 < length <= _LONGEST_REPLY:
        raise P2PDaemonError(f"p2pd announces an answer of {length} bytes")
    return length


class PendingCalls(dict[UUID, asyncio.Future[Any]]):
    """Calls that wait for p2pd's answer; those that were given up are as good as gone.

    hivemind sets the answer of every call that is `in` here, and where its sender gave it up in that very moment, the
    task that reads all answers dies of InvalidStateError: p2pd would have to be started anew.
    """

    def __contains__(self, call_id: object) -> bool:
        future = self.get(call_id) if isinstance(call_id, UUID) else None
        return future is not None and not future.done()


class Pulse(asyncio.Protocol):
    """A connection to p2pd that is kept, for the question whether it lives: it costs p2pd a thirtieth of a millisecond.

    Made by `take`. What p2pd answers does not matter.
    """

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._answer = b""
        self._heard: asyncio.Future[None] | None = None

    @classmethod
    async def take(cls, path: str) -> Pulse:
        """OSError where p2pd does not accept the connection."""
        _, pulse = await asyncio.get_running_loop().create_unix_connection(cls, path)
        return pulse

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        # The rest of an answer must not be taken for the next one; its first byte is the length of what follows.
        self._answer += data
        if len(self._answer) > self._answer[0] and self._heard is not None and not self._heard.done():
            self._heard.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._heard is not None and not self._heard.done():
            self._heard.set_exception(ConnectionResetError("p2pd has hung up"))

    async def beat(self) -> None:
        """Returns when p2pd has answered. ConnectionResetError if the connection is gone."""
        if self._transport is None:
            raise ConnectionResetError("p2pd has hung up")
        self._answer, self._heard = b"", asyncio.get_running_loop().create_future()
        self._transport.write(_TO_NOBODY)
        await self._heard

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
