"""Hostile members of a swarm: a process with real DHT nodes that lie in all they publish, keep and answer.

    python -m tests.integration.hostile_nodes

Beside them is a witness, a node that does what it should and takes down what the others publish.

It reads its settings (`hostile_peers.Settings`, and "dialect" where that is a legacy one) as one line of JSON from
stdin, attacks in every round until stdin ends, and writes a line of JSON about itself and about each round. Beside that
it writes down, in two files, what it sends (sent.jsonl) and every signed record of others that it meets (met.jsonl).

A peer that lies in what its signature vouches for is soon in quarantine, and nothing of it is looked at any more. So
the nodes publish in their own names and in those of many peers more, which cost a key each and no address.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import math
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from swarmd.network.admission_rules import RawRecord
from swarmd.network.dht_calls import key_id, to_bytes
from swarmd.network.dht_node import NodeSettings, SwarmNode
from swarmd.network.dht_server import DhtServer
from swarmd.network.dialects import dialect_for
from swarmd.network.dialects.genrl_payload import GenrlDialect
from swarmd.network.dialects.own import OwnDialect
from swarmd.network.hivemind_dht import P2PContext, PeerID, dht_pb2
from swarmd.network.identity import load_or_create
from swarmd.network.signing import Signer
from swarmd.network.strict_serializer import encode_dictionary, encode_subkey, wrap_value
from swarmd.tasks.mix import TaskMix
from swarmd.tasks.mix_files import preset
from tests.hostile.authors import authors
from tests.integration.dht_nodes import free_port, new_peer_id
from tests.integration.hostile_legacy_records import LegacyForger
from tests.integration.hostile_records import FLOOD, Forger, Sent

NODES = 2
# Names with a key, and how many of them publish in a round, a kind each. In a legacy swarm most records have no key's
# name, and there are more kinds.
NAMES, LEGACY_NAMES = 48, 20
KINDS_A_ROUND, LEGACY_KINDS_A_ROUND = 6, 12
INVENTED, LEGACY_INVENTED = 400, 100
"""Names under each victim's key, in every third round; in a legacy swarm each has a record that must be decoded."""
_EARLY, _WITHIN = 0.8, 1.2
"""Seconds before a round's begin in which its records are sent, and after it those that follow the others'."""
_LOOK_EVERY, _LOOK_SECONDS, _PUBLISH_SECONDS = 0.5, 1.0, 0.5
_ITEMS_A_CALL = 100
_CALL_SECONDS = 3.0
_SILENCE_SECONDS = 20.0

LIES = ("true", "true", "neighbours", "forged", "damaged", "silent", "fails")
"""How searches are answered, by chance: two in seven as an honest node does, so that the others keep on asking."""


