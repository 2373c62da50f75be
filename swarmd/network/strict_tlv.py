"""GenRL 0.1.11's own format, with all its quirks written and few of them read.

A value is a type (8 bytes, big-endian) and what belongs to it; lengths and counts have 8 bytes too. 1 list: count,
items. 2 map: count, keys and values in turn. 3 text: length, UTF-8. 4 whole number: length, signed big-endian; the
length is the number's size in CPython's memory. 5 float: the length 8, a double. 6 bool: b"0" or b"1" (GenRL itself
reads both as False). 7 Payload and 8 WorldState: three values each. 9 None.
"""

from __future__ import annotations

import struct
from typing import Any

from swarmd.network.genrl_objects import Payload, WorldState
from swarmd.network.refusals import Reason, Refused
from swarmd.network.strict_bounds import Bounds, Parsed, Reader, finite, not_decodable, put, whole_number

_LIST, _MAP, _TEXT, _INT, _FLOAT, _BOOL, _PAYLOAD, _WORLD_STATE, _NONE = range(1, 10)
_MOST_INT_BYTES = 64  # 16 are needed; CPython has 44 for those
_ID_MAX = 2**128 - 1
_BOOLS = {b"0": False, b"1": True}

TYPE_ZEROS = bytes(7)
"""How every value starts. In msgpack this is the number 0, and no record."""


def read(data: bytes, bounds: Bounds) -> Parsed:
    """The first value in the bytes; what follows it is the caller's to judge.

    The keys of the outermost map may be whole numbers of 128 bits (batch ids), all others are text. Raises only
    Refused.
    """
    reader = Reader(data, bounds, 0)
    value = _value(reader, 0)
    return Parsed(value, reader.position, reader.values)


def _value(reader: Reader, depth: int) -> Any:
    reader.count_value(depth)
    kind = reader.number(8)
    if kind == _TEXT:
        return reader.text(reader.number(8))
    if kind == _INT:
        return whole_number(_int(reader))
    if kind == _NONE:
        return None
    if kind == _LIST:
        return [_value(reader, depth + 1) for _ in range(reader.room_for(reader.number(8), 8))]
    if kind == _MAP:
        return _map(reader, depth)
    if kind == _FLOAT:
        if reader.number(8) != 8:
            raise not_decodable("a float that has not 8 bytes")
        return finite(struct.unpack(">d", reader.take(8))[0])
    if kind == _BOOL:
        byte = reader.take(1)
        if byte not in _BOOLS:
            raise not_decodable("a bool that is neither 0 nor 1")
        return _BOOLS[byte]
    if kind in (_PAYLOAD, _WORLD_STATE):
        made = Payload if kind == _PAYLOAD else WorldState
        return made(_value(reader, depth + 1), _value(reader, depth + 1), _value(reader, depth + 1))
    raise not_decodable("a value of an unknown type")


def _int(reader: Reader) -> int:
    size = reader.number(8)
    if not 0 < size <= _MOST_INT_BYTES:
        raise not_decodable(f"a whole number that has not 1 to {_MOST_INT_BYTES} bytes")
    return int.from_bytes(reader.take(size), "big", signed=True)


def _map(reader: Reader, depth: int) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    int_keys = 0
    for _ in range(reader.room_for(reader.number(8), 16)):
        key = _key(reader, depth)
        int_keys += isinstance(key, int)
        if int_keys > reader.bounds.int_keys:
            raise Refused(Reason.TOO_MANY_GROUPS, f"more than {reader.bounds.int_keys} batch ids")
        put(mapping, key, _value(reader, depth + 1))
    return mapping


def _key(reader: Reader, depth: int) -> str | int:
    reader.count_value(depth + 1)
    kind = reader.number(8)
    if kind == _TEXT:
        return reader.text(reader.number(8))
    if kind == _INT and depth == 0:
        key = _int(reader)
        if not 0 <= key <= _ID_MAX:
            raise not_decodable("a batch id beyond 128 bits")
        return key
    raise not_decodable("a map with a key that is neither text nor a batch id")


def write(value: Any) -> bytes:
    """The bytes that GenRL 0.1.11 writes for this value, to the byte.

    Raises TypeError for what it could not write either, UnicodeEncodeError for surrogates.
    """
    parts: list[bytes] = []
    _write(value, parts)
    return b"".join(parts)


def _write(value: Any, parts: list[bytes]) -> None:
    # The very type counts there, not what it derives from: a bool is no int, an IntEnum is nothing.
    kind = type(value)
    if kind is str:
        text = value.encode("utf-8")
        parts.append(_head(_TEXT, len(text)) + text)
    elif kind is int:
        size = _size_in_memory(value)
        parts.append(_head(_INT, size) + value.to_bytes(size, "big", signed=True))
    elif kind is float:
        parts.append(_head(_FLOAT, 8) + struct.pack(">d", value))
    elif kind is bool:
        parts.append(_head(_BOOL) + (b"1" if value else b"0"))
    elif value is None:
        parts.append(_head(_NONE))
    elif kind is list:
        parts.append(_head(_LIST, len(value)))
        for item in value:
            _write(item, parts)
    elif kind is dict:
        parts.append(_head(_MAP, len(value)))
        for key, item in value.items():
            _write(key, parts)
            _write(item, parts)
    elif kind is Payload:
        parts.append(_head(_PAYLOAD))
        for item in (value.world_state, value.actions, value.metadata):
            _write(item, parts)
    elif kind is WorldState:
        parts.append(_head(_WORLD_STATE))
        for item in (value.environment_states, value.opponent_states, value.personal_states):
            _write(item, parts)
    else:
        raise TypeError(f"a {kind.__name__} cannot be written for GenRL 0.1")


def _head(*words: int) -> bytes:
    return struct.pack(f">{len(words)}Q", *words)


def _size_in_memory(value: int) -> int:
    """sys.getsizeof of a whole number in 64-bit CPython 3.11: a header of 24 bytes and 4 for each 30 bits.

    Written down here because that function's answer is another one elsewhere, and 0 counts as one digit.
    """
    return 24 + 4 * max(1, -(-value.bit_length() // 30))
