"""The network process (`python -m swarmd.network.process`): lives in one asyncio loop, and answers the main process.

It parses what strangers send, so it holds no secrets but the identity and the swarm's, loads no torch, and its death
is a normal case: the main process starts another one with the same identity (network_process).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Mapping
from typing import Any

from swarmd.network.settings import NetworkSettings
from swarmd.network.swarm_member import GivenUp, SwarmMember
from swarmd.system.async_link import AsyncLink
from swarmd.system.child import adopt_parent
from swarmd.system.events import NOTICE
from swarmd.system.exits import ConfigurationError
from swarmd.system.link import LinkClosed, LinkError, LinkProtocolError
from swarmd.system.startup import assert_recursion_limit, prepare_process

_MARKS = ((logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (NOTICE, "<5>"), (logging.INFO, "<6>"))

_log = logging.getLogger("swarmd")


async def serve(link: AsyncLink) -> None:
    """Joins the swarm as the first message says, and answers calls until the other side hangs up."""
    settings = NetworkSettings.from_message(await link.receive())
    try:
        member = SwarmMember(settings)
        await member.start()
    except ConfigurationError as error:
        link.send({"failed": str(error), "permanent": True})
        await link.flush()
        return
    except (OSError, ValueError) as error:
        link.send({"failed": str(error), "permanent": False})
        await link.flush()
        return
    assert_recursion_limit()
    tasks: set[asyncio.Task[None]] = set()
    try:
        link.send({"state": member.state().to_message()})
        while True:
            message = await link.receive()
            if message["call"] == "stop":
                return
            if message["call"] == "ping":
                link.send({"id": 0, "result": member.state().to_message()})
                continue
            task = asyncio.create_task(_answer(link, member, message))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    finally:
        for task in tasks:
            task.cancel()
        await member.close()


async def _answer(link: AsyncLink, member: SwarmMember, message: Mapping[str, Any]) -> None:
    """Carries out one call. A fault in it is the call's answer; the next call finds the process as it was."""
    arguments = {name: value for name, value in message.items() if name not in ("call", "id")}
    try:
        result = await member.call(message["call"], arguments)
    except GivenUp as error:  # no fault: the main process has said that the round goes on without its peers
        link.send({"id": message["id"], "error": str(error)})
        return
    # Whatever goes wrong in a round's exchange, the swarm must not lose this node's DHT records over it. The trace is
    # told, and the main process hears that this call failed.
    except Exception as error:
        _log.exception("the call `%s` failed", message["call"])
        link.send({"id": message["id"], "error": f"{type(error).__name__}: {error}"})
        return
    try:
        link.send({"id": message["id"], "result": result})
    except LinkProtocolError as error:  # longer than a frame may be
        link.send({"id": message["id"], "error": str(error)})


class _Leveled(logging.Formatter):
    """Each line with its priority in front, as sd-daemon(3) has it; the parent reads it (swarmd.system.streams)."""

    def format(self, record: logging.LogRecord) -> str:
        level = next((mark for least, mark in _MARKS if record.levelno >= least), "<7>")
        return "\n".join(f"{level}{line}" for line in super().format(record).splitlines())


async def _main() -> None:
    link = await AsyncLink.adopt(adopt_parent())
    with contextlib.suppress(LinkClosed):  # the main process has ended, or has given this one up
        await serve(link)
    link.close()


def main() -> int:
    prepare_process()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Leveled("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    try:
        asyncio.run(_main())
    except (LinkError, ProcessLookupError) as error:
        print(f"the link to the main process: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
