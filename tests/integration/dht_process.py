"""A DHT node in a process of its own, as one in another network namespace has to be; told what to do in lines of JSON.

    python -m tests.integration.dht_process SETTINGS

SETTINGS: JSON, a map of some fields of NodeSettings, and beside them, if wanted, seconds between two questions to peers
whether they can connect here (ask_seconds), and until a lost relay is looked for anew (no_relay_seconds).
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from swarmd.network import p2p_supervisor, reach
from swarmd.network.dht_node import NodeSettings, SwarmNode
from swarmd.network.identity import load_or_create
from tests.integration.namespaces import Host
from tests.integration.node import ROOT, environment

_SECONDS = 60.0
_ANSWER_SECONDS = 180.0
_EXPIRES = 600.0


class DhtProcess:
    """A node on a host. A context manager, which ends it.

    module: whose main program it is; another one takes commands in the same way (`answer_lines`), peer_id among them.
    """

    def __init__(self, host: Host, state: Path, *, module: str = __name__, **settings: Any) -> None:
        state.mkdir(parents=True, exist_ok=True)
        given = json.dumps({"state": str(state), **settings})
        with open(state / "err", "ab") as errors:
            self._process = subprocess.Popen(
                [*host.before, sys.executable, "-m", module, given],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, env=environment(),
            )  # fmt: skip
        self.peer_id = str(self.do("peer_id"))

    def do(self, what: str, **arguments: Any) -> Any:
        """What `_Node.do_WHAT` returns."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"what": what, **arguments}) + "\n")
        self._process.stdin.flush()
        # An answer is one line: nothing of the next lies in the buffer.
        assert select.select([self._process.stdout], [], [], _ANSWER_SECONDS)[0], f"no answer to {what}"
        line = self._process.stdout.readline()
        assert line, f"the node has ended at {what}: {self._process.wait(10)}"
        return json.loads(line)

    def __enter__(self) -> DhtProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


class _Node:
    """What a node can be told. Records are text here."""

    def __init__(self, node: SwarmNode) -> None:
        self._node = node

    async def do_peer_id(self) -> str:
        return self._node.peer_id

    async def do_addresses(self) -> list[str]:
        return list(await self._node.visible_maddrs())

    async def do_reachable(self) -> bool | None:
        return self._node.reachable()

    async def do_peers(self) -> dict[str, list[str]]:
        """peer id -> addresses, of those that it has heard of lately."""
        return {peer.peer_id: list(peer.addresses) for peer in await self._node.peers() if peer.heard}

    async def do_connect(self, address: str) -> bool:
        return await self._node.connect([address]) == 1

    async def do_nodes(self) -> list[str]:
        """The peers that it would have its records kept by."""
        return sorted(set(self._node._calls.contacts.peer_ids()))

    async def do_allow(self, keys: list[str]) -> None:
        self._node.allow(keys)

    async def do_publish(self, key: str, subkey: str, value: str) -> bool:
        return await self._node.publish(key, subkey, value.encode(), time.time() + _EXPIRES, _SECONDS)

    async def do_gather(self, key: str) -> dict[str, str]:
        """subkey -> value."""
        found = await self._node.gather([key], _SECONDS)
        return {subkey: value.decode() for subkey, (value, _) in found[key].items()}

    async def do_kept(self) -> int:
        """Bytes that it keeps."""
        return self._node.stored["bytes"]

    async def do_p2pd(self) -> tuple[int | None, int]:
        """Its process id, and how often it was replaced."""
        return self._node.daemon_pid, self._node.daemon_restarts


async def answer_lines(told: object) -> None:
    """Does what standard input says with the `do_` methods of this object, until its end."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        message = json.loads(line)
        answer = await getattr(told, f"do_{message.pop('what')}")(**message)
        os.write(1, json.dumps(answer).encode() + b"\n")


async def _serve(given: dict[str, Any]) -> None:
    reach._ASK_SECONDS = given.pop("ask_seconds", reach._ASK_SECONDS)
    p2p_supervisor._NO_RELAY_SECONDS = given.pop("no_relay_seconds", p2p_supervisor._NO_RELAY_SECONDS)
    state = Path(given.pop("state"))
    lists = {name: tuple(given.pop(name, ())) for name in ("listen", "peers")}
    load_or_create(state / "identity.key")
    node = await SwarmNode.start(NodeSettings(state, state / "identity.key", **lists, **given))
    try:
        await answer_lines(_Node(node))
    finally:
        await node.close()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
