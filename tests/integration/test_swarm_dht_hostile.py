"""What strangers can send into the DHT (cases D of the threat review): nothing hangs, and honest records come through.

The stranger is a stock hivemind node whose messages are made by hand. A record is tried twice: stored on our nodes,
which refuse it, and stored on a stock node, which keeps it and answers our search with it.
"""

from __future__ import annotations

import asyncio
import gc
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hivemind.dht import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.proto import dht_pb2

from swarmd.network.dht_calls import key_id, to_bytes
from swarmd.network.dht_node import SwarmNode
from swarmd.network.dialects import dialect_for
from swarmd.network.dialects.own import MAGIC
from swarmd.network.hivemind_dht import P2PHandlerError, PeerID
from swarmd.network.identity import Identity, load
from swarmd.network.record_store import RecordLimits
from swarmd.network.signing import milliseconds, sign
from swarmd.network.strict_serializer import encode_dictionary, unwrap_value, wrap_value
from tests.integration.dht_nodes import address_of, new_peer_id, swarm, until, within

KEY = "7"
PLACE = DHTID.generate(source=KEY).to_bytes()


def nested(levels: int) -> bytes:
    """Extensions of hivemind's tuple code inside each other, 4 bytes a level."""
    packed = b"\x91\x01"
    for _ in range(levels):
        packed = b"\x91" + msgpack.packb(msgpack.ExtType(0x40, packed))
    return packed[1:]


def dictionary(items: list[Any]) -> bytes:
    return msgpack.packb(msgpack.ExtType(0x50, msgpack.packb([float("inf"), time.time() + 600, items])))


@dataclass(frozen=True)
class Bad:
    """A record as a stranger sends it. subkey None: under the victim's name. stock_dies: it ends a stock node."""

    value: bytes = b"\xc4\x01x"
    subkey: bytes | None = None
    expires_in: float = 600.0
    stock_dies: bool = False


STRANGER = msgpack.packb(new_peer_id())
BAD = {
    "D01 not msgpack": Bad(b"\xc1", STRANGER),
    "D02 empty": Bad(b"", STRANGER),
    "D03 truncated": Bad(b"\xdc\xff\xff", STRANGER),
    "D04 msgpack with a tail": Bad(b"\xc4\x01x[signature:AAAA]", STRANGER),
    "D05 subkey of nested extensions": Bad(subkey=nested(300), stock_dies=True),
    "D06 value of nested extensions": Bad(nested(300), STRANGER),
    "D07 dictionary of nested extensions": Bad(nested(300), b"", stock_dies=True),
    "D08 deeply nested subkey": Bad(subkey=nested(5000), stock_dies=True),
    "D09 another's subkey": Bad(b"\xc4\x06FORGED", None, 601.0),
    "D10 another's subkey for ten years": Bad(b"\xc4\x06FORGED", None, 3e8),
    "D11 for ever": Bad(subkey=STRANGER, expires_in=float("inf")),
    "D12 not a number": Bad(subkey=STRANGER, expires_in=float("nan")),
    "D14 subkey is a number": Bad(subkey=b"\x05"),
    "D15 subkey is bytes": Bad(subkey=b"\xc4\x01x"),
    "D16 subkey of 100 kB": Bad(subkey=msgpack.packb("x" * 100_000)),
    "D17 subkey is no peer id": Bad(subkey=msgpack.packb("[owner:ssh-rsa AAAA]")),
    "D18 value of 3.9 MiB": Bad(msgpack.packb(b"x" * 4_067_328), STRANGER),
    "value is a text": Bad(msgpack.packb("text"), STRANGER),
    "expired": Bad(subkey=STRANGER, expires_in=-5.0),
    "dictionary with one good item among bad ones": Bad(
        dictionary([[new_peer_id(), b"\xc1", 1e18], [5, 6, 7], "x", [[]], {"a": 1}, [new_peer_id(), 1.5, None]]), b""
    ),
}


