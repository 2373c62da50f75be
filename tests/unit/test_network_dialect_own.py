"""swarmd's own records: signed for one place, bounded, and sealed in a private swarm."""

from __future__ import annotations

import dataclasses
import random
import string
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.network.dialects import dialect_for
from swarmd.network.dialects.own import MAGIC
from swarmd.network.records import ClaimedGroup, Record
from swarmd.network.refusals import Reason, Refused
from swarmd.network.sealing import Seal
from swarmd.network.signing import milliseconds
from tests.unit.dialect_records import (
    EXPIRES,
    ROUND,
    STRANGER,
    SWARM,
    bomb,
    deflated,
    dialect,
    group,
    groups,
    identity,
    own_body,
    own_group,
    own_record,
    private,
    read,
    written,
)

OWN = dialect("swarmd")


def reason_of(value: bytes, read_by: Any = OWN, **other: Any) -> Reason:
    with pytest.raises(Refused) as refused:
        read(value, read_by, **other)
    return refused.value.reason


@pytest.mark.parametrize("swarm", [OWN, private()], ids=["open", "private"])
def test_what_is_published_is_read(swarm: Any) -> None:
    value = written(swarm)
    claimed = tuple(
        ClaimedGroup(one.completions, one.task.provenance, one.slot, None, one.mean_logprobs) for one in groups(3)
    )
    assert read(value, swarm) == Record(
        identity().peer_id, ROUND, "swarmd", True, EXPIRES, "qwen2", claimed, len(value)
    )


def test_a_record_names_its_tasks_and_does_not_hold_them() -> None:
    value = written(OWN, [group(1, completions=8, length=10)])
    assert len(value) < 256 + 299 + 8 * 10 + 100
    assert group(1).task.question.encode() not in value


def test_keys_are_spread_over_the_shards_and_tell_the_round() -> None:
    keys = OWN.keys(ROUND)
    assert keys == [f"swarmd/1/{SWARM}/7/{shard}" for shard in range(32)]
    peers = [f"peer{number}" for number in range(1000)]
    assert {OWN.key_for(ROUND, peer) for peer in peers} == set(keys)
    assert OWN.key_for(ROUND, "peer1").split("/")[-1] != OWN.key_for(ROUND + 1, "peer1").split("/")[-1]


def test_keys_of_a_private_swarm_tell_nothing_of_it() -> None:
    keys, others = private().keys(ROUND), private("another secret").keys(ROUND)
    assert not any(SWARM in key for key in keys)
    assert not set(keys) & set(others)
    assert keys == private().keys(ROUND)


@pytest.mark.parametrize("swarm", [dialect("swarmd", shards=1), private()], ids=["open", "private"])
def test_a_record_counts_only_in_its_own_place(swarm: Any) -> None:
    value = written(swarm)
    other_round = {Reason.BAD_SIGNATURE, Reason.OTHER_SECRET}
    assert reason_of(value, swarm, round=ROUND + 1) in other_round
    assert reason_of(value, swarm, subkey=identity(1).peer_id) in {Reason.OTHER_PEER, Reason.OTHER_SECRET}
    assert reason_of(value, swarm, expires=EXPIRES + 1) == Reason.BAD_SIGNATURE
    assert reason_of(value, swarm, key="swarmd/1/other/7/0") == Reason.WRONG_KEY


def test_a_record_in_another_shard_than_its_peers_is_refused() -> None:
    own = OWN.key_for(ROUND, identity().peer_id)
    other = next(key for key in OWN.keys(ROUND) if key != own)
    assert reason_of(written(OWN), key=other) == Reason.WRONG_KEY


@pytest.mark.parametrize("subkey", ["", "Qm", "Qm" + "a" * 70, "Qm" + "0" * 44, "Qm" + "a" * 43 + "\n"])
def test_a_subkey_is_a_peer_id(subkey: str) -> None:
    assert reason_of(written(OWN), subkey=subkey) == Reason.WRONG_KEY


