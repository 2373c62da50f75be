"""Single values that broke GenRL's decoders, its nodes or hivemind: tests/data/bad_records.jsonl.

A line is {"id", "layer", "title", "value"}, for layer "dht" with "subkey", as they travel in the DHT (msgpack), and
"expires_in" (seconds, "nan" among them). Bytes are {"base64": ...} or {"parts": [...]}; a part is [hexadecimal, times],
or [hexadecimal, times, bytes, hexadecimal] with a number of so many bytes in between that counts from 0.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

from swarmd.network.admission_rules import RawRecord
from swarmd.network.dialects import Dialect
from tests.hostile.authors import EXPIRES, NOW, ROUND, Sample

FILE = Path(__file__).parents[1] / "data" / "bad_records.jsonl"


def corpus_samples(dialect: Dialect, peer_id: str) -> Iterator[Sample]:
    """All of them as records under this peer id; those for the DHT raw, and as msgpack reads them where it can."""
    key = dialect.key_for(ROUND, peer_id)
    for line in FILE.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        kind, value = f"{case['id']} {case['title']}", _bytes(case["value"])
        if case["layer"] != "dht":
            yield Sample(kind, RawRecord(ROUND, key, peer_id, value, EXPIRES))
            continue
        subkey, expires = _bytes(case["subkey"]), NOW + float(case["expires_in"])
        for read_subkey in (subkey, _unpacked(subkey), peer_id):
            for read_value in (value, _unpacked(value)):
                yield Sample(kind, RawRecord(ROUND, key, read_subkey, read_value, expires))


def _bytes(described: dict[str, Any]) -> bytes:
    if "base64" in described:
        return base64.b64decode(described["base64"])
    return b"".join(_part(*part) for part in described["parts"])


def _part(before: str, times: int, width: int = 0, after: str = "") -> bytes:
    """The same so many times, but for a number in it where it has a width."""
    head, tail = bytes.fromhex(before), bytes.fromhex(after)
    return b"".join(head + (number.to_bytes(width, "big") if width else b"") + tail for number in range(times))


def _unpacked(data: bytes) -> Any:
    try:
        return msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, msgpack.UnpackException):
        return None