class LyingServer(DhtServer):
    """told: how many searches it has answered in which way. junk: what it answers for a key when that is "forged", well
    formed or not."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.told: Counter[str] = Counter()
        self.junk: dict[bytes, list[tuple[str, bytes, float]]] = {}
        self._nobody = new_peer_id()

    async def rpc_find(self, request: dht_pb2.FindRequest, context: P2PContext) -> dht_pb2.FindResponse:
        lie = random.choice(LIES)
        self.told[lie] += 1
        if lie == "true":
            return await super().rpc_find(request, context)
        if lie == "fails":
            raise ValueError("as it likes")
        if lie == "silent":
            await asyncio.sleep(_SILENCE_SECONDS)
        response = dht_pb2.FindResponse(peer=self._calls.info)
        for key in request.keys:
            result = response.results.add(type=dht_pb2.NOT_FOUND)
            if lie == "neighbours":
                near = int.from_bytes(key, "big")
                result.nearest_node_ids.extend(to_bytes(near ^ number) for number in range(1, 200))
                # Some lies name many who are not there, others the same one under many names.
                invented = [self._nobody] * 199 if random.random() < 0.5 else [new_peer_id() for _ in range(199)]
                result.nearest_peer_ids.extend(PeerID.from_base58(name).to_bytes() for name in invented)
                continue
            whole = encode_dictionary(self.junk.get(key, []))
            cut = whole[: random.randrange(len(whole))] + b"\xc1\xc7\x05\x40"
            result.type = dht_pb2.FOUND_DICTIONARY
            result.value = whole if lie == "forged" else cut
            result.expiration_time = time.time() + 600
        return response


class LyingNode(SwarmNode):
    def __init__(self, settings: NodeSettings, *parts: Any) -> None:
        super().__init__(settings, *parts)
        self.server = self._server = LyingServer(
            self._calls, self._reach, settings.limits, self._store, self._cache, settings.namespace
        )

    async def offer(self, targets: Sequence[str], items: Sequence[tuple[str, bytes, bytes, float]]) -> list[int]:
        """Stores (key, subkey as it is sent, value likewise, expiration) at each target; how many took each."""
        taken = [0] * len(items)
        for start in range(0, len(items), _ITEMS_A_CALL):
            some = items[start : start + _ITEMS_A_CALL]
            request = dht_pb2.StoreRequest(
                keys=[to_bytes(key_id(key)) for key, _, _, _ in some],
                subkeys=[subkey for _, subkey, _, _ in some],
                values=[value for _, _, value, _ in some],
                expiration_time=[expires for _, _, _, expires in some],
                in_cache=[False] * len(some),
                peer=self._calls.info,
            )
            answers = await asyncio.gather(
                *(self._calls.call(target, "rpc_store", request, _CALL_SECONDS) for target in targets)
            )
            for answer in filter(None, answers):
                for number, kept in enumerate(answer.store_ok[: len(some)]):
                    taken[start + number] += kept
        return taken


class Attack:
    """All hostile nodes of a process, round by round."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._folder = Path(settings["folder"])
        self._epoch, self._seconds = float(settings["epoch"]), float(settings["round_seconds"])
        self._peers = tuple(settings["peers"])
        dialect = dialect_for(settings.get("dialect", OwnDialect.name), settings["swarm_id"], settings["shards"])
        assert isinstance(dialect, OwnDialect | GenrlDialect)
        self._dialect, self._legacy = dialect, isinstance(dialect, GenrlDialect)
        mix = TaskMix(preset(settings["datasets"]))
        forger = LegacyForger if self._legacy else Forger
        self._forger = forger(
            settings["swarm_id"], dialect, mix, self._ends, settings["seed"], str(self._folder / "marker")
        )
        self._names = itertools.cycle(authors(LEGACY_NAMES if self._legacy else NAMES))
        self._kinds = itertools.cycle(self._forger.before.values())
        self._in_own_name = itertools.cycle(self._forger.in_own_name)
        self._targets: list[str] = []  # the victims that are connected
        self._nodes: list[LyingNode] = []
        self._all: list[SwarmNode] = []  # they and the witness
        self._own: list[Signer] = []

    def _ends(self, round: int) -> float:
        return self._epoch + (round + 1) * self._seconds

    async def run(self, asked_to_end: threading.Event) -> None:
        try:
            for number in range(NODES):
                settings = self._settings(f"h{number}")
                self._own.append(load_or_create(settings.identity))
                self._nodes.append(await LyingNode.start(settings, self._is_genuine))
                self._all.append(self._nodes[-1])
            kinds = [*self._forger.before, *self._forger.within, FLOOD]
            print(json.dumps({"peer_ids": [node.peer_id for node in self._nodes], "all": kinds}), flush=True)
            witness = await SwarmNode.start(self._settings("witness"), self._is_genuine)
            self._all.append(witness)
            watching = asyncio.create_task(self._watch(witness))
            last = -1
            while not asked_to_end.is_set():
                round = max(last + 1, math.ceil((time.time() + _EARLY - self._epoch) / self._seconds))
                await self._until(round, -_EARLY)
                print(json.dumps(await self._play(round)), flush=True)
                last = round
                if watching.done():
                    watching.result()  # it ends only by a fault
        finally:
            for node in self._all:
                await node.close()

    def _is_genuine(self, key: str, subkey: str, value: bytes, expires: float) -> bool:
        return self._dialect.is_signed(value, key, subkey, expires)

    def _settings(self, name: str) -> NodeSettings:
        state = self._folder / name
        state.mkdir()
        identity = load_or_create(state / "identity.key").path
        listen = (f"/ip4/127.0.0.1/tcp/{free_port()}",)
        return NodeSettings(state, identity, listen, peers=self._peers, namespace=self._dialect.dht_namespace)

    async def _play(self, round: int) -> dict[str, Any]:
        """One round's attacks; what was sent and how often it was taken, by kind: {kind: [records, taken]}."""
        told: dict[str, list[int]] = {}
        for node in self._nodes:
            node.server.junk.clear()
        await self._find_victims()
        await self._send(list(self._before(round)), told)
        if round % 3 == 0:
            await self._flood(round, told)
        await self._until(round, _WITHIN)
        await self._send(list(self._within(round)), told)
        lies: Counter[str] = Counter()
        for node in self._nodes:
            lies.update(node.server.told)
        took = time.time() - self._epoch - round * self._seconds
        return {"round": round, "victims": len(self._targets), "kinds": told, "lies": lies, "done_after_s": took}

    async def _find_victims(self) -> None:
        own = {node.peer_id for node in self._all}
        self._targets = [peer.peer_id for peer in await self._nodes[0].peers() if peer.peer_id not in own]
        self._forger.victims = sorted({*self._forger.victims, *self._targets})

    def _before(self, round: int) -> Iterator[Sent]:
        for author in self._own:
            yield from next(self._in_own_name)(author, round)
        for author in itertools.islice(self._names, LEGACY_KINDS_A_ROUND if self._legacy else KINDS_A_ROUND):
            # Now and then as one that is late with it.
            yield from next(self._kinds)(author, round - (round > 0 and random.random() < 0.1))

    def _within(self, round: int) -> Iterator[Sent]:
        for make in self._forger.within.values():
            yield from make(next(self._names), round)

    async def _send(self, sent: Sequence[Sent], told: dict[str, list[int]]) -> None:
        """Each node brings half of them to all victims, and publishes one in its own name as an honest node does."""
        for number, node in enumerate(self._nodes):
            mine = [one for place, one in enumerate(sent) if place % len(self._nodes) == number]
            items = [(one.raw.key, encode_subkey(one.raw.subkey), wrap_value(one.raw.value), _number(one.raw.expires))
                     for one in mine]  # fmt: skip
            for one, (key, _, value, expires) in zip(mine, items, strict=True):
                for liar in self._nodes:
                    liar.server.junk.setdefault(to_bytes(key_id(key)), []).append((one.raw.subkey, value, expires))
            for one, taken in zip(mine, await node.offer(self._targets, items), strict=True):
                count = told.setdefault(one.kind, [0, 0])
                count[0], count[1] = count[0] + 1, count[1] + taken
                self._note(one, taken)
        for node in self._nodes:
            for raw in [one.raw for one in sent if one.raw.subkey == node.peer_id][:1]:
                # What no node would keep is refused here; it was offered all the same.
                with contextlib.suppress(ValueError):
                    await node.publish(raw.key, raw.subkey, raw.value, _number(raw.expires), _PUBLISH_SECONDS)

    async def _flood(self, round: int, told: dict[str, list[int]]) -> None:
        """Names that nobody has, each with a record of its own."""
        items, count = [], LEGACY_INVENTED if self._legacy else INVENTED
        for key in sorted({self._dialect.key_for(round, victim) for victim in self._forger.victims}):
            flood = [self._forger.nobodys(new_peer_id(), round) for _ in range(count)]
            names = [(one.raw.subkey, wrap_value(one.raw.value), one.raw.expires) for one in flood]
            items.append((key, b"", encode_dictionary(names), self._ends(round + 1)))
            if self._legacy:
                for one in flood:
                    self._note(one, 0)  # where nobody signs, it may be learned from
        taken = await self._nodes[round % NODES].offer(self._targets, items)
        told[FLOOD] = [count * len(items), count * sum(taken)]

    async def _watch(self, witness: SwarmNode) -> None:
        """Takes down the others' records of each round and the one before, whatever the attack is at.

        By a node that does as it should: those that lie are soon asked and told nothing any more.
        """
        while True:
            round = math.floor((time.time() - self._epoch) / self._seconds)
            near = range(max(0, round - 1), round + 1)
            for node in self._all:
                node.allow([key for number in (*near, round + 1, round + 2) for key in self._dialect.keys(number)])
            rounds = {self._dialect.key_for(n, victim): n for n in near for victim in self._forger.victims}
            for key, records in (await witness.gather(list(rounds), _LOOK_SECONDS)).items():
                for subkey, (value, expires) in records.items():
                    raw = RawRecord(rounds[key], key, subkey, value, expires)
                    if subkey in self._forger.victims and self._forger.seen.add(raw, self._dialect):
                        self._write("met.jsonl", described(raw))
            await asyncio.sleep(_LOOK_EVERY)

    def _note(self, one: Sent, taken: int) -> None:
        line = {"kind": one.kind, "never": one.never, "taken": taken}
        if isinstance(one.raw.value, bytes) and len(one.raw.value) < 100_000:
            line |= described(one.raw)
        self._write("sent.jsonl", line)

    def _write(self, file: str, line: dict[str, Any]) -> None:
        with open(self._folder / file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    async def _until(self, round: int, seconds: float) -> None:
        """Until so many seconds after the begin of the round."""
        await asyncio.sleep(max(0.0, self._epoch + round * self._seconds + seconds - time.time()))


def described(raw: RawRecord) -> dict[str, Any]:
    """A record as a line of JSON."""
    return {
        "round": raw.round, "key": raw.key, "subkey": raw.subkey, "expires": _number(raw.expires),
        "value": base64.b64encode(raw.value).decode(),
    }  # fmt: skip


def _number(expires: Any) -> float:
    try:
        return float(expires)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    asked_to_end = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), asked_to_end.set()), daemon=True).start()
    attack = Attack(settings)
    asyncio.run(attack.run(asked_to_end))


if __name__ == "__main__":
    main()
