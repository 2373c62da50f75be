"""The two strict codecs: to the byte what GenRL writes, and nothing read but what it writes."""

from __future__ import annotations

import base64
import contextlib
import json
import struct
from typing import Any

import msgpack
import pytest
from genrl.communication.communication import Payload as GenrlPayload
from genrl.serialization.msgpack_utils import _msgpack_decode, _msgpack_encode
from genrl.state.game_tree import WorldState as GenrlWorldState
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.network import strict_msgpack, strict_tlv
from swarmd.network.genrl_objects import Payload, WorldState
from swarmd.network.refusals import Refused
from swarmd.network.strict_bounds import Bounds
from tests.unit.dialect_records import DATA

BOUNDS = Bounds()
READERS = {"genrl-0.3": strict_msgpack.read_genrl, "genrl-0.1": strict_tlv.read}
WRITERS = {"genrl-0.3": strict_msgpack.write_genrl, "genrl-0.1": strict_tlv.write}


def described(value: Any) -> Any:
    """The object that a description in genrl_01.jsonl stands for: see record_genrl_01.py beside it."""
    if isinstance(value, list):
        return [described(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, parts),) = value.items()
    if kind == "map":
        return {key: described(item) for key, item in parts}
    return {"payload": Payload, "world_state": WorldState}[kind](*map(described, parts))


