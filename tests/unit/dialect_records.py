"""Identities, groups and dialects for the tests of the wire formats, and records that only a bad peer writes."""

from __future__ import annotations

import base64
import functools
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from swarmd.network import strict_tlv
from swarmd.network.dialects import Dialect, OutgoingGroup, decode, dialect_for
from swarmd.network.dialects.genrl_01 import Genrl01Dialect
from swarmd.network.dialects.own import MAGIC
from swarmd.network.genrl_objects import Payload, WorldState
from swarmd.network.identity import Identity, parse
from swarmd.network.libp2p_keys import new_private_key, private_key_bytes
from swarmd.network.records import Record
from swarmd.network.signing import milliseconds, sign
from swarmd.tasks.provenance import Provenance, Task

DATA = Path(__file__).with_name("data")
SWARM = "0123456789abcdef"
ROUND = 7
EXPIRES = 1_790_000_000.25
STRANGER = "Qm" + "a" * 44
NAMES = ["swarmd", "genrl-0.3", "genrl-0.1"]


@functools.cache
def identity(number: int = 0) -> Identity:
    """The same for the same number; making a key takes a tenth of a second."""
    return parse(private_key_bytes(new_private_key()), Path(f"identity-{number}"))


def dialect(name: str, **settings: Any) -> Dialect:
    return dialect_for(name, SWARM, **settings)


def private(secret: str = "a secret of this test") -> Dialect:
    return dialect("swarmd", secret=secret)


def task(number: int = 0, **metadata: Any) -> Task:
    known = {"source_dataset": "products", "source_index": 3, "difficulty": {"digits": (1, 2)}}
    place = Provenance("reasoning_gym", "products", "c0ffee", 1000 + number, 3)
    return Task(place, f"What is {number} times 6? Ünïcödé 🙂", str(6 * number), {**known, **metadata})


def group(number: int = 0, completions: int = 4, length: int = 20, **metadata: Any) -> OutgoingGroup:
    texts = tuple((f"<answer>{n}</answer>" * length)[:length] for n in range(completions))
    return OutgoingGroup(task(number, **metadata), number, texts, tuple(-0.25 * n for n in range(completions)))


def groups(count: int) -> list[OutgoingGroup]:
    return [group(number) for number in range(count)]


def written(written_by: Dialect, some: list[OutgoingGroup] | None = None, model: str = "qwen2") -> bytes:
    some = groups(3) if some is None else some
    return written_by.encode(some, ROUND, identity(), EXPIRES, model).value


def read(value: bytes, read_by: Dialect, **other: Any) -> Record:
    """What `decode` makes of the value in its place; other: what is to be different."""
    subkey = other.get("subkey", identity().peer_id)
    round = other.get("round", ROUND)
    place = {"round": round, "subkey": subkey, "key": read_by.key_for(round, subkey), "expires": EXPIRES, **other}
    return decode(value, dialect=read_by, **place)


def own_record(body: Any, packing: bytes | None = None, **envelope: Any) -> bytes:
    """An own record, rightly signed, of whatever body; packing: the body's bytes as they are."""
    content = b"\0" + msgpack.packb(body) if packing is None else packing
    key = dialect("swarmd").key_for(ROUND, identity().peer_id)
    signature = sign(identity(), "swarmd/record/1", key, EXPIRES, content)
    fields = {"key": signature.public_key, "signature": signature.signature, "body": content, **envelope}
    return MAGIC + b"\1" + msgpack.packb(fields)


def own_body(**other: Any) -> dict[str, Any]:
    return {"round": ROUND, "expires": milliseconds(EXPIRES), "model": "", "groups": [own_group()], **other}


def own_group(**other: Any) -> list[Any]:
    fields = {"slot": 0, "environment": "reasoning_gym", "dataset": "gcd", "config": "ab", "seed": 5, "index": 1}
    return list({**fields, "completions": ["a", "b"], "logprobs": b"\xff\xff\0\0", **other}.values())


def deflated(content: bytes) -> bytes:
    """A body of this content."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return b"\1" + packer.compress(content) + packer.flush()


def bomb(size: int) -> bytes:
    """A body that inflates to this many bytes."""
    return deflated(bytes(size))


def genrl_record(completions: Any, question: Any = "q1", metadata: Any = None) -> dict[str | int, Any]:
    """What a GenRL node shares, before it is written; the batch id is the one of 0.1."""
    number = Genrl01Dialect().batch_id(question) if isinstance(question, str) else 1
    state = WorldState({"question": question, "answer": "1", "metadata": metadata or {"source_dataset": "gcd"}})
    return {number: [Payload(state, completions)]}


@dataclass(frozen=True)
class BadRecord:
    """expected: the reason for which it is refused, or "taken" where only later rules see what is wrong with it."""

    id: str
    title: str
    expected: str
    value: bytes


def bad_records() -> Iterator[BadRecord]:
    """Records that made a GenRL node fall over, train on nonsense or lose its round."""
    for line in (DATA / "bad_records.jsonl").read_text().splitlines():
        case = json.loads(line)
        yield BadRecord(case["id"], case["title"], case["expected"], base64.b64decode(case["bytes"]))
    number = 2**61 - 1  # whose multiples all have one hash
    colliding = [_words(4, 16) + (step * number).to_bytes(16, "big") + _words(9) for step in range(1, 60001)]
    yield BadRecord("G10", "60000 colliding batch ids", "too-large", _words(2, 60000) + b"".join(colliding))
    few = _words(2, 1600) + b"".join(colliding[:1600])
    yield BadRecord("G10b", "as many of them as a record holds", "too-many-groups", few)
    for case, depth, reason in (("G11", 400, "not-decodable"), ("G12", 100_000, "too-large")):
        yield BadRecord(case, f"lists nested {depth} deep", reason, _words(1, 1) * depth + _words(9))
    yield BadRecord("G17", "a number of 1 MiB", "too-large", _words(4, 2**20) + b"\x7f" * 2**20)
    yield BadRecord("G17b", "a number of 60 KiB", "not-decodable", _words(4, 60000) + b"\x7f" * 60000)
    for case, completions, reason in (
        ("G27", ["x" * 200_000], "too-large"),
        ("P26", ["x" * 60_000], "completion-too-long"),
        ("P29", [""] * 1000, "too-many-completions"),
    ):
        yield BadRecord(case, f"{len(completions)} completions", reason, strict_tlv.write(genrl_record(completions)))
    ids = strict_tlv.write({number: [] for number in range(800)})
    yield BadRecord("P30", "800 batch ids", "too-many-groups", ids)
    for code, title in ((b"\x80", "maps"), (b"\x90", "lists"), (b"\xa0", "texts"), (b"\xcb" + bytes(8), "numbers")):
        count = 60_000 // len(code)
        value = b"\xdd" + struct.pack(">I", count) + code * count
        yield BadRecord(f"M-{title}", f"{count} of the smallest {title}", "not-decodable", value)
    yield BadRecord("M-deep", "msgpack lists nested 60000 deep", "not-decodable", b"\x91" * 60_000)
    yield BadRecord("M-ext", "a nested extension type", "not-decodable", b"\xc7\x05\x40" + b"\x91" * 5)


def _words(*words: int) -> bytes:
    return struct.pack(f">{len(words)}Q", *words)