async def send(attacker: DHTNode, to: Any, bad: Bad, victim: str, key: bytes = PLACE, in_cache: bool = False) -> list:
    """What the other node answers to the store; [] where it fails."""
    request = dht_pb2.StoreRequest(
        keys=[key],
        subkeys=[msgpack.packb(victim) if bad.subkey is None else bad.subkey],
        values=[bad.value],
        expiration_time=[time.time() + bad.expires_in],
        in_cache=[in_cache],
    )
    peer = PeerID.from_base58(str(to.peer_id))
    try:
        return list((await attacker.protocol.get_stub(peer).rpc_store(request, timeout=5)).store_ok)
    except P2PHandlerError:
        if isinstance(to, SwarmNode):
            raise  # ours refuses a record, and does not fail over it
        return []
    except Exception:
        return []  # a stock node fails in many ways, which is what is tested


def values(found: dict[str, tuple[bytes, float]]) -> dict[str, bytes]:
    return {subkey: value for subkey, (value, _) in found.items()}


async def honest_pair(s: Any, **options: Any) -> tuple[SwarmNode, SwarmNode, DHTNode]:
    """A publisher whose record `honest` is stored, a reader that keeps a copy of it, and an attacker."""
    publisher = await s.ours(**options)
    reader = await s.ours(peers=(await address_of(publisher),), **options)
    attacker = await s.stock(await address_of(publisher), await address_of(reader))
    for node in (publisher, reader):
        node.allow([KEY])
    await until(lambda: reader.connected_peers == 2 and publisher.connected_peers == 2)
    assert await publisher.publish(KEY, publisher.peer_id, b"honest", time.time() + 600, 10)
    return publisher, reader, attacker


def test_our_nodes_refuse_what_strangers_store_and_keep_the_honest_record():
    async def run() -> None:
        async with swarm() as s:
            publisher, reader, attacker = await honest_pair(s)
            for name, bad in BAD.items():
                for node in (publisher, reader):
                    for in_cache in (False, True):
                        answer = await send(attacker, node, bad, publisher.peer_id, in_cache=in_cache)
                        # The one that is well formed goes into the cache, where the first-hand record outranks it.
                        if not (in_cache and name.startswith("D09")):
                            assert answer in ([False], []), f"{name}: {answer}"
                found = (await within(10, reader.gather([KEY], 5)))[KEY]
                assert values(found) == {publisher.peer_id: b"honest"}, name
            assert publisher.daemon_restarts == reader.daemon_restarts == 0

    asyncio.run(run())


def test_what_stock_nodes_keep_and_answer_harms_no_search():
    cases = {str(number): name for number, (name, bad) in enumerate(BAD.items()) if not bad.stock_dies}

    async def run() -> None:
        async with swarm() as s:
            replica = await s.stock()
            attacker = await s.stock(await address_of(replica))
            publisher = await s.ours(peers=(await address_of(replica),))
            reader = await s.ours(peers=(await address_of(replica),))
            await until(lambda: publisher.connected_peers and reader.connected_peers)
            assert await reader.connect([await address_of(publisher)]) == 1
            publisher.allow(cases)
            kept = set()
            for key, name in cases.items():
                place = DHTID.generate(source=key).to_bytes()
                before = await send(attacker, replica, BAD[name], publisher.peer_id, place)
                await publisher.publish(key, publisher.peer_id, b"honest", time.time() + 600, 10)
                after = await send(attacker, replica, BAD[name], publisher.peer_id, place)
                if True in before + after:
                    kept.add(name[:3])

            for key, name in cases.items():
                found = (await within(10, reader.gather([key], 5)))[key]
                assert values(found) == {publisher.peer_id: b"honest"}, name
            together = await within(15, reader.gather(list(cases), 10))
            assert {key: values(found) for key, found in together.items()} == {
                key: {publisher.peer_id: b"honest"} for key in cases
            }
            # Else nothing would have been tried.
            assert {"D01", "D02", "D03", "D04", "D06", "D09", "D10", "D11", "D12", "D14", "D16", "D17", "D18"} <= kept

    asyncio.run(run())


