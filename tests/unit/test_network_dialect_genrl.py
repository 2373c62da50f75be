"""Records of GenRL swarms: GenRL nodes read ours, we read theirs, and our signature behind them harms nobody."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import msgpack
import pytest
from genrl.communication.communication import Payload as GenrlPayload
from genrl.serialization.msgpack_utils import _msgpack_decode, _msgpack_encode
from genrl.state.game_tree import WorldState as GenrlWorldState

from swarmd.network import strict_msgpack, strict_tlv
from swarmd.network.dialects import Dialect
from swarmd.network.dialects.genrl_03 import Genrl03Dialect
from swarmd.network.dialects.provenance_mark import read_mark, write_mark
from swarmd.network.genrl_objects import Payload, WorldState
from swarmd.network.records import ClaimedGroup
from swarmd.network.refusals import Reason, Refused
from swarmd.network.strict_bounds import Bounds
from swarmd.tasks.generator import Generator
from swarmd.tasks.provenance import Provenance, Task
from tests.unit.dialect_records import (
    EXPIRES,
    ROUND,
    STRANGER,
    dialect,
    genrl_record,
    group,
    groups,
    identity,
    read,
    written,
)

LEGACY = ["genrl-0.3", "genrl-0.1"]
WRITERS = {"genrl-0.3": strict_msgpack.write_genrl, "genrl-0.1": strict_tlv.write}


def body_of(name: str, record: dict[Any, Any]) -> bytes:
    """What a GenRL node of this version publishes; its batch ids are hexadecimal from 0.3 on."""
    if name == "genrl-0.3":
        record = {f"{batch_id:032x}": payloads for batch_id, payloads in record.items()}
    return WRITERS[name](record)


def unpacked(value: bytes) -> Any:
    """What GenRL 0.3's HivemindBackend makes of a value."""
    unpacker = msgpack.Unpacker(object_hook=_msgpack_decode, raw=False, max_buffer_size=100 * 2**20)
    unpacker.feed(value)
    return next(unpacker)


@pytest.mark.parametrize("name", LEGACY)
def test_what_is_published_is_read_as_signed(name: str) -> None:
    swarm = dialect(name)
    record = read(written(swarm), swarm)
    assert (record.peer_id, record.round, record.dialect) == (identity().peer_id, ROUND, name)
    assert (record.signed, record.model, record.expires) == (True, "qwen2", EXPIRES)
    assert record.groups == tuple(
        ClaimedGroup(one.completions, one.task.provenance, one.slot, None, one.mean_logprobs) for one in groups(3)
    )


def test_genrl_0_3_reads_our_records() -> None:
    sent = group(1, note=(1, (2, 3)), nothing=None, exact=True)
    seen = unpacked(written(dialect("genrl-0.3"), [sent]))
    ((batch_id, (payload,)),) = seen.items()
    assert batch_id == hashlib.md5(sent.task.question.encode()).hexdigest()
    assert type(payload) is GenrlPayload
    assert type(payload.world_state) is GenrlWorldState
    assert payload.actions == list(sent.completions)
    assert payload.metadata is payload.world_state.opponent_states is payload.world_state.personal_states is None
    task = payload.world_state.environment_states
    assert (task["question"], task["answer"]) == (sent.task.question, "6")
    metadata = task["metadata"]
    assert (metadata["source_dataset"], metadata["source_index"]) == ("products", 3)
    assert (metadata["note"], metadata["nothing"], metadata["exact"]) == ([1, [2, 3]], None, True)
    assert type(metadata["swarmd"]) is str


def test_we_read_what_genrl_0_3_packs() -> None:
    state = GenrlWorldState({"question": "q1", "answer": "1", "metadata": {}}, None, None)
    packer = msgpack.Packer(use_bin_type=True, default=_msgpack_encode)
    value = packer.pack({hashlib.md5(b"q1").hexdigest(): [GenrlPayload(state, ["a", "b"], None)]})
    record = read(value, dialect("genrl-0.3"), subkey=STRANGER)
    assert record.groups == (ClaimedGroup(("a", "b"), question="q1"),)
    assert (record.signed, record.model, record.size) == (False, "", len(value))


