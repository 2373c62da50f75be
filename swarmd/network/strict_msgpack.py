"""A reader of msgpack for bytes from strangers: bounded, exact, without extension types.

The library's own has no bound on the number of values or their depth, so that 64 KiB of empty maps become 4 MiB of
objects. Format: the MessagePack specification.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgpack

from swarmd.network import genrl_objects
from swarmd.network.strict_bounds import Bounds, Parsed, Reader, finite, not_decodable, put, whole_number

Hook = Callable[[dict[str, Any]], Any]


def read(data: bytes, bounds: Bounds, hook: Hook | None = None) -> Parsed:
    """The first value in the bytes; what follows it is the caller's to judge.

    hook: is given each map, and what it returns stands in its place. Keys are text. Raises only Refused.
    """
    reader = Reader(data, bounds, 0)
    value = _value(reader, hook, 0)
    return Parsed(value, reader.position, reader.values)


def read_genrl(data: bytes, bounds: Bounds) -> Parsed:
    """The same for what GenRL 0.3 writes: `genrl_objects` where it has objects. Raises only Refused."""
    return read(data, bounds, genrl_objects.from_map)


def write_genrl(value: Any) -> bytes:
    """The bytes that GenRL 0.3 writes for this value, to the byte.

    Raises TypeError or ValueError (OverflowError, UnicodeEncodeError) for what it could not write either.
    """
    return msgpack.packb(value, use_bin_type=True, default=genrl_objects.to_map)


def _value(reader: Reader, hook: Hook | None, depth: int) -> Any:
    reader.count_value(depth)
    code = reader.take(1)[0]
    if code < 0x80:
        return code
    if code >= 0xE0:
        return code - 0x100
    if code < 0x90:
        return _map(reader, hook, code & 0x0F, depth)
    if code < 0xA0:
        return _list(reader, hook, code & 0x0F, depth)
    if code < 0xC0:
        return reader.text(code & 0x1F)
    if code in _CONSTANTS:
        return _CONSTANTS[code]
    if code in _INTEGERS:
        size, signed = _INTEGERS[code]
        return whole_number(int.from_bytes(reader.take(size), "big", signed=signed))
    if code in _FLOATS:
        form = _FLOATS[code]
        return finite(form.unpack(reader.take(form.size))[0])
    if code in _SIZES:
        kind, width = _SIZES[code]
        size = reader.number(width)
        if kind == "text":
            return reader.text(size)
        if kind == "bytes":
            return reader.take(size)
        return _list(reader, hook, size, depth) if kind == "list" else _map(reader, hook, size, depth)
    raise not_decodable("an extension type, or no msgpack")


def _list(reader: Reader, hook: Hook | None, count: int, depth: int) -> list[Any]:
    return [_value(reader, hook, depth + 1) for _ in range(reader.room_for(count, 1))]


def _map(reader: Reader, hook: Hook | None, count: int, depth: int) -> Any:
    mapping: dict[str, Any] = {}
    for _ in range(reader.room_for(count, 2)):
        key = _value(reader, hook, depth + 1)
        if not isinstance(key, str):
            raise not_decodable("a map with a key that is no text")
        put(mapping, key, _value(reader, hook, depth + 1))
    return mapping if hook is None else hook(mapping)


_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_INTEGERS = {
    0xCC: (1, False), 0xCD: (2, False), 0xCE: (4, False), 0xCF: (8, False),
    0xD0: (1, True), 0xD1: (2, True), 0xD2: (4, True), 0xD3: (8, True),
}  # fmt: skip
_FLOATS = {0xCA: struct.Struct(">f"), 0xCB: struct.Struct(">d")}
_SIZES = {
    0xC4: ("bytes", 1), 0xC5: ("bytes", 2), 0xC6: ("bytes", 4),
    0xD9: ("text", 1), 0xDA: ("text", 2), 0xDB: ("text", 4),
    0xDC: ("list", 2), 0xDD: ("list", 4), 0xDE: ("map", 2), 0xDF: ("map", 4),
}  # fmt: skip
"""What follows a code: the kind, and the bytes of its length or count."""
