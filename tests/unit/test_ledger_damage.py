"""A damaged or hostile ledger: set aside, and whatever is read can be booked, saved and told."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.commands.restarts import restart_json, restart_lines
from swarmd.system.ledger import backoff_seconds, described, note_end, note_start
from swarmd.system.ledger_file import LEDGER_FILE, End, Ledger, load, read, save
from swarmd.system.restart_history import history


@pytest.fixture(autouse=True)
def no_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)


def start(state: Path, invocation: str) -> None:
    note_start(state, "1", "boot1", invocation)


def stop(state: Path, invocation: str, cause: str, **more: Any) -> None:
    note_end(state, End(cause, invocation=invocation, **more), "1", "boot1")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b"{", b"[]", b'{"format": 2}', b"[" * 100_000, b"\xff\xfe",
     b'{"format":1,"serial":1,"starts":1,"totals":{},"uptime_s":NaN,"run":null,"stops":[]}',
     b'{"format":1,"serial":1,"starts":1,"totals":{},"uptime_s":0,"run":{"invocation":"x"},"stops":[]}'],
)  # fmt: skip
def test_a_damaged_ledger_is_set_aside_and_begun_anew(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / LEDGER_FILE).write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        read(tmp_path)
    assert note_start(tmp_path, "1", "boot1", "a").cause is None
    assert "begins anew" in caplog.text
    assert (tmp_path / f"{LEDGER_FILE}.damaged").read_bytes() == content
    assert load(tmp_path).starts == 1


def written(state: Path) -> dict[str, Any]:
    """A ledger with a run that goes on and two that have ended, as the file has it."""
    start(state, "a")
    stop(state, "a", "crash", phase="train", round=1, signal="KILL")
    start(state, "b")
    stop(state, "b", "config", exit_code=78)
    start(state, "c")
    document: dict[str, Any] = json.loads((state / LEDGER_FILE).read_text())
    return document


WRONG = [
    *[("stops", 0, name, value) for name in ("time", "started") for value in (
        "", "yesterday", "2026-11-23", "2026-11-23T10:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
        5, ["2026-11-23T10:00:00Z"])],
    *[("run", name, value) for name in ("started",) for value in ("2026-11-23T10:00:00", "soon", 7)],
    *[("run", name, value) for name in ("invocation", "boot_id", "version") for value in (None, 7, ["x"])],
    *[("run", name, value) for name in ("started_clock", "backoff_s") for value in (None, "1", True, "1e999", "NaN")],
    *[("stops", 1, name, value) for name in ("phase", "signal") for value in (3, {}, "x" * 10_000, "\ud800")],
    *[("stops", 1, name, value) for name in ("exit_code", "round") for value in ("78", 1.5, True, 10**30)],
    *[("stops", 1, name, value) for name in ("uptime_s", "backoff_s") for value in ("1e999", "-1e999", "NaN", 1e300)],
    *[("stops", 0, name, None) for name in ("time", "cause", "invocation", "boot_id", "version", "backoff_s")],
    *[(name, value) for name in ("serial", "starts", "uptime_s") for value in (None, "1", "1e999", "NaN", 1e300)],
    *[("totals", "crash", value) for value in (None, "1", 1.5, "1e999", 10**30)],
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_value_of_the_wrong_kind_is_damage(tmp_path: Path, wrong: tuple[Any, ...]) -> None:
    document = written(tmp_path)
    *places, name, value = wrong
    holder = document
    for place in places:
        holder = holder[place]
    assert name in holder
    holder[name] = "@@@" if value in ("1e999", "-1e999", "NaN") else value
    text = json.dumps(document).replace('"@@@"', str(value))  # numbers that no float can be written as
    (tmp_path / LEDGER_FILE).write_text(text)
    with pytest.raises(ValueError, match="is damaged"):
        read(tmp_path)
    assert load(tmp_path) == Ledger()
    assert (tmp_path / f"{LEDGER_FILE}.damaged").read_text() == text


@pytest.mark.parametrize(
    "content", [b'{"starts": "secretsecret"}', b"secretsecret", b"secretsecret \xff", b'"secretsecret"']
)
def test_what_the_damage_is_called_shows_nothing_of_the_file(tmp_path: Path, content: bytes) -> None:
    """Root reads it, and the service may have put a link to another file in its place."""
    (tmp_path / LEDGER_FILE).write_bytes(content)
    with pytest.raises(ValueError, match="is damaged") as told:
        read(tmp_path)
    assert "secretsecret" not in str(told.value)
    (tmp_path / LEDGER_FILE).write_text(json.dumps({**written(tmp_path), "starts": "secretsecret"}))
    with pytest.raises(ValueError, match="starts of its head is no whole number") as told:
        read(tmp_path)
    assert "secretsecret" not in str(told.value)


def test_a_pipe_in_place_of_the_ledger_holds_up_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LEDGER_FILE)
    with pytest.raises(ValueError, match="is damaged"):
        read(tmp_path)
    assert note_start(tmp_path, "1", "boot1", "a").cause is None


@pytest.mark.parametrize("phase", [3, ["x"], "x" * 10_000, "\ud800"])
def test_an_end_that_no_ledger_can_hold_does_not_damage_it(tmp_path: Path, phase: Any) -> None:
    start(tmp_path, "a")
    stop(tmp_path, "a", "crash", phase=phase, round="many")
    (booked,) = read(tmp_path).stops
    assert (booked.cause, booked.phase, booked.round) == ("crash", None, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([10**19, -(10**400)]) | st.floats()
    | st.text(st.characters(), max_size=12) | st.datetimes().map(str)
    | st.datetimes(timezones=st.timezones()).map(datetime.isoformat),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """(holder, key) of everything in a document."""
    if not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    return [place for key in keys for place in ((value, key), *places(value[key]))]


@given(st.data())
def test_a_ledger_with_wrong_values_never_stops_the_node_and_can_be_told(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    state = tmp_path_factory.mktemp("state")
    document = written(state)
    for _ in range(data.draw(st.integers(1, 3))):
        holder, key = data.draw(st.sampled_from(places(document)))
        if data.draw(st.booleans()):
            holder[key] = data.draw(JSON)
        elif isinstance(holder, dict) and data.draw(st.booleans()):
            holder[data.draw(st.text(max_size=8))] = holder.pop(key)
        else:
            del holder[key]
        if not places(document):
            break
    content = json.dumps(document).encode()
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, 2000)) % len(content)
        content = content[:place] + data.draw(st.binary(max_size=3)) + content[place + 1 :]
    (state / LEDGER_FILE).write_bytes(content)
    found = load(state)
    tell(found)
    save(state, found)
    previous = note_start(state, "1", "boot1", "d")
    assert 0 <= backoff_seconds(previous) <= 300
    assert described(previous)
    stop(state, "d", "crash")
    tell(read(state))
    assert read(state).stops[-1].invocation == "d"


def tell(ledger: Ledger) -> None:
    told = history([], ledger, datetime.now(UTC), None)
    assert list(restart_lines(told))
    assert json.dumps(restart_json(told), ensure_ascii=False, allow_nan=False).encode()