@pytest.mark.parametrize("name", LEGACY)
def test_two_tasks_with_one_question_share_their_batch_id(name: str) -> None:
    swarm = dialect(name)
    first = group(1)
    second = dataclasses.replace(first, slot=9)
    assert [one.slot for one in read(written(swarm, [first, second]), swarm).groups] == [1, 9]


@pytest.mark.parametrize("reader", LEGACY)
@pytest.mark.parametrize("writer", LEGACY)
def test_what_is_read_is_told_by_its_bytes(writer: str, reader: str) -> None:
    assert read(written(dialect(writer)), dialect(reader)).dialect == writer


@pytest.mark.parametrize("name", LEGACY)
def test_records_of_other_dialects_are_told_by_their_bytes_too(name: str) -> None:
    record = read(body_of(name, genrl_record(["a"])), dialect("swarmd"))
    assert (record.dialect, record.signed) == (name, False)
    with pytest.raises(Refused, match="bad-signature"):  # signed for a key of the own dialect's
        read(written(dialect("swarmd")), dialect(name))


@pytest.mark.parametrize("name", LEGACY)
def test_a_signature_counts_only_in_its_own_place(name: str) -> None:
    swarm = dialect(name)
    value = written(swarm)
    elsewhere: list[tuple[dict[str, Any], Reason]] = [
        ({"round": ROUND + 1}, Reason.BAD_SIGNATURE),
        ({"expires": EXPIRES + 1}, Reason.BAD_SIGNATURE),
        ({"subkey": identity(1).peer_id}, Reason.OTHER_PEER),
        ({"key": "8"}, Reason.WRONG_KEY),
    ]
    for place, reason in elsewhere:
        with pytest.raises(Refused) as refused:
            read(value, swarm, **place)
        assert refused.value.reason == reason


@pytest.mark.parametrize("name", LEGACY)
def test_what_follows_an_object_is_our_signature_or_nothing(name: str) -> None:
    swarm = dialect(name)
    body = body_of(name, genrl_record(["a"]))
    assert read(body, swarm).signed is False
    signed = written(swarm)
    tail = signed[signed.index(b"\xc1swarmd\0") :]
    assert len(tail) == 568
    for bad in (b"TRAILER" * 9, tail + b"\0", tail[:-1], tail[:8], b"\0", tail[:9] + b"\xff\xff"):
        with pytest.raises(Refused, match="not-decodable"):
            read(body + bad, swarm)
    with pytest.raises(Refused, match="bad-signature"):
        read(body + tail, swarm)
    with pytest.raises(Refused, match="other-version"):
        read(body + tail[:8] + b"\2" + tail[9:], swarm)


@pytest.mark.parametrize("name", LEGACY)
@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (genrl_record(["a"], question=""), Reason.WRONG_SHAPE),
        (genrl_record(["a"], question=None), Reason.WRONG_SHAPE),
        (genrl_record(["a"], question="q" * 16385), Reason.WRONG_SHAPE),
        (genrl_record([]), Reason.WRONG_SHAPE),
        (genrl_record(None), Reason.WRONG_SHAPE),
        (genrl_record(["a"] * 65), Reason.TOO_MANY_COMPLETIONS),
        (genrl_record(["a" * 8193]), Reason.COMPLETION_TOO_LONG),
        ({1: []} | {1 + batch: payloads for batch, payloads in genrl_record(["a"]).items()}, Reason.WRONG_BATCH_ID),
        ({1: [Payload(WorldState(None), ["a"])]}, Reason.WRONG_SHAPE),
        ({1: [Payload({"environment_states": {}}, ["a"])]}, Reason.WRONG_SHAPE),
        ({1: [WorldState({})]}, Reason.WRONG_SHAPE),
        ({1: Payload()}, Reason.WRONG_SHAPE),
        ({number: [] for number in range(65)}, Reason.TOO_MANY_GROUPS),
        ({batch: payloads * 65 for batch, payloads in genrl_record(["a"]).items()}, Reason.TOO_MANY_GROUPS),
    ],
    ids=str,
)
def test_a_record_of_another_shape_is_refused(name: str, record: dict[Any, Any], reason: Reason) -> None:
    with pytest.raises(Refused) as refused:
        read(body_of(name, record), dialect(name))
    assert refused.value.reason == reason