@pytest.mark.parametrize("expires", [float("nan"), float("inf"), -1.0, 1e300])
def test_an_expiration_is_a_time(expires: float) -> None:
    assert reason_of(written(OWN), expires=expires) == Reason.WRONG_SHAPE


def test_only_who_has_the_secret_reads_and_writes() -> None:
    swarm = private()
    for value in (written(private("another secret")), written(OWN), written(dialect("genrl-0.3")), b"", MAGIC + b"\1"):
        assert reason_of(value, swarm) == Reason.OTHER_SECRET
    value = written(swarm, [group(1, length=200)])
    assert identity().public_key not in value
    assert b"<answer>" not in value


def test_a_secret_does_not_fit_a_legacy_swarm() -> None:
    with pytest.raises(ValueError, match="cannot keep a swarm private"):
        dialect_for("genrl-0.3", SWARM, secret="secret")
    with pytest.raises(ValueError, match="'genrl-2' is unknown"):
        dialect_for("genrl-2", SWARM)


def test_a_newer_version_is_told_from_a_damaged_record() -> None:
    value = written(OWN)
    assert reason_of(MAGIC + b"\2" + value[8:]) == Reason.OTHER_VERSION
    assert reason_of(MAGIC + b"\2") == Reason.OTHER_VERSION
    assert reason_of(MAGIC + b"\0" + value[8:]) == Reason.NOT_DECODABLE
    assert reason_of(MAGIC) == Reason.NOT_DECODABLE


def test_what_newer_nodes_add_is_passed_over() -> None:
    body = own_body(groups=[[*own_group(), "more"]], more={"fields": [1]})
    (claimed,) = read(own_record(body, more=1), OWN).groups
    assert claimed.completions == ("a", "b")
    assert claimed.mean_logprobs == (-1 / 1024, 0.0)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (own_body(round=ROUND + 1), Reason.OTHER_ROUND),
        (own_body(expires=milliseconds(EXPIRES) + 1), Reason.BAD_SIGNATURE),
        (own_body(model="a" * 65), Reason.WRONG_SHAPE),
        (own_body(model="\x1b[2J"), Reason.WRONG_SHAPE),
        (own_body(groups={}), Reason.WRONG_SHAPE),
        (own_body(groups=[own_group()] * 65), Reason.TOO_MANY_GROUPS),
        (own_body(round=True), Reason.WRONG_SHAPE),
        ([], Reason.WRONG_SHAPE),
        ({}, Reason.WRONG_SHAPE),
        (own_body(more=float("nan")), Reason.NOT_DECODABLE),
        (own_body(more=[None] * 4000), Reason.NOT_DECODABLE),
    ],
)
def test_a_signed_record_of_another_shape_is_refused(body: Any, reason: Reason) -> None:
    assert reason_of(own_record(body)) == reason


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"slot": -1}, Reason.WRONG_SHAPE),
        ({"slot": 2**18}, Reason.WRONG_SHAPE),
        ({"slot": True}, Reason.WRONG_SHAPE),
        ({"seed": 2**31}, Reason.WRONG_SHAPE),
        ({"seed": 1.0}, Reason.WRONG_SHAPE),
        ({"index": 0}, Reason.WRONG_SHAPE),
        ({"dataset": ""}, Reason.WRONG_SHAPE),
        ({"dataset": b"gcd"}, Reason.WRONG_SHAPE),
        ({"config": "a" * 129}, Reason.WRONG_SHAPE),
        ({"environment": None}, Reason.WRONG_SHAPE),
        ({"completions": []}, Reason.WRONG_SHAPE),
        ({"completions": "ab"}, Reason.WRONG_SHAPE),
        ({"completions": ["a", 1]}, Reason.WRONG_SHAPE),
        ({"completions": ["a"] * 65}, Reason.TOO_MANY_COMPLETIONS),
        ({"completions": ["a", "b" * 8193]}, Reason.COMPLETION_TOO_LONG),
        ({"logprobs": b"\xff\xff"}, Reason.WRONG_SHAPE),
        ({"logprobs": b"\0\1\0\0"}, Reason.WRONG_SHAPE),
        ({"logprobs": [0, 0]}, Reason.WRONG_SHAPE),
    ],
    ids=str,
)
def test_a_signed_group_of_another_shape_is_refused(other: dict[str, Any], reason: Reason) -> None:
    assert reason_of(own_record(own_body(groups=[own_group(**other)]))) == reason


