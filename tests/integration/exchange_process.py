"""Those who exchange a round's records, without a game: in a process of their own, told what to do as dht_process is.

    python -m tests.integration.exchange_process SETTINGS

SETTINGS: JSON, of a member of a swarm {"state", "config"}, made as a node's network process makes it; or of many light
nodes {"state", "swarm_id", "shards", "listen": an address for each}, which publish records in order and read none.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from swarmd.config import load_config
from swarmd.network import reach, swarm_member
from swarmd.network.dht_node import NodeSettings, SwarmNode
from swarmd.network.dialects import Dialect, OutgoingGroup, dialect_for
from swarmd.network.identity import Identity, identity_path, load_or_create
from swarmd.network.settings import NetworkSettings
from swarmd.network.swarm_member import SwarmMember
from swarmd.swarming import network_settings
from swarmd.system.startup import prepare_process
from swarmd.tasks.mix import TaskMix
from swarmd.tasks.provenance import is_heldout, task_seed
from tests.hostile.authors import answers
from tests.integration.dht_process import DhtProcess, answer_lines
from tests.integration.namespaces import Host
from tests.integration.swarm import Member

MIX = "embedded"
"""The preset that the light nodes draw their tasks from."""

_GROUPS = 3
_SECONDS = 30.0
# So often, and not each ten seconds, a member looks at its peers' addresses, and asks one whether it can be called.
_LOOK_SECONDS, _ASK_SECONDS = 0.5, 0.5


class MemberProcess(DhtProcess):
    """A member on a host: made of its settings and of what `swarmd found` and `swarmd join` wrote beside them."""

    def __init__(self, host: Host, member: Member) -> None:
        config = member.state.with_name(member.state.name + ".yaml")
        super().__init__(host, member.state, module=__name__, config=str(config))

    def share(self, round: int, expires: float) -> set[str]:
        """An exchange of this round; the peers of whom groups were admitted in it."""
        return {group["peer_id"] for group in self.do("share", round=round, expires=expires)["groups"]}


class LightNodes(DhtProcess):
    """Many nodes on a host that publish. peers: the peer id of each, by the address that it listens on."""

    def __init__(self, host: Host, state: Path, swarm_id: str, shards: int, listen: list[str]) -> None:
        super().__init__(host, state, module=__name__, swarm_id=swarm_id, shards=shards, listen=listen)
        self.peers: dict[str, str] = dict(zip(listen, self.do("peer_ids"), strict=True))


class _Member:
    """What a member can be told."""

    def __init__(self, member: SwarmMember, settings: NetworkSettings, peer_id: str) -> None:
        self._member, self._settings, self._peer_id = member, settings, peer_id
        self._mix: TaskMix | None = None

    async def do_peer_id(self) -> str:
        return self._peer_id

    async def do_state(self) -> dict[str, Any]:
        return self._member.state().to_message()

    async def do_peers(self) -> dict[str, tuple[str, ...]]:
        """peer id -> addresses, as it has them from p2pd for the limit of an address block."""
        return dict(self._member._peer_addresses)

    async def do_address_of(self, peers: list[str]) -> list[str | None]:
        return [self._member._address_of(peer) for peer in peers]

    async def do_open(self, round: int) -> None:
        await self._member.call("open", {"round": round})

    async def do_share(self, round: int, expires: float) -> Any:
        """What the main process would be answered."""
        await asyncio.shield(self._member._preparing)
        if self._mix is None:
            self._mix = await asyncio.to_thread(swarm_member._mix, self._settings.datasets)
        groups = [
            {"slot": group.slot, "provenance": asdict(group.task.provenance), "completions": group.completions,
             "mean_logprobs": group.mean_logprobs}
            for group in _groups(self._mix, self._settings.swarm_id, self._peer_id, round)
        ]  # fmt: skip
        given = {"round": round, "groups": groups, "expires": expires, "until": time.monotonic() + _SECONDS}
        return await self._member.call("share", given)

    async def do_places(self, round: int) -> list[str]:
        """The peers that have a place in the round."""
        assert self._member._admission is not None
        return sorted(self._member._admission.met(round))

    async def do_refused(self) -> Mapping[str, Mapping[str, int]]:
        """peer id -> reason -> how often, since the start."""
        assert self._member._admission is not None
        return self._member._admission.refused


class _LightNodes:
    """What they can be told."""

    def __init__(self, swarm_id: str, dialect: Dialect, nodes: list[tuple[SwarmNode, Identity]]) -> None:
        from swarmd.tasks.mix_files import preset

        self._swarm_id, self._dialect, self._nodes = swarm_id, dialect, nodes
        self._mix = TaskMix(preset(MIX))

    async def do_peer_id(self) -> str:
        return self._nodes[0][0].peer_id

    async def do_peer_ids(self) -> list[str]:
        return [node.peer_id for node, _ in self._nodes]

    async def do_publish(self, round: int, expires: float) -> list[bool]:
        """Whether somebody else took the record of each."""
        for node, _ in self._nodes:
            node.allow(self._dialect.keys(round))
        return await asyncio.gather(*(self._publish(node, by, round, expires) for node, by in self._nodes))

    async def _publish(self, node: SwarmNode, by: Identity, round: int, expires: float) -> bool:
        groups = _groups(self._mix, self._swarm_id, by.peer_id, round)
        value = self._dialect.encode(groups, round, by, expires, "tests").value
        return await node.publish(self._dialect.key_for(round, by.peer_id), by.peer_id, value, expires, _SECONDS)


def _groups(mix: TaskMix, swarm_id: str, peer_id: str, round: int) -> list[OutgoingGroup]:
    """A peer's first tasks of a round, answered."""
    rng, made, slot = random.Random(f"{peer_id} {round}"), list[OutgoingGroup](), 0
    while len(made) < _GROUPS:
        task = mix.draw(task_seed(swarm_id, round, peer_id, slot))
        if not is_heldout(task.question):
            texts = answers(task, rng)
            made.append(OutgoingGroup(task, slot, texts, (-0.5,) * len(texts)))
        slot += 1
    return made


