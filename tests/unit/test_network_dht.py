"""The parts of the DHT node that need no network: hivemind's hooks, the strict serializer, limits, contacts, memory."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.network.contacts import Contacts
from swarmd.network.dht_calls import Found, key_id
from swarmd.network.dht_search import MOST_ASKED, Search
from swarmd.network.handover import Handover
from swarmd.network.hivemind_dht import Multiaddr, PeerID, differences
from swarmd.network.p2p_daemon import dialable
from swarmd.network.p2pd_arguments import DaemonSettings, arguments
from swarmd.network.p2pd_control import PendingCalls
from swarmd.network.record_store import RecordLimits, RecordStore
from swarmd.network.refusals import Refused
from swarmd.network.remembered_peers import FILE, RememberedPeers, parse_address
from swarmd.network.socket_directory import SocketDirectory
from swarmd.network.strict_serializer import (
    decode_dictionary,
    decode_subkey,
    encode_dictionary,
    encode_subkey,
    is_peer_id,
    unwrap_value,
    wrap_value,
)
from tests.unit.dialect_records import (
    EXPIRES,
    NAMES,
    ROUND,
    STRANGER,
    bomb,
    dialect,
    identity,
    own_record,
    private,
    read,
    written,
)


def peer(number: int) -> str:
    return PeerID(b"\x12\x20" + number.to_bytes(32, "big")).to_base58()


def test_hivemind_is_still_the_one_that_was_read():
    assert not differences(), (
        "hivemind has changed where swarmd relies on its insides; read the modules named in "
        "swarmd/network/hivemind_dht.py beside it before its new version is pinned: " + "; ".join(differences())
    )


def test_the_node_is_imported_without_torch_and_hivemind_stays_whole():
    program = (
        "import sys, swarmd.network.dht_node\n"
        "heavy = {'torch', 'numpy', 'transformers', 'hivemind', 'hivemind.dht', 'hivemind.utils'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import swarmd.network.hivemind_dht as ours, hivemind\n"
        "from hivemind.dht import DHTNode\n"
        "from hivemind.p2p import P2P\n"
        "assert P2P is ours.P2P and hivemind.DHT and issubclass(hivemind.dht.protocol.DHTProtocol, ours.ServicerBase)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_a_key_lies_where_hivemind_puts_it():
    from hivemind.dht.routing import DHTID

    assert key_id("swarmd/1/abc/7/3") == DHTID.generate(source="swarmd/1/abc/7/3")


def test_stock_nodes_read_our_dictionaries_and_we_read_theirs():
    from hivemind.dht.storage import DictionaryDHTValue
    from hivemind.utils import MSGPackSerializer

    until = time.time() + 500
    items = [(peer(number), wrap_value(b"x" * number), until + number) for number in range(300)]
    theirs = MSGPackSerializer.loads(encode_dictionary(items))
    assert isinstance(theirs, DictionaryDHTValue) and theirs.latest_expiration_time == until + 299
    assert [(subkey, *item) for subkey, item in theirs.items()] == items
    assert list(decode_dictionary(MSGPackSerializer.dumps(theirs))) == items
    assert MSGPackSerializer.loads(encode_subkey(peer(1))) == decode_subkey(encode_subkey(peer(1))) == peer(1)
    assert MSGPackSerializer.loads(wrap_value(b"abc")) == unwrap_value(wrap_value(b"abc")) == b"abc"


@pytest.mark.parametrize(
    "tag",
    [
        b"",
        b"\xc0",
        b"\x05",
        b"\xa0",
        msgpack.packb("x" * 50),
        msgpack.packb(peer(1))[:-1],
        msgpack.packb(peer(1)) + b"x",
        msgpack.packb(peer(1).encode()),
        msgpack.packb(PeerID(b"\x12\x20" + bytes(31)).to_base58()),
        msgpack.packb("Ж" * 23),
        msgpack.packb(peer(1)[:-1] + "0"),
        b"\xda" + msgpack.packb("x" * 70_000),
    ],
)
def test_a_subkey_is_a_peer_id_or_nothing(tag: bytes):
    assert decode_subkey(tag) is None


def test_ids_of_rsa_and_of_ed25519_keys_are_peer_ids():
    assert is_peer_id("QmcpQwkFp95NooU6EK7okhu7SquQ7TfzgWaNEbfJJ5tioc")
    assert is_peer_id("12D3KooWSrfCH2jpCcoLiesDaTyEjafG2LJfsYPtWNwVmvH9Lh8J")


def test_bad_items_of_a_dictionary_are_left_out_and_the_rest_is_read():
    nested: object = 1
    for _ in range(400):
        nested = msgpack.ExtType(0x40, msgpack.packb([nested]))
    good = [[peer(1), b"\xc4\x01x", 5.0], [peer(2), b"\xc4\x01y", 6]]
    bad = [
        7, "x", [], [1, 2], [peer(3), b"x"], [peer(3), "text", 1.0], [nested, b"x", 1.0], [peer(4), nested, 1.0],
        [peer(4), b"x", nested], [[[[]]], {"a": {}}, None], {"k": [1] * 50}, nested, [peer(5), b"x", "soon"],
    ]  # fmt: skip
    mixed = [good[0], *bad, [msgpack.Timestamp(1), b"x", 1.0], good[1]]
    raw = msgpack.packb(msgpack.ExtType(0x50, msgpack.packb([float("inf"), 1.0, mixed])))
    assert list(decode_dictionary(raw)) == [(peer(1), b"\xc4\x01x", 5.0), (peer(2), b"\xc4\x01y", 6.0)]
    not_utf8 = b"\x93\x00\x00\x92\x93\xa1\xff\xc4\x00\x01" + msgpack.packb(good[0])
    assert list(decode_dictionary(msgpack.packb(msgpack.ExtType(0x50, not_utf8))))[-1] == (peer(1), b"\xc4\x01x", 5.0)
    # Bytes that end the framing end the reading: what stood before them is kept.
    broken = msgpack.packb(msgpack.ExtType(0x50, b"\x93\x00\x00\x93" + msgpack.packb(good[0]) + b"\xc1\xc1"))
    assert list(decode_dictionary(broken)) == [(peer(1), b"\xc4\x01x", 5.0)]
    for count in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"):
        assert list(decode_dictionary(msgpack.packb(msgpack.ExtType(0x50, b"\x93\x00\x00" + count)))) == []
    deep = b"\x91" * 100_000
    assert list(decode_dictionary(msgpack.packb(msgpack.ExtType(0x50, b"\x93\x00\x00\x91" + deep)))) == []


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x93\x00\x00\x94", b"\x93\x00\x00\x91\x93\xa1a"]))
def test_no_bytes_make_the_serializer_raise(tail: bytes, head: bytes):
    list(decode_dictionary(tail))
    list(decode_dictionary(msgpack.packb(msgpack.ExtType(0x50, head + tail))))
    assert decode_subkey(tail) is None
    value = unwrap_value(tail)
    assert value is None or tail.endswith(value)


KEY = 5


def store(genuine=None, **limits: float) -> RecordStore:
    made = RecordStore(RecordLimits(**limits), genuine)
    made.allow({KEY: "five"})
    return made


def put(to: RecordStore, subkey: str, sender: str, value: bytes = b"x", expires_in: float = 600.0) -> bool:
    return to.put(KEY, subkey, wrap_value(value), time.time() + expires_in, sender)


@pytest.mark.parametrize("expires_in", [float("inf"), float("-inf"), float("nan"), -1.0, 0.0, 901.0, 1e300])
def test_only_finite_near_expirations_are_kept(expires_in: float):
    assert not put(store(), peer(1), peer(1), expires_in=expires_in)


def test_only_bin_values_of_a_size_under_allowed_keys_are_kept():
    kept = store()
    assert put(kept, peer(1), peer(1), b"x" * 65_536) and not put(kept, peer(1), peer(1), b"x" * 65_537)
    for raw in (b"", b"\xc1", b"\xa1x", b"\xc4\x05x", b"\xc4\x01xx", b"\xc0", b"\x81\xa1a\x01"):
        assert not kept.put(KEY, peer(2), raw, time.time() + 60, peer(2))
    assert not kept.put(6, peer(2), b"\xc4\x01x", time.time() + 60, peer(2))
    kept.allow({6: "six"})
    assert not kept.get(KEY) and kept.size == 0
    assert kept.put(6, peer(2), b"\xc4\x01x", time.time() + 60, peer(2))


def test_who_brought_its_own_record_is_not_displaced_by_others():
    kept = store()
    assert put(kept, peer(1), peer(1), b"honest", 500)
    assert not put(kept, peer(1), peer(9), b"forged", 800)
    assert put(kept, peer(1), peer(1), b"newer", 600)
    assert kept.get(KEY)[peer(1)].value == wrap_value(b"newer")
    assert put(kept, peer(2), peer(9), b"forged", 800) and put(kept, peer(2), peer(2), b"honest", 300)
    assert kept.get(KEY)[peer(2)].value == wrap_value(b"honest")
    # A copy came first, then the peer itself with the same record: from then on the forged one is too late.
    until = time.time() + 300
    for sender in (peer(8), peer(3)):
        assert kept.put(KEY, peer(3), wrap_value(b"honest"), until, sender)
    assert not put(kept, peer(3), peer(9), b"forged", 800)
    assert kept.size == sum(record.cost(subkey) for subkey, record in kept.get(KEY).items())


def test_a_signed_record_is_not_displaced_by_an_unsigned_one():
    kept = store(lambda key, subkey, value, expires: key == "five" and value == b"signed")
    assert put(kept, peer(1), peer(8), b"signed", 300)
    assert not put(kept, peer(1), peer(1), b"unsigned", 800)
    assert put(kept, peer(2), peer(2), b"unsigned", 800) and put(kept, peer(2), peer(8), b"signed", 300)


def test_a_signature_is_checked_once_for_a_record_and_for_few_rivals_of_one_sender():
    asked = []

    def genuine(key: str, subkey: str, value: bytes, expires: float) -> bool:
        asked.append(value)
        return value == b"signed"

    kept = store(genuine)
    assert put(kept, peer(1), peer(1), b"signed", 300) and not asked
    assert not any(put(kept, peer(1), peer(9), b"rival %d" % number, 800) for number in range(4000))
    assert asked.count(b"signed") == 1 and len(asked) == 9
    # Another one is not shut out by it, nor is one whose record is better.
    assert not put(kept, peer(1), peer(8), b"another", 800) and asked[-1] == b"another"
    assert put(kept, peer(2), peer(7), b"junk", 800) and put(kept, peer(2), peer(9), b"signed", 300)
    assert kept.get(KEY)[peer(2)].value == wrap_value(b"signed")
    # Nor may a peer have its own looked at without end.
    asked.clear()
    for number in range(100):
        put(kept, peer(3), peer(3), b"own %d" % number, 300 + number)
    assert len(asked) <= 33


def test_a_peer_that_publishes_anew_in_the_same_round_replaces_its_own_record():
    kept = store(lambda key, subkey, value, expires: value.startswith(b"signed"))
    until = time.time() + 300

    def again(value: bytes, sender: str) -> bool:
        return kept.put(KEY, peer(1), wrap_value(value), until, sender)

    assert again(b"signed first", peer(1)) and again(b"signed second", peer(1))
    assert kept.get(KEY)[peer(1)].value == wrap_value(b"signed second")
    # A copy of the older one that another node hands on is late; what is not signed proves nothing.
    assert not again(b"signed first", peer(2)) and not again(b"another", peer(1))
    assert kept.get(KEY)[peer(1)].value == wrap_value(b"signed second")


@pytest.mark.parametrize("name", [*NAMES, "private"])
def test_who_signed_is_told_by_the_envelope_alone_and_agrees_with_what_is_read(name: str):
    swarm = private() if name == "private" else dialect(name)
    value, subkey = written(swarm), identity().peer_id
    key = swarm.key_for(ROUND, subkey)
    assert swarm.is_signed(value, key, subkey, EXPIRES) and read(value, swarm).signed
    assert not swarm.is_signed(value, key, STRANGER, EXPIRES)
    assert not swarm.is_signed(value, key + "0", subkey, EXPIRES)
    assert not swarm.is_signed(value, key, subkey, EXPIRES + 1)

    def reads_as_signed(value: bytes) -> bool:
        try:
            return read(value, swarm).signed
        except Refused:
            return False

    for place in {*range(0, len(value), 37), len(value) - 1}:
        changed = value[:place] + bytes([value[place] ^ 128]) + value[place + 1 :]
        assert not swarm.is_signed(changed, key, subkey, EXPIRES) and not reads_as_signed(changed), place
    for junk in (b"", b"x", value[:-1], value + b"x", value[:20], b"\xc1swarmd\0\1", b"\xc1swarmd\1", b"\xff" * 65536):
        assert not swarm.is_signed(junk, key, subkey, EXPIRES)


def test_in_a_swarm_of_swarmd_an_unsigned_value_is_told_unread_and_a_bomb_is_not_unpacked():
    own, subkey = dialect("swarmd"), identity().peer_id
    key = own.key_for(ROUND, subkey)
    assert not own.is_signed(written(dialect("genrl-0.3")), key, subkey, EXPIRES)
    packed = own_record(None, packing=bomb(2**24))
    assert own.is_signed(packed, key, subkey, EXPIRES), "that it is refused is for those who read it"
    with pytest.raises(Refused):
        read(packed, own)


class Newcomer:
    """Stands for the wire: a node that was just met, and what it is given."""

    def __init__(self, contacts: Contacts, honest: bool = True) -> None:
        self.node_id, self.peer_id, self.contacts, self.honest = 2**150, peer(1), contacts, honest
        self.given: list[tuple[int, list[str], int]] = []

    async def is_node(self, peer_id: str, node_id: int) -> bool:
        return self.honest

    async def store(
        self, peer_id: str, key: int, records: dict[str, tuple[bytes, float]], timeout: float
    ) -> list[bool]:
        self.given.append((key, list(records), sum(len(value) for value, _ in records.values())))
        return [True] * len(records)


def test_what_newcomers_are_given_is_bounded_for_all_of_them_together_and_own_records_come_first():
    async def run() -> None:
        kept = RecordStore(RecordLimits())
        kept.allow({number: str(number) for number in range(8)})
        for number in range(7 * 50):
            name = peer(100 + number)
            assert kept.put(number % 7, name, wrap_value(b"x" * 60_000), time.time() + 600, name)
        assert kept.put(3, peer(1), wrap_value(b"mine"), time.time() + 600, peer(1))
        calls = Newcomer(Contacts(0))
        calls.node_id = None  # nobody is nearer: it hands on all that it has
        handover = Handover(calls, kept)
        for number in range(10):
            handover.to_new_node(2**100 + number, peer(900 + number))
            await asyncio.gather(*handover._tasks)
        assert sum(size for _, _, size in calls.given) < 4 * 2**20
        assert calls.given[0][0] == 3 and calls.given[0][1][0] == peer(1)
        # Each of them has got what only this node would give.
        assert sum(peer(1) in names for _, names, _ in calls.given) == 10

        liar = Newcomer(Contacts(0), honest=False)
        handover = Handover(liar, kept)
        handover.to_new_node(5, peer(5))
        await asyncio.gather(*handover._tasks)
        assert liar.given == []

    asyncio.run(run())


def test_one_sender_gets_half_a_key_and_every_peer_a_place_for_its_own():
    kept = store(bytes_per_key=100_000, records_per_key=20)
    taken = sum(put(kept, peer(number), peer(999), b"x" * 10_000) for number in range(20))
    assert taken == 4
    assert sum(put(kept, peer(100 + n), peer(1000 + n), b"y" * 10_000) for n in range(20)) == 5
    for number in range(8):
        assert put(kept, peer(200 + number), peer(200 + number), b"z" * 10_000)
    assert kept.size <= 100_000
    assert sum(record.first_hand for record in kept.get(KEY).values()) == 8
    # Among those that brought their own, the largest makes room for smaller ones.
    before = kept.get(KEY)
    assert not put(kept, peer(300), peer(300), b"w" * 30_000) and kept.get(KEY) == before
    assert put(kept, peer(300), peer(300), b"w" * 15_000)
    for number in range(30):
        put(kept, peer(400 + number), peer(400 + number), b"v")
    assert len(kept.get(KEY)) == 20 and peer(300) not in kept.get(KEY)


def test_all_keys_together_have_a_limit_and_expired_records_give_their_room_back():
    kept = RecordStore(RecordLimits(bytes_total=100_000))
    kept.allow({number: str(number) for number in range(50)})
    for number in range(50):
        kept.put(number, peer(number), wrap_value(b"x" * 5_000), time.time() + 0.2, peer(99))
    assert 90_000 < kept.size <= 100_000
    assert kept.put(3, peer(77), wrap_value(b"y" * 5_000), time.time() + 600, peer(77))
    time.sleep(0.25)
    kept.sweep()
    assert kept.size == kept.get(3)[peer(77)].cost(peer(77))


def test_random_stores_never_break_the_limits_or_the_accounts():
    chance = random.Random(7)
    kept = store(bytes_per_key=30_000, records_per_key=25)
    for _ in range(3000):
        subkey, sender = peer(chance.randrange(60)), peer(chance.randrange(60))
        put(kept, subkey, sender, b"x" * chance.randrange(4000), chance.uniform(1, 800))
        assert kept.size <= 30_000 and len(kept.get(KEY)) <= 25
    assert kept.size == sum(record.cost(subkey) for subkey, record in kept.get(KEY).items())


class ManyLiars:
    """Stands for the wire: a quarter of the known nodes name, at once, twenty that do not exist and are nearer."""

    def __init__(self) -> None:
        self.node_id, self.contacts = 1, Contacts(own_node_id=1)
        self.asked: dict[int, set[str]] = {}
        for number in range(24):
            self.contacts.met(key_id(f"node {number}"), peer(number))
        self.invented = 100

    async def find(self, peer_id: str, keys: list[int], timeout: float) -> dict[int, Found] | None:
        for key in keys:
            self.asked.setdefault(key, set()).add(peer_id)
        number = next((n for n in range(24) if peer(n) == peer_id), None)
        await asyncio.sleep(0.001 if number is None or number % 4 == 0 else 0.02)
        if number is None:
            return None
        found = {key: Found() for key in keys}
        for key in keys if number % 4 == 0 else []:
            for _ in range(20):
                self.invented += 1
                found[key].neighbours.append((key ^ self.invented, peer(self.invented)))
        return found


def test_invented_nodes_do_not_push_out_those_that_have_answered_before():
    calls = ManyLiars()
    keys = {key_id(str(number)): str(number) for number in range(24)}
    assert asyncio.run(Search(calls, keys).run(time.monotonic() + 60))
    for key in keys:
        assert {peer_id for _, peer_id in calls.contacts.nearest(key, 8)} <= calls.asked[key]
        assert len(calls.asked[key]) <= MOST_ASKED


def test_a_search_ends_at_its_deadline():
    begin = time.monotonic()
    keys = {key_id(str(number)): str(number) for number in range(24)}
    assert not asyncio.run(Search(ManyLiars(), keys).run(begin + 0.1))
    assert time.monotonic() - begin < 1


def test_remembered_peers_survive_and_are_bounded(tmp_path: Path):
    peers = RememberedPeers(tmp_path)
    for number in range(100):
        peers.answered(peer(number), [f"/ip4/192.0.2.1/tcp/{1000 + number + port}" for port in range(9)])
    peers.answered(peer(500), ["/unix/tmp/socket", "nonsense"])
    peers.save()
    again = list(RememberedPeers(tmp_path))
    expected = {peer(number) for number in (*range(32), *range(68, 100))}
    assert len(again) == 64 and {p.peer_id for p in again} == expected
    assert all(len(p.addresses) == 4 for p in again)
    assert [p.name for p in tmp_path.iterdir()] == [FILE]
    assert os.stat(tmp_path / FILE).st_mode & 0o077 == 0


def test_a_file_of_peers_that_was_cut_short_by_a_kill_is_taken_away(tmp_path: Path):
    peers = RememberedPeers(tmp_path)
    peers.answered(peer(1), ["/ip4/192.0.2.1/tcp/1"])
    peers.save()
    (tmp_path / ".peers.json.new").write_text('{"version": 1, "pe')
    assert [p.peer_id for p in RememberedPeers(tmp_path)] == [peer(1)]
    assert [p.name for p in tmp_path.iterdir()] == [FILE]


def test_new_names_of_one_owner_push_out_neither_the_longest_known_peers_nor_more_than_a_network_holds(tmp_path: Path):
    long_ago = time.time() - 10_000
    known = [
        {"peer_id": peer(n), "addresses": [f"/ip4/8.8.{n}.1/tcp/1"], "first_good": long_ago - n, "last_good": long_ago}
        for n in range(1, 65)
    ]
    (tmp_path / FILE).write_text(json.dumps({"peers": known}))
    peers = RememberedPeers(tmp_path)
    for number in range(300):
        peers.answered(peer(1000 + number), [f"/ip4/9.9.9.{number % 200}/tcp/{1 + number}"])
    assert len(peers) == 64 and {peer(n) for n in range(5, 65)} <= {p.peer_id for p in peers}
    # One that has many networks, and answers all the time, gets the other half.
    for _ in range(2):
        for number in range(200):
            peers.answered(peer(2000 + number), [f"/ip6/2600:{number:x}::1/tcp/1"])
    assert len(peers) == 64 and {p.peer_id for p in peers} >= {peer(n) for n in range(33, 65)}
    peers.save()
    again = {p.peer_id: p for p in RememberedPeers(tmp_path)}
    assert again[peer(64)].first_good == round(long_ago - 64) and len(again) == 64
    # Nodes of one machine or of one house are no stranger's.
    at_home = RememberedPeers(tmp_path / "another")
    for number in range(20):
        at_home.answered(peer(number), [f"/ip4/192.168.1.{number}/tcp/1"])
    assert len(at_home) == 20


def test_what_a_killed_process_left_among_the_sockets_is_taken_away_and_nothing_of_one_that_lives():
    name = f"12D3Koo{os.getpid()}"
    program = (
        "import sys, time\n"
        "from swarmd.network.socket_directory import SocketDirectory\n"
        f"made = SocketDirectory({name!r})\n"
        "(made.path / 'p2pd-1.sock').touch()\n"
        "print(made.path, flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        first = Path(process.stdout.readline().strip())
        assert first.stat().st_mode & 0o777 == 0o700
        beside = SocketDirectory(name)
        assert beside.path != first and (first / "p2pd-1.sock").exists()
        beside.close()
    finally:
        process.kill()
        process.communicate()
    again = SocketDirectory(name)
    assert again.path == first and list(first.iterdir()) == []
    again.close()
    assert not first.exists() and not beside.path.exists()


def test_a_directory_of_sockets_that_others_may_enter_or_made_a_link_of_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
):
    with tempfile.TemporaryDirectory() as name:
        monkeypatch.setattr("tempfile.tempdir", name)
        probe = SocketDirectory("a")
        probe.close()
        assert probe.path.parent == Path(name)
        probe.path.mkdir()
        probe.path.chmod(0o777)
        assert SocketDirectory("a").path != probe.path
        probe.path.rmdir()
        theirs = Path(name) / "theirs"
        theirs.mkdir(mode=0o700)
        (theirs / "file").touch()
        probe.path.symlink_to(theirs)
        assert SocketDirectory("a").path != probe.path and (theirs / "file").exists()


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[" * 50_000, b"null", b"[]", b'{"peers": 5}', b'{"peers": {"a": 1}}', b"\xed\xa0\x80", b" " * 10**6],
)
def test_a_poisoned_file_of_peers_is_as_good_as_none(tmp_path: Path, text: bytes):
    (tmp_path / FILE).write_bytes(text)
    assert list(RememberedPeers(tmp_path)) == []


def test_a_bad_entry_spoils_no_other(tmp_path: Path):
    good = {"peer_id": peer(1), "addresses": ["/ip4/192.0.2.1/tcp/1"], "last_good": 5}
    future = {**good, "peer_id": peer(2), "last_good": 1e18}
    bad = [
        None, 5, {}, {**good, "peer_id": "x"}, {**good, "peer_id": []}, {**good, "addresses": "x"},
        {**good, "addresses": [5, None, "/ip4/300.0.0.1/tcp/1", "/ip4/1.2.3.4/udp/1/quic", "/ip4/1.2.3.4/tcp/x"]},
    ]  # fmt: skip
    (tmp_path / FILE).write_text(json.dumps({"peers": [*bad, good, future]}))
    assert [(p.peer_id, p.last_good) for p in RememberedPeers(tmp_path)] == [(peer(1), 5.0), (peer(2), 0.0)]


def test_an_address_needs_a_host_a_tcp_port_and_a_peer_id():
    assert parse_address(f"/ip4/192.0.2.1/tcp/38751/p2p/{peer(1)}") == (peer(1), "/ip4/192.0.2.1/tcp/38751")
    assert parse_address(f"/dns4/node.example/tcp/38751/p2p/{peer(1)}") == (peer(1), "/dns4/node.example/tcp/38751")
    relayed = f"/ip4/192.0.2.1/tcp/1/p2p/{peer(1)}/p2p-circuit"
    assert parse_address(f"{relayed}/p2p/{peer(2)}") == (peer(2), relayed)
    for text in ("", "/ip4/192.0.2.1/tcp/1", f"/p2p/{peer(1)}", f"/ip4/1.2.3.4/udp/1/quic/p2p/{peer(1)}", "x" * 9999):
        assert parse_address(text) is None


def test_p2pd_is_told_to_use_tcp_alone_and_nothing_of_the_router():
    control = Multiaddr("/unix/run/p2pd.sock")
    listen = ("/ip4/0.0.0.0/tcp/38751",)
    given = arguments(DaemonSettings(Path("/k"), Path("/s"), listen, ("/ip4/192.0.2.1/tcp/1",)), control)
    assert {"-natPortMap=0", "-autonat=0", "-relay=0", "-autoRelay=0", "-relayService=0", "-b=0"} <= set(given)
    assert "-hostAddrs=/ip4/0.0.0.0/tcp/38751" in given and "-announceAddrs=/ip4/192.0.2.1/tcp/1" in given
    assert not [argument for argument in given if "bootstrapPeers" in argument or "udp" in argument]
    only_calls = arguments(DaemonSettings(Path("/k"), Path("/s"), relay=True, relays=("/ip4/1.2.3.4/tcp/1",)), control)
    assert {"-noListenAddrs=1", "-relay=1", "-autoRelay=1", "-trustedRelays=/ip4/1.2.3.4/tcp/1"} <= set(only_calls)
    # The relay that -relay starts is the only one, and p2pd does not start without the name of one to look for.
    assert {"-relayService=0", "-relayDiscovery=0"} <= set(only_calls)
    assert "-autoRelay=0" in arguments(DaemonSettings(Path("/k"), Path("/s"), relay=True), control)


def test_p2pd_looks_for_who_can_tell_whether_it_can_be_called_only_where_a_relay_may_be_needed():
    def given(**relaying: bool) -> list[str]:
        return arguments(DaemonSettings(Path("/k"), Path("/s"), **relaying), Multiaddr("/unix/run/p2pd.sock"))

    assert "-forceReachabilityPublic=1" in given()
    assert not [argument for argument in given(relay=True) if "forceReachability" in argument]


def test_a_relays_id_in_an_address_is_told_to_p2pd_as_a_multihash():
    """As github.com/multiformats/multiaddr has it; hivemind's bytes are those of a CID, which p2pd refuses."""
    of_rsa, of_ed25519 = peer(1), "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
    for relay in (of_rsa, of_ed25519):
        raw = PeerID.from_base58(relay).to_bytes()
        wanted = bytes.fromhex("04c0000201" "060001" "a503") + bytes([len(raw)]) + raw + bytes.fromhex("a202")
        assert dialable(f"/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit").to_bytes() == wanted
    assert dialable("/ip4/192.0.2.1/tcp/1").to_bytes() == bytes.fromhex("04c0000201" "060001")


def test_an_answer_to_a_call_that_was_given_up_is_passed_over():
    async def run() -> None:
        calls, given_up, waiting = PendingCalls(), uuid4(), uuid4()
        calls[given_up], calls[waiting] = asyncio.Future(), asyncio.Future()
        calls[given_up].cancel()
        # What hivemind asks before it sets an answer: InvalidStateError would end the task that reads all of them.
        assert given_up not in calls and waiting in calls
        calls.pop(given_up)
        assert len(calls) == 1

    asyncio.run(run())
