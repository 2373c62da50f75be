"""One hostile record of each kind as GenRL's nodes would write it, and honest ones of such a node."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from swarmd.network.admission_rules import RawRecord
from swarmd.network.dialects.genrl_01 import Genrl01Dialect
from swarmd.network.dialects.genrl_payload import GenrlDialect
from swarmd.network.genrl_objects import Payload, WorldState
from swarmd.network.refusals import Reason
from swarmd.network.signing import Signer, sign, trailer
from tests.hostile.authors import (
    EXPIRES,
    ROUND,
    Author,
    Sample,
    honest,
    prose,
    table,
    table_questions,
    under,
)
from tests.hostile.own import CODE, poison

EVALUATED = {
    "binary_matrix": "answer", "spiral_matrix": "answer", "string_insertion": "answer", "n_queens": "answer",
    "countdown": "answer", "puzzle24": "answer", "polynomial_multiplication": "answer", "simple_integration": "answer",
    "intermediate_integration": "answer", "number_sorting": "oracle", "bitwise_arithmetic": "problem",
}  # fmt: skip
"""The datasets whose scorers in reasoning-gym evaluate text, and which text."""

TRAILER_DOMAIN = "swarmd/trailer/1"

DECODING = frozenset(
    {Reason.NOT_DECODABLE, Reason.WRONG_SHAPE, Reason.WRONG_BATCH_ID, Reason.OTHER_VERSION, Reason.BAD_SIGNATURE}
)


def payload(question: Any, completions: Any, answer: Any = "1", metadata: Any = None) -> Payload:
    state = {"question": question, "answer": answer, "metadata": metadata}
    return Payload(WorldState(state), completions)


def record(dialect: GenrlDialect, peer_id: str, value: Any) -> RawRecord:
    """A record without a signature, as GenRL's nodes publish them. value: the object, or its bytes."""
    content = value if isinstance(value, bytes) else dialect.write(value)
    return RawRecord(ROUND, dialect.key_for(ROUND, peer_id), peer_id, content, EXPIRES)


def signed(dialect: GenrlDialect, author: Signer, value: Any, round: int, expires: float) -> RawRecord:
    """A record with a true signature behind whatever a swarmd node would not write. value: as `record`."""
    content, key = value if isinstance(value, bytes) else dialect.write(value), dialect.key_for(round, author.peer_id)
    signature = sign(author, TRAILER_DOMAIN, key, expires, content)
    return RawRecord(round, key, author.peer_id, content + trailer(signature), expires)


def asked(dialect: GenrlDialect, question: str, completions: Any, **said: Any) -> dict[Any, list[Payload]]:
    return {dialect.batch_id(question): [payload(question, completions, **said)]}


def stock(dialect: GenrlDialect, peer_id: str, rng: random.Random) -> RawRecord:
    """The record of an honest GenRL node: two questions of the table, unsigned."""
    value: dict[Any, list[Payload]] = {}
    for question in rng.sample(table_questions(heldout=False), 2):
        task = table().find(question)
        assert task is not None
        texts = [f"{prose(rng, 20)} <answer>{task.answer}</answer>", f"{prose(rng, 20)} <answer>?</answer>"]
        metadata = {"source_dataset": task.provenance.dataset, "source_index": 1, "difficulty": {"length": [2, 3]}}
        value |= asked(dialect, question, texts, answer=task.answer, metadata=metadata)
    return record(dialect, peer_id, value)