@asynccontextmanager
async def lag_below(seconds: float) -> AsyncIterator[None]:
    """AssertionError where the loop computed for longer in one go meanwhile, or stood still for 4 s, after which the
    network process is replaced."""
    longest = waited = 0.0

    async def beat() -> None:
        nonlocal longest, waited
        while True:
            # The loop's own work: a busy machine may take the CPU away from it for longer.
            before, begun = time.thread_time(), time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.thread_time() - before)
            waited = max(waited, time.monotonic() - begun)

    # As the network process does: a full collection walks through all that the tests before have left.
    gc.collect()
    gc.freeze()
    beating = asyncio.create_task(beat())
    try:
        await asyncio.sleep(0.05)
        longest = waited = 0.0
        yield
        await asyncio.sleep(0.05)
    finally:
        beating.cancel()
        gc.unfreeze()
    assert longest < seconds, f"the loop computed for {longest:.2f} s"
    assert waited < 4.0, f"the loop stood still for {waited:.2f} s"


ROUND = 7


def worst_record(identity: Identity, key: str, expires: float) -> bytes:
    """Rightly signed, and as much work to read as a record can be: thousands of values, packed small."""
    groups = [[n, "reasoning_gym", "x", "h", 5, 1, ["a" * 50] * 55, None] for n in range(60)]
    body = msgpack.packb({"round": ROUND, "expires": milliseconds(expires), "model": "m", "groups": groups})
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = b"\1" + packer.compress(body) + packer.flush()
    signature = sign(identity, "swarmd/record/1", key, expires, packed)
    fields = {"key": signature.public_key, "signature": signature.signature, "body": packed}
    return MAGIC + b"\1" + msgpack.packb(fields)


def test_thousands_of_rivals_in_one_message_hold_up_neither_who_is_sent_them_nor_who_reads_them():
    own = dialect_for("swarmd", "0123456789abcdef")

    def signed(key: str, subkey: str, value: bytes, expires: float) -> bool:
        return own.is_signed(value, key, subkey, expires)

    async def run() -> None:
        async with swarm() as s:
            victim = await s.ours(genuine=signed)
            address = await address_of(victim)
            attacker = await s.ours(peers=(address,), state=s.root / "attacker")
            await until(lambda: victim.connected_peers and attacker.connected_peers)
            identity = load(s.root / "attacker" / "identity.key")
            key, expires = own.key_for(ROUND, attacker.peer_id), time.time() + 600
            place = key_id(key)
            victim.allow([key])
            value = wrap_value(worst_record(identity, key, expires))
            assert await attacker._calls.store(victim.peer_id, place, {attacker.peer_id: (value, expires)}, 5) == [True]

            async def send(dictionaries: list[bytes]) -> None:
                count = len(dictionaries)
                request = dht_pb2.StoreRequest(
                    keys=[to_bytes(place)] * count,
                    subkeys=[b""] * count,
                    values=dictionaries,
                    expiration_time=[expires + 1] * count,
                    in_cache=[False] * count,
                )
                assert await attacker._calls.call(victim.peer_id, "rpc_store", request, 60) is not None

            def rivals(count: int, first: int = 0) -> bytes:
                # Each as good as it can be without a good signature: to refuse it takes an RSA operation.
                name, bad = attacker.peer_id, value[:-40] + b"%08d" % first + value[-32:]
                return encode_dictionary([(name, bad, expires + 1 + n / 1000) for n in range(first, first + count)])

            names = [new_peer_id() for _ in range(4000)]
            # Made before: the attacker is on the same loop here.
            messages = [
                [encode_dictionary([(attacker.peer_id, b"\xc4\x01x", expires + n / 100) for n in range(4000)])],
                [rivals(2500)],
                [rivals(1, n) for n in range(250)],
                # A name for each, and all of them once more.
                [encode_dictionary([(name, b"\xc4\x01x", expires) for name in names])],
                [encode_dictionary([(name, b"\xc4\x01y", expires + 1) for name in names])],
            ]
            for message in messages:
                async with lag_below(0.5):
                    await send(message)
            assert victim.stored["refused"] >= 250
            reader = await s.ours(peers=(address,), genuine=signed)
            await until(lambda: reader.connected_peers >= 1)
            async with lag_below(0.5):
                found = (await within(20, reader.gather([key], 15)))[key]
            # The best of what the attacker has sent is its first: none of the others has a good signature.
            assert found[attacker.peer_id] == (unwrap_value(value), expires) and len(found) > 3000

    asyncio.run(run())


