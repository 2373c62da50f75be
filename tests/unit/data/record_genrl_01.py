"""Writes genrl_01.jsonl: values, and the bytes that GenRL 0.1.11 itself makes of them.

swarmd depends on GenRL 0.3, so that the older one cannot be there when tests run. To write the file again, unpack the
wheel gensyn-genrl 0.1.11 into a folder and run, from this one:

    PYTHONPATH=FOLDER python record_genrl_01.py > genrl_01.jsonl

A value is JSON, with {"map": [[key, value], ...]}, {"payload": [...]} and {"world_state": [...]} for what JSON lacks.
"""

import base64
import hashlib
import json
from typing import Any

from genrl.communication.communication import Payload
from genrl.serialization.game_tree import from_bytes, to_bytes
from genrl.state import WorldState

QUESTION = "What is 7 times 6? Ünïcödé 日本語 🙂\nAnswer with a number."


def task(question: str, **metadata: Any) -> dict[str, Any]:
    described = {"map": [[key, value] for key, value in metadata.items()]}
    return {"map": [["question", question], ["answer", "42"], ["metadata", described]]}


def payload(question: str, completions: list[str], **metadata: Any) -> dict[str, Any]:
    return {"payload": [{"world_state": [task(question, **metadata), None, None]}, completions, None]}


def batch_id(question: str) -> int:
    return int(hashlib.md5(question.encode()).hexdigest(), 16)


VALUES: dict[str, Any] = {
    "none": None,
    "bools": [True, False],
    "floats": [0.0, -0.0, 1.5, -1e300, 5e-324],
    "texts": ["", "a", "Ünïcödé 日本語 🙂\x00\n"],
    "small numbers": [0, 1, -1, 127, 128, 255, 256, -128, -129],
    "numbers at each change of their size in memory": [
        sign * (2**bits + step) for bits in (29, 30, 31, 59, 60, 61, 62) for step in (-1, 0, 1) for sign in (1, -1)
    ],
    "the ends of 64 bits": [2**63 - 1, -(2**63)],
    "empty": [[], {"map": []}],
    "nested": {"map": [["a", [[[]], {"map": [["b", {"map": [["c", None]]}]]}]], ["", 1]]},
    "payload of nothing": {"payload": [None, None, None]},
    "world state of texts": {"world_state": ["a", ["b"], None]},
    "no batch": {"map": []},
    "one task": {
        "map": [
            [
                batch_id(QUESTION),
                [
                    payload(
                        QUESTION,
                        ["<answer>42</answer>", "", "perhaps 41"],
                        source_dataset="products",
                        source_index=3,
                        exact=True,
                        share=0.25,
                        nothing=None,
                        digits=[[4, 2]],
                    )
                ],
            ]
        ]
    },
    "two payloads for one batch id, two batch ids": {
        "map": [
            [batch_id("q"), [payload("q", ["a"], source_dataset="gcd"), payload("q", ["b"], source_dataset="gcd")]],
            [batch_id("r"), [payload("r", ["c"], source_dataset="lcm")]],
        ]
    },
}


def made(value: Any) -> Any:
    """The object that a description stands for."""
    if isinstance(value, list):
        return [made(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, parts),) = value.items()
    if kind == "map":
        return {key: made(item) for key, item in parts}
    return {"payload": Payload, "world_state": WorldState}[kind](*map(made, parts))


if __name__ == "__main__":
    for title, value in VALUES.items():
        written = to_bytes(made(value))
        # Which says that bytes behind an object are passed over; bools come back as False from this version.
        if title not in ("bools", "one task"):
            assert from_bytes(written + b"\xc1 and something") == made(value), title
        print(json.dumps({"title": title, "value": value, "bytes": base64.b64encode(written).decode()}))
