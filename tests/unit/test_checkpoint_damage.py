"""Damaged checkpoints: whatever is flipped, cut or missing, no wrong data is loaded and nothing raises."""

import logging
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.game.checkpoint import CheckpointStore
from swarmd.game.checkpoint_files import MANIFEST_FILE, STATE_FILE, Checkpoint

# Hundreds of examples: in memory where there is such a place.
FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
FILES = ("model.safetensors", "optimizer.safetensors", STATE_FILE, MANIFEST_FILE)


def contents(round: int) -> dict[str, bytes]:
    return {"model.safetensors": bytes([round]) * 300, "optimizer.safetensors": bytes(range(256)) * 2}


def save(store: CheckpointStore, round: int) -> Checkpoint:
    def writer(directory: Path) -> dict[str, object]:
        for name, data in contents(round).items():
            (directory / name).write_bytes(data)
        return {"round_done": round, "rate": 0.5}

    # Unsynced: a test that cuts no power need not wait for the disk.
    return store.save(round, writer, sync=False)


def two_rounds(directory: Path) -> Path:
    store = CheckpointStore(directory, keep=3)
    save(store, 1)
    return save(store, 2).path


def assert_intact(found: Checkpoint | None) -> int:
    assert found is not None
    assert found.state == {"round_done": found.round, "rate": 0.5}
    for name, data in contents(found.round).items():
        assert (found.path / name).read_bytes() == data
    return found.round


@settings(max_examples=200, deadline=None)
@given(file=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_any_flipped_byte_gives_the_same_contents_or_the_checkpoint_before(
    file: str, place: float, bits: int
) -> None:
    with tempfile.TemporaryDirectory(dir=FAST) as temporary:
        target = two_rounds(Path(temporary)) / file
        data = bytearray(target.read_bytes())
        data[int(place * len(data))] ^= bits
        target.write_bytes(data)
        assert assert_intact(CheckpointStore(Path(temporary), keep=3).latest()) in (1, 2)
        if file in contents(2):
            assert not target.exists()


@settings(max_examples=100, deadline=None)
@given(file=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), filler=st.binary(max_size=40))
def test_any_torn_file_gives_the_checkpoint_before(file: str, place: float, filler: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=FAST) as temporary:
        target = two_rounds(Path(temporary)) / file
        data = target.read_bytes()
        torn = data[: int(place * len(data))] + filler
        if torn.rstrip() == data.rstrip():
            return
        target.write_bytes(torn)
        assert assert_intact(CheckpointStore(Path(temporary), keep=3).latest()) == 1


@settings(max_examples=100, deadline=None)
@given(file=st.sampled_from((STATE_FILE, MANIFEST_FILE)), data=st.binary(max_size=200))
def test_any_json_file_replaced_by_anything_gives_the_checkpoint_before(file: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=FAST) as temporary:
        (two_rounds(Path(temporary)) / file).write_bytes(data)
        assert assert_intact(CheckpointStore(Path(temporary), keep=3).latest()) == 1


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_gives_the_checkpoint_before(tmp_path: Path, file: str) -> None:
    (two_rounds(tmp_path) / file).unlink()
    assert assert_intact(CheckpointStore(tmp_path, keep=3).latest()) == 1


@pytest.mark.parametrize("file", FILES)
def test_a_directory_in_a_files_place_gives_the_checkpoint_before(tmp_path: Path, file: str) -> None:
    path = two_rounds(tmp_path)
    (path / file).unlink()
    (path / file).mkdir()
    assert assert_intact(CheckpointStore(tmp_path, keep=3).latest()) == 1


def test_files_of_another_round_are_not_taken_for_this_one(tmp_path: Path) -> None:
    path = two_rounds(tmp_path)
    shutil.rmtree(path)
    shutil.copytree(tmp_path / "round-00000001", path)
    assert assert_intact(CheckpointStore(tmp_path, keep=3).latest()) == 1


def test_deeply_nested_json_gives_the_checkpoint_before(tmp_path: Path) -> None:
    (two_rounds(tmp_path) / MANIFEST_FILE).write_bytes(b"[" * 200_000)
    assert assert_intact(CheckpointStore(tmp_path, keep=3).latest()) == 1


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record)


def test_the_line_names_the_directory_and_what_is_wrong(tmp_path: Path) -> None:
    path = two_rounds(tmp_path)
    (path / "model.safetensors").write_bytes(b"half")
    records = Records()
    logging.getLogger("swarmd").addHandler(records)
    try:
        CheckpointStore(tmp_path, keep=3).latest()
    finally:
        logging.getLogger("swarmd").removeHandler(records)
    (record,) = records.seen
    assert record.levelno == logging.WARNING
    assert vars(record)["event_kind"] == "checkpoint_damaged"
    assert record.getMessage() == (
        f"checkpoint {path} is damaged: model.safetensors has 4 bytes, not 300; "
        "it is not used and now called damaged-round-00000002"
    )


def test_one_damaged_checkpoint_is_kept_for_a_look_and_no_more(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=5)
    for round in range(1, 5):
        path = save(store, round).path
        if round > 1:
            (path / STATE_FILE).unlink()
    assert assert_intact(CheckpointStore(tmp_path, keep=5).latest()) == 1
    left = sorted(entry.name for entry in tmp_path.iterdir())
    assert left == ["damaged-round-00000002", "round-00000001"]


def test_where_everything_is_damaged_there_is_no_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=5)
    store.pin(save(store, 1))
    save(store, 2)
    for path in tmp_path.iterdir():
        (path / MANIFEST_FILE).unlink()
    assert CheckpointStore(tmp_path, keep=5).latest() is None
    assert CheckpointStore(tmp_path, keep=5).best() is None
