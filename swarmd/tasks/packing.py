"""A task's answer and metadata as bytes, for the way to the scorer process, and back.

Like the frames of the link this is msgpack, with two types more that reasoning-gym's tasks contain and some of its
scorers tell apart from others: tuples, and integers of any length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

_TUPLE, _INTEGER = 1, 2


class UnpackableTask(TypeError):
    """A task with a value in it that has no place in a frame."""


def pack_task(answer: str | None, metadata: Mapping[str, Any]) -> bytes:
    """The bytes of one task. Raises UnpackableTask, naming the type, for anything but plain data.

    Plain data are None, bool, int, float, str, bytes, list, tuple and dict with keys of these, and numpy's scalars.
    """
    try:
        return _pack({"answer": answer, "metadata": dict(metadata)})
    except (ValueError, RecursionError) as error:  # nested deeper than msgpack goes, or in a circle
        raise UnpackableTask(f"the task's metadata cannot be sent to the scorer: {error}") from error


def unpack_task(packed: bytes) -> dict[str, Any]:
    """The task as a scorer takes it: a new dict with the keys "answer" and "metadata". ValueError for other bytes."""
    entry = _unpack(packed)
    if not isinstance(entry, dict):
        raise ValueError(f"a packed task is a {type(entry).__name__}")
    return entry


def _pack(value: Any) -> bytes:
    return msgpack.packb(value, strict_types=True, default=_pack_other, unicode_errors="surrogatepass")


def _unpack(packed: bytes) -> Any:
    return msgpack.unpackb(packed, strict_map_key=False, ext_hook=_unpack_other, unicode_errors="surrogatepass")


def _pack_other(value: Any) -> Any:
    if isinstance(value, tuple):
        return msgpack.ExtType(_TUPLE, _pack(list(value)))
    # numpy.str_ and the like are subclasses, numpy.int64 and numpy.bool_ are not; all have `item`.
    if isinstance(value, str):
        return str.__str__(value)
    if type(value) is int:
        return msgpack.ExtType(_INTEGER, b"%x" % value)
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list):
        return list(value)
    raise UnpackableTask(
        f"the task's metadata holds a {type(value).__module__}.{type(value).__qualname__}, which cannot be sent"
    )


def _unpack_other(code: int, data: bytes) -> Any:
    if code == _TUPLE:
        return tuple(_unpack(data))
    if code == _INTEGER:
        return int(data, 16)
    raise ValueError(f"msgpack extension type {code}")