@pytest.mark.parametrize("group", [None, [], {}, own_group()[:7], "a" * 8])
def test_a_group_is_a_list_of_eight(group: Any) -> None:
    assert reason_of(own_record(own_body(groups=[group]))) == Reason.WRONG_SHAPE


@pytest.mark.parametrize(
    ("packing", "reason"),
    [
        (bomb(60_000_000), Reason.TOO_LARGE),
        (bomb(1000)[:-2], Reason.NOT_DECODABLE),
        (deflated(msgpack.packb(own_body())) + b"more", Reason.NOT_DECODABLE),
        (b"\1damaged", Reason.NOT_DECODABLE),
        (b"\2" + msgpack.packb(own_body()), Reason.NOT_DECODABLE),
        (b"\0" + msgpack.packb(own_body()) + b"\0", Reason.NOT_DECODABLE),
        (b"\0", Reason.NOT_DECODABLE),
        (b"", Reason.NOT_DECODABLE),
    ],
    ids=lambda value: value if isinstance(value, Reason) else f"{len(value)} bytes",
)
def test_a_signed_body_packed_in_another_way_is_refused(packing: bytes, reason: Reason) -> None:
    assert reason_of(own_record(None, packing)) == reason


@pytest.mark.parametrize("envelope", [{"key": b""}, {"key": b"a" * 299}, {"signature": b""}, {"signature": b"a" * 256}])
def test_a_signature_that_is_none_is_refused(envelope: dict[str, bytes]) -> None:
    assert reason_of(own_record(own_body(), **envelope)) in {Reason.BAD_SIGNATURE, Reason.OTHER_PEER}


def test_nobody_signs_for_another() -> None:
    place = {"subkey": STRANGER, "key": OWN.key_for(ROUND, STRANGER)}
    assert reason_of(written(OWN), **place) == Reason.OTHER_PEER