def legacy_samples(dialect: GenrlDialect, attacker: Author, victim: Author, seed: int, marker: str) -> Iterator[Sample]:
    """Every kind once; offer them one by one. marker: the file that the code in them would make."""
    rng = random.Random(seed)
    code = CODE.format(marker=marker)
    good = rng.choice(table_questions(heldout=False))
    texts = [f"{prose(rng, 20)} <answer>{number}</answer>" for number in range(3)]

    def sample(kind: str, value: Any, *refused: Reason) -> Sample:
        raw = value if isinstance(value, RawRecord) else record(dialect, attacker.peer_id, value)
        return Sample(kind, raw, frozenset(refused))

    for kind, content in _broken_bytes(dialect, good, texts, rng):
        yield sample(kind, content, *DECODING, Reason.TOO_LARGE, Reason.TOO_MANY_GROUPS)
    for kind, value in _broken_shapes(dialect, good, texts):
        yield sample(kind, value, *DECODING)
    yield sample("another batch id", {dialect.batch_id("else"): [payload(good, texts)]}, Reason.WRONG_BATCH_ID)
    yield sample("one completion", asked(dialect, good, texts[:1]), Reason.TOO_FEW_COMPLETIONS)
    yield sample("1000 completions", asked(dialect, good, [""] * 1000), Reason.TOO_MANY_COMPLETIONS)
    long = asked(dialect, good, ["x" * 60_000, "b"])
    yield sample("a completion of 60 KB", long, Reason.COMPLETION_TOO_LONG)
    many = {dialect.batch_id(str(number)): [] for number in range(800)}
    yield sample("800 batch ids", many, Reason.TOO_MANY_GROUPS, Reason.NOT_DECODABLE)
    yield sample("invented question", asked(dialect, prose(rng, 20), texts), Reason.UNKNOWN_TASK)
    yield sample("odd characters", asked(dialect, "q\0\u202e\x1b[2J", texts), Reason.UNKNOWN_TASK)
    held = rng.choice(table_questions(heldout=True))
    yield sample("a question of the evaluation", asked(dialect, held, texts), Reason.HELD_OUT)
    for dataset, where in EVALUATED.items():
        said: dict[str, Any] = {"metadata": {"source_dataset": dataset, "problem": "1", "integrand": "x"}}
        answers = [f"<answer>{code}</answer>", "<answer>0</answer>"] if where == "answer" else texts
        if where == "oracle":
            said["answer"] = code
        if where == "problem":
            said["metadata"] |= {"problem": code, "integrand": code}
        yield sample(f"code for {dataset}, invented question", asked(dialect, f"q {dataset}", answers, **said),
                     Reason.UNKNOWN_TASK)  # fmt: skip
        yield sample(f"code for {dataset}, true question", asked(dialect, good, answers, **said))
    for metadata in ({"source_dataset": "composite"}, {"source_dataset": ["x"]}, "text", 5, {"source_dataset": "nope"}):
        yield sample("odd metadata", asked(dialect, good, texts, metadata=metadata))
    yield sample("answer of another type", asked(dialect, good, texts, answer=5))
    for kind, text in poison(rng, marker).items():
        yield sample(f"answers: {kind}", asked(dialect, good, [text.format(n=number) for number in range(4)]))
    yield from _signed(dialect, attacker, victim, rng, sample)
    mark = f"1 0 reasoning_gym chain_sum {'0' * 32} 5 1 - -"
    marked = asked(dialect, good, texts, metadata={"swarmd": mark})
    yield sample("a mark with a chosen seed", marked, Reason.OTHER_TASK)
    for text in ("1 x y", "\ud7ff" * 99, "9" * 4000, mark.replace("5 1", "٥ 1"), mark.replace(" 0 ", " -1 ")):
        yield sample("a broken mark", asked(dialect, good, texts, metadata={"swarmd": text}))


def _signed(
    dialect: GenrlDialect, attacker: Author, victim: Author, rng: random.Random, sample: Any
) -> Iterator[Sample]:
    good = honest(dialect, attacker, rng)
    yield sample("forged owner", under(good, dialect, victim), Reason.OTHER_PEER)
    yield sample("another's expiration", replace(good, expires=EXPIRES + 100), Reason.BAD_SIGNATURE)
    old = honest(dialect, attacker, rng, ROUND - 5)
    yield sample("an old round", old, Reason.OLD_ROUND)
    yield sample("an old round under this one's key", under(old, dialect, attacker, ROUND), Reason.BAD_SIGNATURE)
    cut = replace(good, value=good.value[:-1])
    yield sample("a trailer cut short", cut, Reason.NOT_DECODABLE, Reason.BAD_SIGNATURE)
    yield sample("more behind the trailer", replace(good, value=good.value + b"x"), Reason.NOT_DECODABLE)