RECORDED = [json.loads(line) for line in (DATA / "genrl_01.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["title"])
def test_tlv_is_to_the_byte_what_genrl_0_1_wrote(case: dict[str, Any]) -> None:
    recorded = base64.b64decode(case["bytes"])
    assert strict_tlv.write(described(case["value"])) == recorded


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["title"])
def test_tlv_reads_what_genrl_0_1_wrote(case: dict[str, Any]) -> None:
    recorded = base64.b64decode(case["bytes"])
    parsed = strict_tlv.read(recorded + b"behind", BOUNDS)
    assert parsed.end == len(recorded)
    assert repr(parsed.value) == repr(described(case["value"]))  # repr, so that True is not 1


leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=40)
numbers = leaves | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=10).filter(lambda text: text != "__type__")
plain = st.recursive(
    numbers, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
objects = st.builds(Payload, st.builds(WorldState, plain), st.lists(st.text(max_size=9), max_size=3), plain)
records = st.dictionaries(texts, st.lists(objects | plain, max_size=2), max_size=2)


def as_genrl(value: Any) -> Any:
    """The same with GenRL's own classes."""
    if isinstance(value, list):
        return [as_genrl(item) for item in value]
    if isinstance(value, dict):
        return {key: as_genrl(item) for key, item in value.items()}
    if isinstance(value, Payload):
        return GenrlPayload(as_genrl(value.world_state), as_genrl(value.actions), as_genrl(value.metadata))
    if isinstance(value, WorldState):
        return GenrlWorldState(*map(as_genrl, (value.environment_states, value.opponent_states, value.personal_states)))
    return value


@settings(max_examples=50, deadline=None)
@given(records)
def test_msgpack_is_to_the_byte_what_genrl_0_3_writes_and_reads(record: dict[str, Any]) -> None:
    packer = msgpack.Packer(use_bin_type=True, default=_msgpack_encode)
    body = strict_msgpack.write_genrl(record)
    assert body == packer.pack(as_genrl(record))
    unpacker = msgpack.Unpacker(object_hook=_msgpack_decode, raw=False, max_buffer_size=100 * 2**20)
    unpacker.feed(body + b"\xc1 and something")
    assert next(unpacker) == as_genrl(record)


@pytest.mark.parametrize("version", READERS)
@settings(max_examples=50, deadline=None)
@given(record=records)
def test_what_is_written_is_read(version: str, record: dict[str, Any]) -> None:
    body = WRITERS[version](record)
    parsed = READERS[version](body, Bounds(depth=99))
    assert repr(parsed.value) == repr(record)
    assert parsed.end == len(body)


@pytest.mark.parametrize("version", READERS)
@settings(max_examples=50, deadline=None)
@given(record=records, data=st.data())
def test_what_is_cut_off_is_refused(version: str, record: dict[str, Any], data: st.DataObject) -> None:
    body = WRITERS[version](record)
    with pytest.raises(Refused):
        READERS[version](body[: data.draw(st.integers(0, len(body) - 1))], BOUNDS)


@pytest.mark.parametrize("version", READERS)
@settings(max_examples=300, deadline=None)
@given(noise=st.binary(max_size=200))
def test_a_reader_raises_nothing_but_refused(version: str, noise: bytes) -> None:
    start = b"\0\0\0\0\0\0\0\2" if version == "genrl-0.1" else b""
    with contextlib.suppress(Refused):
        READERS[version](start + noise, BOUNDS)


def nested(depth: int) -> Any:
    value: Any = "a"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("version", READERS)
@pytest.mark.parametrize(("within", "beyond"), [(nested(12), nested(13)), ([None] * 3999, [None] * 4000)])
def test_depth_and_number_of_values_are_bounded(version: str, within: Any, beyond: Any) -> None:
    read, write = READERS[version], WRITERS[version]
    assert read(write(within), BOUNDS).value == within
    with pytest.raises(Refused, match=r"not-decodable: (nested deeper|more than 4000 values)"):
        read(write(beyond), BOUNDS)


MSGPACK_REFUSED = {
    "a number from 2**63 on": msgpack.packb(2**63),
    "NaN": msgpack.packb(float("nan")),
    "infinity in four bytes": b"\xca" + struct.pack(">f", float("inf")),
    "a number as key": msgpack.packb({1: 2}),
    "bytes as key": msgpack.packb({b"a": 2}),
    "the same key twice": b"\x82\xa1a\x01\xa1a\x02",
    "an extension type": msgpack.packb(msgpack.ExtType(5, b"a")),
    "a timestamp": msgpack.packb(msgpack.Timestamp(1)),
    "no msgpack": b"\xc1",
    "text that is not UTF-8": b"\xa2\xff\xfe",
    "a surrogate": b"\xa3\xed\xa0\x80",
    "a list of 2**32-1": b"\xdd\xff\xff\xff\xff",
    "a text of 2**32-1": b"\xdb\xff\xff\xff\xff" + b"a",
    "an unknown class": msgpack.packb({"__type__": "os.system"}),
    "a class that is a list": msgpack.packb({"__type__": ["Payload"]}),
    "a Payload with a field more": msgpack.packb({"__type__": "Payload", "code": 1}),
    "a WorldState with a field less": msgpack.packb({"__type__": "WorldState", "environment_states": 1}),
}


@pytest.mark.parametrize("title", MSGPACK_REFUSED)
def test_msgpack_that_genrl_does_not_write_is_refused(title: str) -> None:
    with pytest.raises(Refused, match="not-decodable"):
        strict_msgpack.read_genrl(MSGPACK_REFUSED[title], BOUNDS)


def words(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}Q", *numbers)


KEY_A = words(3, 1) + b"a"
TLV_REFUSED = {
    "a number beyond 64 bits": words(4, 16) + (2**63).to_bytes(16, "big"),
    "a number without bytes": words(4, 0),
    "a number of 65 bytes": words(4, 65) + bytes(65),
    "a batch id beyond 128 bits": words(2, 1, 4, 20) + (2**128).to_bytes(20, "big") + words(9),
    "a batch id below 0": words(2, 1, 4, 1) + b"\xff" + words(9),
    "a number as key below the top": words(1, 1, 2, 1, 4, 1) + b"\1" + words(9),
    "a bool as key": words(2, 1, 6) + b"1" + words(9),
    "the same key twice": words(2, 2) + 2 * (KEY_A + words(9)),
    "a float of 4 bytes": words(5, 4) + bytes(8),
    "NaN": words(5, 8) + struct.pack(">d", float("nan")),
    "infinity": words(5, 8) + struct.pack(">d", float("inf")),
    "a bool that is 7": words(6) + b"\7",
    "type 0": words(0),
    "type 10": words(10),
    "a text shorter than it says": words(3, 2) + b"a",
    "a list longer than the bytes": words(1, 3, 9, 9),
    "a list of 2**63": words(1, 2**63),
    "a Payload of two values": words(7, 9, 9),
}


@pytest.mark.parametrize("title", TLV_REFUSED)
def test_tlv_that_genrl_does_not_write_is_refused(title: str) -> None:
    with pytest.raises(Refused, match="not-decodable"):
        strict_tlv.read(TLV_REFUSED[title], BOUNDS)


@pytest.mark.parametrize("value", [(1,), {1, 2}, b"a", 1j])
def test_what_genrl_0_1_cannot_write_is_an_error_here_too(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be written for GenRL 0.1"):
        strict_tlv.write([value])