async def _serve_member(state: Path, config: str) -> None:
    swarm_member._ADDRESSES_SECONDS, reach._ASK_SECONDS = _LOOK_SECONDS, _ASK_SECONDS
    read = load_config(Path(config), os.environ)
    identity = load_or_create(identity_path(read.network.identity_file, state, os.environ))
    settings = network_settings(read, identity, state, "tests", os.environ)
    member = SwarmMember(settings)
    await member.start()
    try:
        await answer_lines(_Member(member, settings, identity.peer_id))
    finally:
        await member.close()


async def _serve_light_nodes(state: Path, swarm_id: str, shards: int, listen: list[str]) -> None:
    dialect = dialect_for("swarmd", swarm_id, shards)

    def is_genuine(key: str, subkey: str, value: bytes, expires: float) -> bool:
        return dialect.is_signed(value, key, subkey, expires)

    async with AsyncExitStack() as stack:
        nodes = []
        for number, address in enumerate(listen):
            folder = state / f"light{number}"
            folder.mkdir()
            identity = load_or_create(folder / "identity.key")
            settings = NodeSettings(folder, identity.path, (address,), namespace=dialect.dht_namespace)
            node = await SwarmNode.start(settings, is_genuine)
            stack.push_async_callback(node.close)
            nodes.append((node, identity))
        await answer_lines(_LightNodes(swarm_id, dialect, nodes))


def main() -> None:
    prepare_process()
    given = json.loads(sys.argv[1])
    given["state"] = Path(given["state"])
    asyncio.run(_serve_member(**given) if "config" in given else _serve_light_nodes(**given))


if __name__ == "__main__":
    main()
