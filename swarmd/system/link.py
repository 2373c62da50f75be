"""The link between two of swarmd's own processes: length-framed msgpack over a socketpair, with deadlines.

A frame is four bytes of length (big endian, unsigned) and that many bytes of msgpack. Nothing on the link can run
code (no pickle), allocate more than its frame is long, or make the reader wait beyond its deadline.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

import msgpack

MAX_FRAME = 48 * 1024 * 1024
"""The longest frame in bytes that is sent or accepted."""

_LENGTH = struct.Struct("!I")
HEADER = _LENGTH.size
"""Bytes of length in front of each body."""
_CHUNK = 256 * 1024


class LinkError(Exception):
    """The link to the other process failed; its subclasses say how."""


class LinkTimeout(LinkError):
    """The other process did not read, or did not answer, before the deadline."""


class LinkClosed(LinkError):
    """The other process is gone, or this end was closed."""


class LinkProtocolError(LinkError):
    """What came is no frame of ours: too long, not msgpack, or with types that are not allowed."""


def pack_frame(message: Any, max_frame: int = MAX_FRAME) -> bytes:
    """The frame of a message. Raises LinkProtocolError for one that is too long, TypeError for types with no place."""
    # Completions come from models and strangers: a lone surrogate in them must not stop the frame.
    body = msgpack.packb(message, use_bin_type=True, unicode_errors="surrogatepass")
    if len(body) > max_frame:
        raise LinkProtocolError(f"a message of {len(body)} bytes; a frame holds {max_frame}")
    return _LENGTH.pack(len(body)) + bytes(body)


def body_length(header: bytes | bytearray, max_frame: int = MAX_FRAME) -> int:
    """How many bytes follow the HEADER bytes that begin a frame. Raises LinkProtocolError for too many."""
    (length,) = _LENGTH.unpack_from(header)
    if length > max_frame:
        raise LinkProtocolError(f"a frame of {length} bytes was announced; {max_frame} are allowed")
    return int(length)


def unpack_body(body: bytes) -> Any:
    """The message in a frame's body. Raises LinkProtocolError for anything that is not our msgpack."""
    try:
        return msgpack.unpackb(
            body,
            raw=False,
            strict_map_key=True,
            unicode_errors="surrogatepass",
            ext_hook=_refuse_extension,
            max_ext_len=0,
        )
    except ValueError as error:  # all that msgpack raises on bad bytes, UnicodeDecodeError included
        raise LinkProtocolError(f"a frame that is not our msgpack: {error}") from error


def _remaining(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"msgpack extension type {code}")


class Link:
    """One end of a link. Not for use by two threads at once.

    A `receive` that ran into its deadline can be repeated: what had come of the frame is kept. After a `send` that
    did, or was interrupted, half a frame may be on its way, and the link is closed.
    """

    def __init__(self, connection: socket.socket, max_frame: int = MAX_FRAME) -> None:
        self._socket = connection
        self._max_frame = max_frame
        self._received = bytearray()

    @classmethod
    def pair(cls, max_frame: int = MAX_FRAME) -> tuple[Link, Link]:
        """Two connected ends."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(ours, max_frame), cls(theirs, max_frame)

    def detach(self) -> socket.socket:
        """The socket, for who reads frames in another way; this end is closed then."""
        return socket.socket(fileno=self._socket.detach())

    def fileno(self) -> int:
        """The descriptor of this end; -1 once it is closed."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
        self._received.clear()

    def send(self, message: Any, timeout: float) -> None:
        """Sends a message of None, bool, int, float, str, bytes, list, tuple and dict with str keys.

        timeout: seconds until all of it must be in the socket. Raises LinkTimeout, LinkClosed, and
        LinkProtocolError where the message is longer than a frame may be; TypeError for other types.
        """
        self.send_frame(pack_frame(message, self._max_frame), timeout)

    def send_frame(self, packed: bytes, timeout: float) -> None:
        """As `send`, for a message that `pack_frame` has packed."""
        frame = memoryview(packed)
        deadline = time.monotonic() + timeout
        try:
            while frame:
                self._socket.settimeout(_remaining(deadline))
                frame = frame[self._socket.send(frame) :]
        except (TimeoutError, BlockingIOError):
            raise LinkTimeout(f"the other process read nothing for {timeout:.1f} s") from None
        except OSError as error:
            raise LinkClosed(f"the other process is gone: {error}") from error
        finally:
            if frame:  # a part of it may be on its way, and nothing can be sent after that
                self.close()

    def receive(self, timeout: float) -> Any:
        """The next message. timeout: seconds; 0 takes only what has already come.

        Raises LinkTimeout, LinkClosed and LinkProtocolError; after the latter the link is closed, because nothing
        that follows could be trusted to begin at a frame.
        """
        deadline = time.monotonic() + timeout
        self._fill(HEADER, deadline, timeout)
        try:
            end = HEADER + body_length(self._received, self._max_frame)
            self._fill(end, deadline, timeout)
            body = bytes(self._received[HEADER:end])
            del self._received[:end]
            return unpack_body(body)
        except LinkProtocolError:
            self.close()
            raise

    def _fill(self, size: int, deadline: float, timeout: float) -> None:
        while len(self._received) < size:
            try:
                self._socket.settimeout(_remaining(deadline))
                chunk = self._socket.recv(_CHUNK)
            except (TimeoutError, BlockingIOError):
                raise LinkTimeout(f"no answer from the other process within {timeout:.1f} s") from None
            except OSError as error:
                raise LinkClosed(f"the link broke: {error}") from error
            if not chunk:
                raise LinkClosed("the other process closed the link")
            self._received += chunk
