"""The child's end of a link for a process that lives in an asyncio loop: the same frames as swarmd.system.link."""

from __future__ import annotations

import asyncio
from typing import Any

from swarmd.system.link import HEADER, Link, LinkClosed, body_length, pack_frame, unpack_body

_MOST_UNREAD = 64 * 1024 * 1024


class AsyncLink:
    """One end of a link, read by one task; any task of the loop may send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def adopt(cls, link: Link) -> AsyncLink:
        """Takes over the socket of a link, which must not have received anything yet."""
        connection = link.detach()
        connection.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=connection))

    async def receive(self) -> Any:
        """The next message. Raises LinkClosed when the other process is gone, LinkProtocolError for anything else."""
        try:
            header = await self._reader.readexactly(HEADER)
            return unpack_body(await self._reader.readexactly(body_length(header)))
        except (asyncio.IncompleteReadError, OSError) as error:
            raise LinkClosed("the other process closed the link") from error

    def send(self, message: Any) -> None:
        """Queues a message. Raises LinkClosed where the other process is gone or has stopped reading."""
        if self._writer.is_closing() or self._writer.transport.get_write_buffer_size() > _MOST_UNREAD:
            raise LinkClosed("the other process does not read any more")
        self._writer.write(pack_frame(message))

    async def flush(self) -> None:
        """Returns when the other process has taken what was sent, or is gone."""
        try:
            await self._writer.drain()
        except OSError as error:
            raise LinkClosed("the other process closed the link") from error

    def close(self) -> None:
        self._writer.close()