def test_a_node_that_starts_again_within_a_round_publishes_anew():
    own = dialect_for("swarmd", "0123456789abcdef")

    def signed(key: str, subkey: str, value: bytes, expires: float) -> bool:
        return own.is_signed(value, key, subkey, expires)

    async def run() -> None:
        async with swarm() as s:
            replica = await s.ours(genuine=signed)
            state = s.root / "again"
            node = await s.ours(state=state, peers=(await address_of(replica),), genuine=signed)
            signer = load(state / "identity.key")
            key, expires = own.key_for(ROUND, node.peer_id), time.time() + 600
            values = [own.encode([], ROUND, signer, expires).value for _ in range(2)]
            assert values[0] != values[1]
            replica.allow([key])
            await until(lambda: node.connected_peers)
            assert await node.publish(key, node.peer_id, values[0], expires, 5)
            await node.close()
            node = await s.ours(state=state, peers=(await address_of(replica),), genuine=signed)
            await until(lambda: node.connected_peers)
            assert await node.publish(key, node.peer_id, values[1], expires, 5)
            assert (await replica.gather([key], 5))[key] == {node.peer_id: (values[1], expires)}

    asyncio.run(run())


def test_a_founder_whose_peers_listen_nowhere_has_published():
    async def run() -> None:
        async with swarm() as s:
            founder = await s.ours()
            reader = await s.ours(listen=(), peers=(await address_of(founder),))
            founder.allow([KEY])
            await until(lambda: founder.connected_peers and reader.connected_peers)
            assert await founder.publish(KEY, founder.peer_id, b"founder's", time.time() + 600, 4)
            assert values((await reader.gather([KEY], 4))[KEY]) == {founder.peer_id: b"founder's"}

    asyncio.run(run())


def test_a_p2pd_that_takes_too_much_memory_is_replaced(monkeypatch: pytest.MonkeyPatch):
    async def run() -> None:
        async with swarm() as s:
            node = await s.ours()
            old = node.daemon_pid
            assert b"GOMEMLIMIT=256MiB" in Path(f"/proc/{old}/environ").read_bytes().split(b"\0")
            assert 2**20 < node._supervisor.daemon.memory < 512 * 2**20
            await asyncio.sleep(2.5)
            assert (node.daemon_pid, node.daemon_restarts) == (old, 0)
            monkeypatch.setattr("swarmd.network.p2p_supervisor._MOST_MEMORY", 2**20)
            await until(lambda: node.daemon_restarts)
            monkeypatch.undo()
            await until(lambda: node.daemon_pid not in (None, old))
            assert not Path(f"/proc/{old}").exists()

    asyncio.run(run())


def test_a_plain_value_under_a_key_neither_wipes_nor_hides_records():
    async def run() -> None:
        async with swarm() as s:
            publisher, reader, attacker = await honest_pair(s)
            plain = Bad(b"\xc4\x05PLAIN", b"\xc0", 700.0)
            stock = await s.stock(await address_of(publisher), await address_of(reader))
            assert await send(attacker, publisher, plain, "") == [False]
            assert await send(attacker, stock, plain, "") == [True]
            found = (await within(10, reader.gather([KEY], 5)))[KEY]
            assert values(found) == {publisher.peer_id: b"honest"}

    asyncio.run(run())