def _broken_bytes(
    dialect: GenrlDialect, good: str, texts: Sequence[str], rng: random.Random
) -> Iterator[tuple[str, bytes]]:
    whole = dialect.write(asked(dialect, good, list(texts)))
    yield "oversize", rng.randbytes(65_537)
    yield "oversize and well-formed", dialect.write(asked(dialect, good, ["x" * 200_000, "b"]))
    yield "empty", b""
    yield "cut short", whole[: rng.randrange(1, len(whole) - 1)]
    yield "bytes behind the end", whole + b"TRAILER" * 9
    yield "noise", rng.randbytes(300)
    if isinstance(dialect, Genrl01Dialect):
        word = struct.Struct(">Q").pack
        for count in (2**63, 2**61, 2**29, 1000):
            yield f"list of {count}", word(1) + word(count)
            yield f"map of {count}", word(2) + word(count)
        yield "three lists of 2**28", (word(1) + word(2**28)) * 3
        for depth in (13, 400, 4000):
            yield f"nested {depth}", word(2) + word(1) + word(3) + word(0) + (word(1) + word(1)) * depth + word(9)
        yield "integer of 30 KB", word(2) + word(1) + word(4) + word(30_000) + bytes(30_000) + word(9)
        yield "text of 2**63", word(2) + word(1) + word(3) + word(2**63) + b"a"
        yield "bad UTF-8", word(2) + word(1) + word(3) + word(2) + b"\xff\xfe" + word(9)
        yield "surrogate", word(2) + word(1) + word(3) + word(3) + b"\xed\xa0\x80" + word(9)
        yield "unknown type", word(2**64 - 1)
        yield "NaN", word(2) + word(1) + word(3) + word(0) + word(5) + word(8) + struct.pack(">d", float("nan"))
        keys = b"".join(word(4) + word(44) + ((2**61 - 1) * n).to_bytes(44, "big") + word(9) for n in range(900))
        yield "colliding keys", word(2) + word(900) + keys
    else:
        for head in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc1", b"\xd4\x05a"):
            yield "a count without content", head
        for depth in (13, 1000, 60_000):
            yield f"nested {depth}", b"\x81\xa1a" + b"\x91" * depth + b"\xc0"
        yield "bad UTF-8", b"\x81\xa2\xff\xfe\xc0"
        yield "NaN", b"\x81\xa1a\xcb" + struct.pack(">d", float("nan"))
        yield "unknown class", dialect.write({"a": [{"__type__": "os.system", "x": "id"}]})
        yield "unhashable class", dialect.write({"a": [{"__type__": ["x"]}]})


def _broken_shapes(dialect: GenrlDialect, good: str, texts: Sequence[str]) -> Iterator[tuple[str, Any]]:
    name = dialect.batch_id(good)
    task = {"question": good, "answer": "1", "metadata": None}
    for value in ("text", 5, None, [], 1.5):
        yield "no map of batch ids", value
        yield "a batch without a list", {name: value if value != [] else {"a": 1}}
        yield "a batch without payloads", {name: [value]}
        yield "no world state", {name: [Payload(value, list(texts))]}
        yield "no environment states", {name: [Payload(WorldState(value), list(texts))]}
        yield "no question", {name: [Payload(WorldState({**task, "question": value}), list(texts))]}
        yield "no completions", {name: [Payload(WorldState(task), value)]}
        yield "a completion that is no text", {name: [Payload(WorldState(task), ["a", [value]])]}
    yield "a dict for a payload", {name: [{"world_state": None, "actions": list(texts)}]}
    yield "payloads in lists", {name: [[Payload(WorldState(task), list(texts))]]}