@pytest.mark.parametrize("swarm", [OWN, private()], ids=["open", "private"])
@settings(max_examples=100, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_bit_of_a_record_can_be_changed(swarm: Any, place: float, bit: int) -> None:
    value = bytearray(written(swarm, [group(1)]))
    value[int(place * len(value))] ^= 1 << bit
    with pytest.raises(Refused):
        read(bytes(value), swarm)


@pytest.mark.parametrize("name", ["swarmd", "genrl-0.3", "genrl-0.1"])
def test_what_does_not_fit_is_left_out_whole(name: str) -> None:
    swarm = dialect(name, most_bytes=6000)
    many = [group(number, completions=2, note=f"{number:02}" * 300) for number in range(12)]
    noise = random.Random(0).choices(string.printable, k=8000)  # which does not deflate
    large = dataclasses.replace(many[0], completions=("".join(noise),), mean_logprobs=None)
    encoded = swarm.encode([large, *many], ROUND, identity(), EXPIRES)
    assert len(encoded.value) <= 6000
    assert encoded.left_out >= 1
    assert encoded.kept + encoded.left_out == 13
    assert encoded.kept >= 3
    kept = [one.completions for one in read(encoded.value, swarm).groups]
    assert kept == [one.completions for one in many[: encoded.kept]]


def test_a_record_that_is_full_has_no_gaps() -> None:
    """A small group behind the first that finds no room would be one more draw that is shown without those before."""
    swarm = dialect("swarmd", most_bytes=3000)
    noise = random.Random(0).choices(string.printable, k=3000)  # which does not deflate
    middle = dataclasses.replace(group(0), completions=("".join(noise[:1400]), "a"), mean_logprobs=None)
    groups = [middle, dataclasses.replace(middle, completions=("".join(noise[1400:]), "a")), group(2, completions=2)]
    encoded = swarm.encode(groups, ROUND, identity(), EXPIRES)
    assert (encoded.kept, encoded.left_out) == (1, 2)
    assert [one.completions for one in read(encoded.value, swarm).groups] == [middle.completions]


def test_a_group_that_no_record_could_hold_does_not_keep_those_behind_it_out() -> None:
    swarm = dialect("swarmd", most_bytes=3000)
    noise = random.Random(0).choices(string.printable, k=4000)
    large = dataclasses.replace(group(1), completions=("".join(noise), "a"), mean_logprobs=None)
    encoded = swarm.encode([group(0), large, group(2)], ROUND, identity(), EXPIRES)
    assert (encoded.kept, encoded.left_out) == (2, 1)


@pytest.mark.parametrize("name", ["swarmd", "genrl-0.3", "genrl-0.1"])
def test_what_others_would_refuse_is_not_sent(name: str) -> None:
    swarm = dialect(name, most_bytes=60_000)
    good = group(1)
    unfit = [("a" * 8193,), (), ("a",) * 65, ("\ud800",)]
    bad = [dataclasses.replace(good, completions=texts, mean_logprobs=None) for texts in unfit]
    encoded = swarm.encode([*bad, good], ROUND, identity(), EXPIRES)
    assert (encoded.kept, encoded.left_out) == (1, 4)
    assert [one.completions for one in read(encoded.value, swarm).groups] == [good.completions]


@pytest.mark.parametrize("name", ["swarmd", "genrl-0.3", "genrl-0.1"])
def test_a_record_holds_at_most_64_groups_and_4000_values(name: str) -> None:
    swarm = dialect(name, most_bytes=60_000)
    short = [group(number, completions=1, length=1) for number in range(70)]
    assert swarm.encode(short, ROUND, identity(), EXPIRES).kept == 64
    wide = [group(number, completions=64, length=1) for number in range(70)]
    encoded = swarm.encode(wide, ROUND, identity(), EXPIRES)
    assert 0 < encoded.kept < 64
    assert len(read(encoded.value, swarm).groups) == encoded.kept


def test_mean_log_probabilities_travel_in_steps() -> None:
    sent = (-0.123456, -100.0, 1e-9, -0.0)
    one = dataclasses.replace(group(1), mean_logprobs=sent)
    (claimed,) = read(written(OWN, [one]), OWN).groups
    assert claimed.mean_logprobs == (round(-0.123456 * 1024) / 1024, -32.0, 0.0, 0.0)
    unsaid = dataclasses.replace(group(1), mean_logprobs=(float("nan"), 0.0, 0.0, 0.0))
    assert read(written(OWN, [unsaid]), OWN).groups[0].mean_logprobs is None


def test_too_little_room_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ValueError, match="do not even hold an empty record"):
        dialect("swarmd", most_bytes=300).encode([], ROUND, identity(), EXPIRES)


def test_no_group_makes_a_record_that_is_not_worth_publishing() -> None:
    encoded = OWN.encode([], ROUND, identity(), EXPIRES)
    assert (encoded.kept, encoded.left_out) == (0, 0)
    assert read(encoded.value, OWN).groups == ()


def test_a_seal_opens_in_its_own_place_only() -> None:
    seal = Seal("secret", SWARM)
    sealed = seal.close(b"content", "key", "subkey", b"header")
    assert seal.open(sealed, "key", "subkey", b"header") == b"content"
    for key, subkey, header in (("keys", "ubkey", b"header"), ("key", "other", b"header"), ("key", "subkey", b"other")):
        with pytest.raises(Refused, match="other-secret"):
            seal.open(sealed, key, subkey, header)
    with pytest.raises(Refused, match="other-secret"):
        Seal("secret", "another swarm").open(sealed, "key", "subkey", b"header")
    assert seal.close(b"content", "key", "subkey", b"header") != sealed
    with pytest.raises(ValueError, match="needs a secret"):
        Seal("", SWARM)