def test_a_signed_record_beats_a_forged_one_wherever_it_lies():
    def genuine(key: str, subkey: str, value: bytes, expires: float) -> bool:
        return value == b"honest" and key == KEY

    async def run() -> None:
        async with swarm() as s:
            publisher, reader, attacker = await honest_pair(s, genuine=genuine)
            addresses = [await address_of(publisher), await address_of(reader)]
            stock = await s.stock(*addresses)
            late = await s.ours(peers=(await address_of(reader), await address_of(stock)), genuine=genuine)
            late.allow([KEY])
            await until(lambda: late.connected_peers >= 2)
            forged = Bad(b"\xc4\x06FORGED", None, 800.0)
            for node in (reader, stock, late):
                await send(attacker, node, forged, publisher.peer_id)
            # Nobody can ask the publisher itself any more; what is left are copies, and the forged one lives longer.
            await publisher.close()
            read = await within(10, stock.get(KEY, latest=True))
            assert read.value[publisher.peer_id].value == b"FORGED"
            for node in (reader, late):
                assert values((await node.gather([KEY], 5))[KEY]) == {publisher.peer_id: b"honest"}

    asyncio.run(run())


def test_floods_of_keys_records_and_bytes_end_at_the_limits_and_honest_records_stay_readable():
    limits = RecordLimits(records_per_key=40, bytes_per_key=200_000, bytes_total=300_000)

    async def run() -> None:
        async with swarm() as s:
            publisher, reader, attacker = await honest_pair(s, limits=limits)
            reader.allow([KEY, "8"])
            big = msgpack.packb(b"x" * 60_000)
            for number in range(20):
                unknown = DHTID.generate(source=f"junk{number}").to_bytes()
                assert await send(attacker, reader, Bad(big, msgpack.packb(new_peer_id())), "", unknown) == [False]
            for _ in range(30):
                await send(attacker, reader, Bad(msgpack.packb(b"y" * 30_000), msgpack.packb(new_peer_id())), "")
            for _ in range(60):
                await send(attacker, reader, Bad(b"\xc4\x01z", msgpack.packb(new_peer_id())), "")
            many = dictionary([[new_peer_id(), b"\xc4\x01z", time.time() + 600] for _ in range(5000)])
            await send(attacker, reader, Bad(many, b""), "")

            assert reader.stored["bytes"] <= 200_000
            found = (await within(10, publisher.gather([KEY], 5)))[KEY]
            assert found[publisher.peer_id][0] == b"honest"
            assert len((await reader.gather([KEY], 5))[KEY]) <= 41
            # A peer that brings its own record finds a place, whatever others have filled up.
            late = await s.ours(peers=(await address_of(reader),), limits=limits)
            await until(lambda: late.connected_peers)
            assert await late.publish(KEY, late.peer_id, b"late" * 1000, time.time() + 600, 10)
            assert late.peer_id in (await reader.gather([KEY], 5))[KEY]

    asyncio.run(run())


def test_a_reply_stays_below_the_four_mib_that_hivemind_can_send():
    async def run() -> None:
        async with swarm() as s:
            publisher, reader, attacker = await honest_pair(s)
            keys = [KEY, "8", "9"]
            reader.allow(keys)
            value = msgpack.packb(b"x" * 50_000)
            for key in keys:
                place = int.from_bytes(DHTID.generate(source=key).to_bytes(), "big")
                for _ in range(65):
                    peer = new_peer_id()
                    assert reader._store.put(place, peer, value, time.time() + 600, peer)
            stub = attacker.protocol.get_stub(PeerID.from_base58(reader.peer_id))
            places = [DHTID.generate(source=key).to_bytes() for key in keys]
            answer = await stub.rpc_find(dht_pb2.FindRequest(keys=places), timeout=10)
            assert 3 * 2**20 < answer.ByteSize() < 4 * 2**20
            assert all(result.type == dht_pb2.FOUND_DICTIONARY for result in answer.results)
            read = await within(15, attacker.get(KEY, latest=True))
            assert len(read.value) >= 60

    asyncio.run(run())