@pytest.mark.parametrize("name", LEGACY)
def test_answers_and_metadata_of_strangers_are_not_kept(name: str) -> None:
    record = read(body_of(name, genrl_record(["a"], metadata={"problem": "exit()", "swarmd": 5})), dialect(name))
    assert record.groups == (ClaimedGroup(("a",), question="q1"),)


MARK = "1 7 reasoning_gym products c0ffee 1001 3 qwen2 0,256"


def test_a_mark_says_where_a_task_comes_from() -> None:
    one = group(1, completions=2)
    assert write_mark(dataclasses.replace(one, slot=7), "qwen2") == MARK
    mark = read_mark(MARK, 2)
    assert mark is not None
    assert (mark.slot, mark.provenance, mark.model) == (7, one.task.provenance, "qwen2")
    assert mark.mean_logprobs == one.mean_logprobs


def test_a_mark_may_hold_any_name() -> None:
    place = Provenance("my.package:factory", "a b%20 ü", "-", 0, 1)
    odd = dataclasses.replace(group(1), task=Task(place, "q", None, {}), mean_logprobs=None)
    mark = read_mark(write_mark(odd, ""), 4)
    assert mark is not None
    assert (mark.provenance, mark.model, mark.mean_logprobs) == (place, "", None)


@pytest.mark.parametrize(
    "text",
    [
        None, {}, "", "1", MARK + " more", "2" + MARK[1:], "x" * 3000, MARK.replace(" 7 ", " -7 "),
        MARK.replace(" 7 ", " ٧ "), MARK.replace(" 7 ", " 262144 "), MARK.replace(" 7 ", " " + "9" * 500 + " "),
        MARK.replace("1001", "2147483648"), MARK.replace(" 3 ", " 0 "), MARK.replace("products", "%ff"),
        MARK.replace("products", ""), MARK.replace("products", "p" * 129), MARK.replace("qwen2", "%1b[2J"),
        MARK.replace("0,", "-1,"), MARK.replace("0,", "0,0,"), MARK.replace(",256", ",32769"), MARK.replace("0,", "x,"),
    ],
)  # fmt: skip
def test_what_is_no_mark_is_passed_over(text: Any) -> None:
    assert read_mark(text, 2) is None


@pytest.mark.parametrize("name", LEGACY)
@pytest.mark.parametrize("bad", [{1, 2}, 2**63, b"bytes", "\ud800", [[[[[[[[[[1]]]]]]]]]], 1j, float("nan")], ids=ascii)
def test_a_task_that_genrl_could_not_take_is_left_out(name: str, bad: Any) -> None:
    swarm: Dialect = dialect(name)
    encoded = swarm.encode([group(0, bad=bad), group(1)], ROUND, identity(), EXPIRES)
    assert (encoded.kept, encoded.left_out) == (1, 1)


def test_numbers_as_keys_become_text() -> None:
    seen = unpacked(written(dialect("genrl-0.3"), [group(1, colours={1: "red"})]))
    ((payload,),) = seen.values()
    assert payload.world_state.environment_states["metadata"]["colours"] == {"1": "red"}


@pytest.mark.parametrize("name", LEGACY)
@pytest.mark.parametrize("dataset", ["basic_arithmetic", "countdown", "graph_color", "knights_knaves", "leg_counting"])
def test_tasks_of_reasoning_gym_can_be_shared(name: str, dataset: str) -> None:
    generator = Generator(dataset, {}, "tasks.datasets[0]")
    question, answer, metadata = generator.make(5, 1)
    place = Provenance("reasoning_gym", dataset, generator.config_hash, 5, 1)
    one = dataclasses.replace(group(1), task=Task(place, question, answer, metadata))
    swarm = dialect(name)
    (claimed,) = read(written(swarm, [one]), swarm).groups
    assert claimed.provenance == place


def test_a_reader_may_be_given_other_limits() -> None:
    strict = dataclasses.replace(dialect("genrl-0.3").limits, completion_chars=10)
    with pytest.raises(Refused, match="20 characters, 10 are taken"):
        read(written(dialect("genrl-0.3")), dialect("genrl-0.3"), limits=strict)
    assert Genrl03Dialect().parse(body_of("genrl-0.3", {}), Bounds()).values == 1
