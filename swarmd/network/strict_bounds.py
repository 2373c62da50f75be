"""What the strict readers have in common: how much they take, and what they make of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from swarmd.network.refusals import Reason, Refused

INT_MIN, INT_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class Bounds:
    """Where a reader stops. depth: of lists and maps in each other. values: of all kinds, keys of maps included.

    A value of one byte becomes an object of 28 to 64, so that bytes alone do not bound the memory.
    int_keys: keys that are whole numbers in one map; few, since integers that collide make a map quadratic.
    """

    depth: int = 12
    values: int = 4000
    int_keys: int = 64


@dataclass(frozen=True)
class Parsed:
    """A value, where its bytes end, and how many values it consists of."""

    value: Any
    end: int
    values: int


def not_decodable(message: str) -> Refused:
    return Refused(Reason.NOT_DECODABLE, message)


class Reader:
    """A place in bytes that nobody vouches for. Whatever is read through it, is there."""

    def __init__(self, data: bytes, bounds: Bounds, start: int) -> None:
        self.data = data
        self.bounds = bounds
        self.position = start
        self.values = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes. Raises Refused where fewer are left."""
        end = self.position + size
        if size > len(self.data) - self.position:
            raise not_decodable(f"ends at byte {len(self.data)}, within a value")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def number(self, size: int) -> int:
        """The next `size` bytes as an unsigned big-endian number."""
        return int.from_bytes(self.take(size), "big")

    def text(self, size: int) -> str:
        """The next `size` bytes as text. Raises Refused unless they are UTF-8; surrogates are not."""
        try:
            return self.take(size).decode("utf-8")
        except UnicodeDecodeError as error:
            raise not_decodable("a text that is not UTF-8") from error

    def count_value(self, depth: int) -> None:
        """Called before each value. Raises Refused beyond the bounds."""
        self.values += 1
        if self.values > self.bounds.values:
            raise not_decodable(f"more than {self.bounds.values} values")
        if depth > self.bounds.depth:
            raise not_decodable(f"nested deeper than {self.bounds.depth}")

    def room_for(self, count: int, smallest: int) -> int:
        """`count`, if that many items of `smallest` bytes or more can still come; so nothing is made for a lie."""
        if count > (len(self.data) - self.position) // smallest:
            raise not_decodable("announces more items than bytes are left")
        if count > self.bounds.values - self.values:
            raise not_decodable(f"more than {self.bounds.values} values")
        return count


def whole_number(value: int) -> int:
    """`value`, if it has 64 bits with its sign."""
    if not INT_MIN <= value <= INT_MAX:
        raise not_decodable("a whole number beyond 64 bits")
    return value


def finite(value: float) -> float:
    """`value`, if it is a number; infinities and NaN compare in ways that no later check expects."""
    if not math.isfinite(value):
        raise not_decodable("a number that is not finite")
    return value


def put(mapping: dict[Any, Any], key: Any, value: Any) -> None:
    """Adds an item. Raises Refused for a key that is there: two readers of such bytes would see different things."""
    if key in mapping:
        raise not_decodable("a map with the same key twice")
    mapping[key] = value