def test_invented_node_ids_and_giant_questions_cost_little():
    async def run() -> None:
        async with swarm() as s:
            publisher, reader, attacker = await honest_pair(s)
            stub = attacker.protocol.get_stub(PeerID.from_base58(reader.peer_id))
            for number in range(100):
                peer = dht_pb2.NodeInfo(node_id=DHTID.generate(source=str(number)).to_bytes())
                await stub.rpc_ping(dht_pb2.PingRequest(peer=peer), timeout=5)
            await stub.rpc_ping(dht_pb2.PingRequest(peer=dht_pb2.NodeInfo(node_id=b"x" * 3000)), timeout=5)
            question = await stub.rpc_find(dht_pb2.FindRequest(keys=[PLACE] * 20_000 + [b"", b"x" * 99]), timeout=10)
            assert len(question.results) <= 64
            assert {peer for result in question.results for peer in result.nearest_node_ids}
            # Of the attacker's hundred node ids at most two are handed on.
            mine = attacker.peer_id.to_bytes()
            assert all(list(result.nearest_peer_ids).count(mine) <= 2 for result in question.results)
            assert values((await reader.gather([KEY], 5))[KEY]) == {publisher.peer_id: b"honest"}

    asyncio.run(run())


class Liar:
    """A peer that answers searches with nodes that do not exist, and stores with nothing."""

    def __init__(self, node: DHTNode, silent: bool, first: int) -> None:
        self._silent, self._first = silent, first
        node.protocol.rpc_find = self.find  # before its handlers are added
        self.peer = node.protocol.node_info

    async def find(self, request: dht_pb2.FindRequest, context: Any) -> dht_pb2.FindResponse:
        if self._silent:
            await asyncio.sleep(60)
        response = dht_pb2.FindResponse(peer=self.peer)
        for key in request.keys:
            near = int.from_bytes(key, "big")
            response.results.add(
                type=dht_pb2.NOT_FOUND,
                nearest_node_ids=[(near ^ n).to_bytes(20, "big") for n in range(self._first, self._first + 2000)],
                nearest_peer_ids=[PeerID.from_base58(new_peer_id()).to_bytes() for _ in range(2000)],
            )
        return response


@pytest.mark.parametrize("silent", [False, True])
def test_peers_that_invent_neighbours_or_say_nothing_do_not_hold_up_a_search(silent: bool):
    async def run() -> None:
        async with swarm() as s:
            publisher, reader, _ = await honest_pair(s)
            late = await s.ours(peers=(await address_of(reader),))
            for number in range(3):
                liar = await s.stock(await address_of(late), node_id=DHTID(int.from_bytes(PLACE, "big") ^ number))
                await liar.protocol.remove_p2p_handlers(liar.p2p)
                Liar(liar, silent, 10 + 2000 * number)
                await liar.protocol.add_p2p_handlers(liar.p2p)
            # Once it has its own and the liars' names in its table; the liars' are nearest to the key.
            await until(lambda: len(late._calls.contacts) >= 4)
            found = await within(12, late.gather([KEY], 6))
            assert values(found[KEY]) == {publisher.peer_id: b"honest"}

    asyncio.run(run())


def test_a_search_ends_at_its_deadline_with_what_it_has_when_p2pd_is_gone():
    async def run() -> None:
        async with swarm() as s:
            _, reader, _ = await honest_pair(s)
            reader.allow([KEY, "8"])
            await reader.publish("8", reader.peer_id, b"mine", time.time() + 600, 5)
            reader._detach()
            found = await within(3, reader.gather([KEY, "8"], 2))
            assert values(found["8"]) == {reader.peer_id: b"mine"}

    asyncio.run(run())
