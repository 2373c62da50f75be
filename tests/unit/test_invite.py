"""An invite comes back as it was made, or is refused: whatever a mail, a person or a stranger did to it."""

import base64
import json
import zlib
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swarmd.network.invite import PREFIX, Invite, _checksum, decode, encode
from swarmd.system.exits import ConfigurationError

PEER = "/ip4/203.0.113.7/tcp/38751/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
GOOD = Invite(
    name="our-swarm",
    swarm_id="e31fd42b77b81a08200b07c2364d9f02",
    epoch=1795442207.0,
    round_seconds=60.0,
    shards=32,
    datasets="embedded",
    dialect="swarmd",
    peers=(PEER,),
    config_hash="ab" * 32,
    reasoning_gym="0.1.25",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
DATASETS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True),
            "weight": st.floats(1e-3, 1e6),
            "config": st.dictionaries(st.text(), JSON, max_size=3),
        }
    ),
    min_size=1, max_size=4, unique_by=lambda entry: entry["name"],
)  # fmt: skip
INVITES = st.builds(
    Invite,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    swarm_id=st.from_regex(r"[0-9a-f]{8,64}", fullmatch=True),
    epoch=st.floats(0, 4e9),
    round_seconds=st.floats(1, 86400),
    shards=st.integers(1, 1024),
    datasets=st.just("rl-swarm") | DATASETS.map(tuple),
    dialect=st.just("swarmd"),
    peers=st.lists(st.just(PEER), max_size=8).map(tuple),
    config_hash=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    reasoning_gym=st.just("0.1.25"),
    secret=st.none() | st.from_regex(r"[!-~]{32,128}", fullmatch=True),
)


def coded(body: bytes) -> str:
    """A word with a right checksum over whatever body."""
    return PREFIX + base64.urlsafe_b64encode(body + _checksum(body)).decode().rstrip("=")


def coded_fields(**changed: Any) -> str:
    fields = {**asdict(GOOD), **changed}
    return coded(b"\x01" + zlib.compress(json.dumps(fields).encode()))


@settings(max_examples=200, deadline=None)
@given(INVITES)
def test_an_invite_comes_back_as_it_was_made(invite: Invite) -> None:
    assert decode(encode(invite)) == invite


def test_an_invite_is_short_and_one_word_for_every_shell() -> None:
    peers = tuple(PEER.replace("203.0.113.7", f"203.0.113.{number}") for number in range(8))
    word = encode(replace(GOOD, peers=peers, secret="s" * 43))
    assert len(word) < 2048
    assert set(word) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_:")


def test_an_invite_of_a_mail_with_broken_lines_is_read() -> None:
    word = encode(GOOD)
    assert decode(f"  {word[:40]}\r\n {word[40:]}\n") == GOOD


@pytest.mark.parametrize(
    "pasted",
    ["'{}'", '"{}"', "\u2018{}\u2019", "sudo swarmd join '{}'\n", "swarmd join {}", "`sudo  swarmd join {}`"],
)
def test_an_invite_is_read_with_the_command_and_the_quotes_that_were_pasted_with_it(pasted: str) -> None:
    assert decode(pasted.format(encode(GOOD))) == GOOD


@settings(max_examples=500, deadline=None)
@given(st.text() | st.text().map(lambda text: PREFIX + text) | st.binary().map(lambda body: coded(b"\x01" + body)))
@example(PREFIX)
@example(coded(b"\x01"))
@example(coded(b"\x01" + zlib.compress(b"[" * 100_000)))
@example(coded(b"\x01" + zlib.compress(b"9" * 100_000)))
@example(coded(b"\x01" + zlib.compress(b" " * 10_000_000)))
@example(coded(b"\x01" + zlib.compress(b"{}") + b"more"))
@example(coded(b"\x01" + zlib.compress(b"[]")))
@example(PREFIX + "é")
def test_any_other_text_is_refused_and_never_an_error_of_the_program(text: str) -> None:
    with pytest.raises(ConfigurationError):
        decode(text)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_letter_or_a_lost_part_is_noticed(data: st.DataObject) -> None:
    word = encode(GOOD)
    at = data.draw(st.integers(0, len(word) - 1))
    changed = data.draw(
        st.sampled_from([word[:at], word[at + 1 :], word[:at] + word[at + 1 :]])
        | st.characters(codec="ascii").map(lambda letter: word[:at] + letter + word[at + 1 :])
    )
    try:
        assert decode(changed) == GOOD  # the same letter, or one that base64 reads alike
    except ConfigurationError as error:
        assert word[20:] not in str(error)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(asdict(GOOD))), JSON)
def test_a_field_of_a_wrong_kind_is_refused_or_one_that_can_be_made_again(field: str, value: Any) -> None:
    try:
        invite = decode(coded_fields(**{field: value}))
    except ConfigurationError:
        return
    assert decode(encode(invite)) == invite


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "my swarm"}, r"swarm\.name"),
        ({"name": None}, "names no swarm"),
        ({"swarm_id": "xyz"}, r"swarm\.id"),
        ({"swarm_id": None}, "names no swarm"),
        ({"epoch": -1}, r"coordinator\.epoch"),
        ({"round_seconds": 0.5}, r"coordinator\.round_seconds"),
        ({"shards": 0}, r"swarm\.shards"),
        ({"shards": True}, r"swarm\.shards"),
        ({"dialect": "klingon"}, r"swarm\.dialect"),
        ({"peers": ["/ip4/203.0.113.7/tcp/38751"]}, r"swarm\.peers\.0"),
        ({"peers": [PEER] * 33}, "33 peers"),
        ({"datasets": [{"name": "gcd"}]}, "without weight or config"),
        ({"datasets": []}, r"tasks\.datasets"),
        ({"config_hash": "ab"}, "configuration hash"),
        ({"secret": "short"}, "secret"),
        ({"secret": "s" * 43, "dialect": "genrl-0.3"}, "cannot keep a swarm private"),
        ({"more": 1}, "no swarmd wrote"),
    ],
)
def test_each_field_is_held_to_what_the_configuration_allows(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        decode(coded_fields(**changed))


def test_an_invite_of_a_newer_version_asks_for_an_upgrade() -> None:
    with pytest.raises(ConfigurationError, match="version 2.*upgrade swarmd"):
        decode(coded(b"\x02whatever"))


def test_what_is_no_invite_at_all_is_told_apart_from_a_damaged_one() -> None:
    with pytest.raises(ConfigurationError, match="no invite: an invite begins with swarmd:"):
        decode("https://example.org/invite")
    with pytest.raises(ConfigurationError, match="damaged.*whole"):
        decode(encode(GOOD)[:-3])


def test_the_secret_is_not_in_what_a_log_may_show() -> None:
    assert "s" * 43 not in repr(replace(GOOD, secret="s" * 43))


def test_a_mix_that_is_too_large_for_an_invite_is_refused_when_it_is_made() -> None:
    import random

    noise = random.Random(0)
    long = [{"name": f"set_{n}", "weight": 1.0, "config": {"text": f"{noise.getrandbits(800):x}"}} for n in range(900)]
    with pytest.raises(ConfigurationError, match="too large for an invite"):
        encode(replace(GOOD, datasets=tuple(long)))
