"""The link between processes: what arrives is what was sent, every call ends, and bad frames are refused."""

import socket
import struct
import threading

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.system.link import Link, LinkClosed, LinkError, LinkProtocolError, LinkTimeout

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture
def pair():
    ours, theirs = Link.pair(max_frame=1_000_000)
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def raw():
    """A link, and the bare socket at its other end."""
    ours, theirs = socket.socketpair()
    link = Link(ours, max_frame=1_000_000)
    yield link, theirs
    link.close()
    theirs.close()


def framed(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


@settings(max_examples=150, deadline=None)
@given(st.lists(PLAIN, min_size=1, max_size=3))
def test_messages_arrive_as_they_were_sent_and_in_order(messages):
    ours, theirs = Link.pair()
    for message in messages:
        ours.send(message, 1)
    for message in messages:
        assert theirs.receive(1) == message
    ours.close()
    theirs.close()


def test_text_with_lone_surrogates_and_nul_arrives_as_it_is(pair):
    ours, theirs = pair
    ours.send("a\ud800\0\udfff", 1)
    assert theirs.receive(1) == "a\ud800\0\udfff"


def test_a_message_larger_than_the_socket_s_buffer_arrives_whole(pair):
    ours, theirs = pair
    sender = threading.Thread(target=ours.send, args=("x" * 900_000, 5))
    sender.start()
    assert theirs.receive(5) == "x" * 900_000
    sender.join()


def test_receiving_from_a_silent_process_ends_at_the_deadline_and_can_be_repeated(raw):
    link, other = raw
    frame = framed(msgpack.packb("late"))
    other.send(frame[:3])
    with pytest.raises(LinkTimeout, match="no answer"):
        link.receive(0.05)
    other.send(frame[3:6])
    with pytest.raises(LinkTimeout):
        link.receive(0)
    other.send(frame[6:])
    assert link.receive(0) == "late"


def test_sending_to_a_process_that_does_not_read_ends_at_the_deadline_and_closes_the_link(pair):
    ours, _ = pair
    with pytest.raises(LinkTimeout, match="read nothing"):
        ours.send("x" * 999_000, 0.05)
    with pytest.raises(LinkClosed):
        ours.send("y", 1)
    with pytest.raises(LinkClosed):
        ours.receive(1)


def test_the_end_of_the_other_process_is_noticed_at_once(pair):
    ours, theirs = pair
    theirs.close()
    with pytest.raises(LinkClosed, match="closed the link"):
        ours.receive(10)
    with pytest.raises(LinkClosed):
        ours.send("x", 10)


def test_half_a_frame_before_the_end_is_no_message(raw):
    link, other = raw
    other.send(framed(msgpack.packb("whole"))[:-1])
    other.close()
    with pytest.raises(LinkClosed):
        link.receive(1)


def test_a_message_longer_than_a_frame_is_not_sent(pair):
    ours, theirs = pair
    with pytest.raises(LinkProtocolError, match="1000000"):
        ours.send("x" * 1_000_001, 1)
    ours.send("still works", 1)
    assert theirs.receive(1) == "still works"


def test_a_type_that_is_not_plain_data_is_not_sent(pair):
    with pytest.raises(TypeError):
        pair[0].send({"a": object()}, 1)


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack("!I", 1_000_001),
        b"\xff\xff\xff\xff",
        framed(b""),
        framed(b"\xc1"),
        framed(b"\xdd\xff\xff\xff\xff"),
        framed(b"\xdb\x7f\xff\xff\xffab"),
        framed(b"\xd4\x01a"),
        framed(b"\xd6\xff\0\0\0\1"),
        framed(b"\xc7\x0c\xff" + bytes(12)),
        framed(b"\x81\x90\xc0"),
        framed(b"\x81\x01\x02"),
        framed(b"\x91" * 100_000 + b"\xc0"),
        framed(b"\xc0\xc0"),
        framed(b"\xa2\xff\xfe"),
    ],
    ids=[
        "too long", "4 GiB", "empty", "no type", "2**32 items", "2 GiB text", "extension", "timestamp", "timestamp96",
        "list as key", "int as key", "100,000 deep", "two objects", "no UTF-8",
    ],
)  # fmt: skip
def test_a_frame_that_is_not_ours_is_refused_and_closes_the_link(raw, frame):
    link, other = raw
    other.send(frame)
    with pytest.raises(LinkProtocolError):
        link.receive(1)
    with pytest.raises(LinkClosed):
        link.receive(1)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_whatever_bytes_come_receiving_ends_with_a_message_or_a_link_error(data):
    ours, theirs = socket.socketpair()
    link = Link(ours, max_frame=1000)
    theirs.send(data)
    theirs.close()
    try:
        while True:
            link.receive(1)
    except LinkError:
        pass
    finally:
        link.close()
