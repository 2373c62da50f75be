"""hivemind's msgpack forms of subkeys, values and dictionaries, read without trust.

hivemind decodes whatever arrives: nested extension types end its process with a segmentation fault, one byte that
is not msgpack leaves a search waiting for ever, and subkeys of mixed types corrupt its heaps. Here a subkey is a str
with a peer id, a value is a `bin` that is not looked into, and a dictionary is one extension of code 0x50 around
[maxsize, latest expiration, [[subkey, value, expiration], ...]]. Of a dictionary each item stands alone: those that
are not well formed are skipped, unread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import base58
import msgpack

PLAIN_TAG = b"\xc0"
"""In place of a subkey: the value is plain, without subkeys (msgpack nil)."""
DICTIONARY_TAG = b""
"""In place of a subkey: the value is a whole dictionary."""

_DICTIONARY_CODE = 0x50
# Shortest and longest base58 form: a SHA-256 multihash has 46 characters, an Ed25519 key as its own id 52.
_SHORTEST_ID, _LONGEST_ID = 40, 64
_SHA256_MULTIHASH = b"\x12\x20"
_IDENTITY_CODE = 0


@lru_cache(maxsize=8192)
def is_peer_id(text: str) -> bool:
    """Whether the text is the base58 form of a libp2p peer id (specs/peer-ids: a SHA-256 or an identity multihash)."""
    if not _SHORTEST_ID <= len(text) <= _LONGEST_ID or not text.isascii():
        return False
    try:
        raw = base58.b58decode(text)
    except ValueError:
        return False
    if raw[:2] == _SHA256_MULTIHASH:
        return len(raw) == 34
    return len(raw) > 2 and raw[0] == _IDENTITY_CODE and raw[1] == len(raw) - 2


def encode_subkey(subkey: str) -> bytes:
    return bytes(msgpack.packb(subkey, use_bin_type=True))


def decode_subkey(tag: bytes) -> str | None:
    """The peer id in a msgpack str; None for all else."""
    if not tag:
        return None
    if 0xA0 <= tag[0] <= 0xBF:
        length, text = tag[0] & 0x1F, tag[1:]
    elif tag[0] == 0xD9 and len(tag) > 1:
        length, text = tag[1], tag[2:]
    else:
        return None
    if length != len(text) or not text.isascii():
        return None
    subkey = text.decode("ascii")
    return subkey if is_peer_id(subkey) else None


def wrap_value(value: bytes) -> bytes:
    """The bytes as a msgpack `bin`, which is how hivemind stores a value that is bytes."""
    return bytes(msgpack.packb(value, use_bin_type=True))


def unwrap_value(raw: bytes) -> bytes | None:
    """The bytes in a msgpack `bin` of exactly this length; None for all else. What they hold is not looked at."""
    if not raw or not 0xC4 <= raw[0] <= 0xC6:
        return None
    head = 1 + (1 << (raw[0] - 0xC4))
    if len(raw) < head or int.from_bytes(raw[1:head], "big") != len(raw) - head:
        return None
    return raw[head:]


def encode_dictionary(items: Iterable[tuple[str, bytes, float]]) -> bytes:
    """The items (subkey, value as it lies in the store, expiration) as a stock node reads them."""
    listed = list(items)
    latest = max((expires for _, _, expires in listed), default=float("-inf"))
    body = msgpack.packb([float("inf"), latest, listed], use_bin_type=True)
    return bytes(msgpack.packb(msgpack.ExtType(_DICTIONARY_CODE, body)))


def decode_dictionary(raw: bytes, most_items: int = 4000) -> Iterator[tuple[str, bytes, float]]:
    """The well formed items (subkey, value, expiration) of a dictionary as it came; ends where the bytes make no sense,
    and after so many items, good or bad.

    The value is still as it was stored (see unwrap_value). Whether the subkey is a peer id is not looked at, nor
    whether it was there before.
    """
    body = _dictionary_body(raw)
    if body is None:
        return
    # No object is made of what is skipped, and an extension is never looked into: nothing nests in here.
    unpacker = msgpack.Unpacker(raw=False, unicode_errors="surrogateescape", ext_hook=_no_extension)
    unpacker.feed(body)
    try:
        if unpacker.read_array_header() != 3:
            return
        unpacker.skip()
        unpacker.skip()
        for _ in range(min(unpacker.read_array_header(), most_items)):
            item = _read_item(unpacker, body)
            if item is not None:
                yield item
    except (msgpack.UnpackException, ValueError, IndexError, RecursionError):
        return


def _read_item(unpacker: Any, body: bytes) -> tuple[str, bytes, float] | None:
    if body[unpacker.tell()] != 0x93:
        unpacker.skip()
        return None
    unpacker.read_array_header()
    parts = (_read_if(unpacker, body, _is_str), _read_if(unpacker, body, _is_bin), _read_if(unpacker, body, _is_number))
    if any(part is None for part in parts):
        return None
    subkey, value, expires = parts
    return subkey, value, float(expires)


def _read_if(unpacker: Any, body: bytes, expected: Any) -> Any:
    if expected(body[unpacker.tell()]):
        return unpacker.unpack()
    unpacker.skip()
    return None


def _is_str(first: int) -> bool:
    return 0xA0 <= first <= 0xBF or 0xD9 <= first <= 0xDB


def _is_bin(first: int) -> bool:
    return 0xC4 <= first <= 0xC6


def _is_number(first: int) -> bool:
    return first <= 0x7F or 0xCA <= first <= 0xD3 or first >= 0xE0


def _dictionary_body(raw: bytes) -> bytes | None:
    """What is inside the one extension that the bytes have to be."""
    if not raw:
        return None
    first = raw[0]
    if 0xD4 <= first <= 0xD8:
        head, length = 1, 1 << (first - 0xD4)
    elif 0xC7 <= first <= 0xC9:
        head = 1 + (1 << (first - 0xC7))
        length = int.from_bytes(raw[1:head], "big")
    else:
        return None
    if len(raw) != head + 1 + length or raw[head] != _DICTIONARY_CODE:
        return None
    return raw[head + 1 :]


def _no_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"extension type {code} is not read")
