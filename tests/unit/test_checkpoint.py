"""The checkpoint store: what it keeps, what it reads back, what it refuses."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import xxhash
from safetensors.numpy import load_file, save_file

from swarmd.game.checkpoint import CheckpointFailed, CheckpointStore, snapshot
from swarmd.game.checkpoint_files import MANIFEST_FILE, STATE_FILE
from swarmd.system.exits import ConfigurationError


def weights(round: int) -> dict[str, numpy.ndarray]:
    return {"w": numpy.full((64, 8), round, dtype=numpy.float32), "b": numpy.arange(16, dtype=numpy.float32)}


def writer(round: int, **state: Any) -> Callable[[Path], dict[str, Any]]:
    def write(directory: Path) -> dict[str, Any]:
        save_file(weights(round), directory / "model.safetensors")
        (directory / "optimizer.safetensors").write_bytes(f"moments of round {round}".encode() * 50)
        return {"seed": 7, "cursor": round * 8, "best": 0.25, **state}

    return write


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_what_was_saved_is_read_back_by_a_new_store(tmp_path: Path) -> None:
    saved = CheckpointStore(tmp_path / "c", keep=3).save(12, writer(12))
    found = CheckpointStore(tmp_path / "c", keep=3).latest()
    assert found == saved
    assert found.round == 12
    assert found.state == {"seed": 7, "cursor": 96, "best": 0.25}
    assert (load_file(found.path / "model.safetensors")["w"] == 12).all()
    assert (found.path / "optimizer.safetensors").read_bytes() == b"moments of round 12" * 50


def test_an_empty_store_has_no_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "c", keep=3)
    assert store.latest() is None
    assert store.best() is None


def test_only_the_last_rounds_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3, sync_seconds=0)
    for round in range(6):
        store.save(round, writer(round))
    assert names(tmp_path) == ["round-00000003", "round-00000004", "round-00000005"]


def test_the_last_synced_checkpoint_outlives_the_unsynced_ones_after_it(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2, sync_seconds=3600)
    for round in range(6):
        store.save(round, writer(round))
    # The first one of a process is synced, the others are not yet.
    assert names(tmp_path) == ["round-00000000", "round-00000004", "round-00000005"]
    store.save(6, writer(6), sync=True)
    store.save(7, writer(7))
    store.save(8, writer(8))
    assert names(tmp_path) == ["round-00000006", "round-00000007", "round-00000008"]
    store.flush()
    store.save(9, writer(9))
    store.save(10, writer(10))
    assert names(tmp_path) == ["round-00000008", "round-00000009", "round-00000010"]


def test_files_and_directories_are_for_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        checkpoint = CheckpointStore(tmp_path / "c", keep=1).save(0, writer(0))
    finally:
        os.umask(before)
    for path in [tmp_path / "c", checkpoint.path, *checkpoint.path.iterdir()]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_leftovers_of_an_interrupted_process_are_removed_at_the_start(tmp_path: Path) -> None:
    CheckpointStore(tmp_path, keep=3).save(1, writer(1))
    for leftover in (".writing-2-4711", ".removing-round-00000000"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "model.safetensors").write_bytes(b"half")
    CheckpointStore(tmp_path, keep=3)
    assert names(tmp_path) == ["round-00000001"]


def test_a_round_saved_twice_is_read_as_its_second_save(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    store.save(4, writer(4))
    store.save(5, writer(5))
    store.save(5, writer(5, rolled_back=True))
    found = store.latest()
    assert found is not None
    assert (found.round, found.state.get("rolled_back")) == (5, True)
    assert names(tmp_path)[-2:] == ["round-00000005", "round-00000005-1"]


def test_rounds_of_any_size_are_ordered_as_numbers(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=4)
    for round in (99_999_999, 100_000_000, 4_711_000_000):
        store.save(round, writer(1))
    found = store.latest()
    assert found is not None and found.round == 4_711_000_000


def test_the_writer_failing_leaves_nothing_behind_and_is_not_hidden(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    store.save(1, writer(1))

    def broken(directory: Path) -> dict[str, Any]:
        (directory / "model.safetensors").write_bytes(b"half")
        raise KeyError("layer")

    with pytest.raises(KeyError, match="layer"):
        store.save(2, broken)
    assert names(tmp_path) == ["round-00000001"]


def test_a_state_that_is_not_finite_is_refused_and_the_checkpoint_before_stays(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    store.save(1, writer(1))
    with pytest.raises(CheckpointFailed, match="round 2 cannot be saved"):
        store.save(2, writer(2, learning_rate_scale=float("nan")))
    found = store.latest()
    assert found is not None and found.round == 1
    assert names(tmp_path) == ["round-00000001"]


def test_the_pinned_checkpoint_outlives_its_round(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2, sync_seconds=0)
    store.pin(store.save(1, writer(1)))
    for round in range(2, 6):
        store.save(round, writer(round))
    assert names(tmp_path) == ["best-00000001", "round-00000004", "round-00000005"]
    best = CheckpointStore(tmp_path, keep=2).best()
    assert best is not None and best.round == 1
    assert (load_file(best.path / "model.safetensors")["w"] == 1).all()


def test_a_pin_replaces_the_one_before(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2, sync_seconds=0)
    first, second = store.save(1, writer(1)), store.save(2, writer(2))
    store.pin(second)
    store.pin(first)  # an older round may be the better one
    store.pin(first)
    assert names(tmp_path) == ["best-00000001", "round-00000001", "round-00000002"]


def test_a_pinned_checkpoint_takes_no_space_while_its_round_is_there(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    checkpoint = store.save(1, writer(1))
    best = store.pin(checkpoint)
    for file in checkpoint.path.iterdir():
        assert file.samefile(best.path / file.name)


def test_a_checkpoint_that_is_gone_cannot_be_pinned(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    checkpoint = store.save(1, writer(1))
    shutil.rmtree(checkpoint.path)
    with pytest.raises(CheckpointFailed, match="round-00000001 is not there any more"):
        store.pin(checkpoint)


def test_the_best_is_used_where_every_newer_round_is_damaged(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2, sync_seconds=0)
    store.pin(store.save(1, writer(1)))
    for round in (2, 3):
        (store.save(round, writer(round)).path / "model.safetensors").unlink()
    found = store.latest()
    assert found is not None
    assert found.path.name == "best-00000001"


def rewrite_manifest(path: Path, **changes: Any) -> None:
    """A manifest as another version of swarmd would write it: other values, and the checksum right."""
    body = json.loads((path / MANIFEST_FILE).read_text())
    del body["checksum"]
    body.update(changes)
    body["checksum"] = xxhash.xxh3_128_hexdigest(json.dumps(body, sort_keys=True).encode())
    (path / MANIFEST_FILE).write_text(json.dumps(body))


def test_a_checkpoint_of_another_format_stops_the_start_and_is_left_alone(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    store.save(1, writer(1))
    path = store.save(2, writer(2)).path
    rewrite_manifest(path, format=2)
    with pytest.raises(ConfigurationError, match="round-00000002: this checkpoint has format 2"):
        store.latest()
    assert path.exists()


def test_a_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("")
    with pytest.raises(ConfigurationError, match=f"{tmp_path / 'c'}: no directory for checkpoints"):
        CheckpointStore(tmp_path / "c", keep=3)


@pytest.fixture
def unprivileged(tmp_path: Path) -> Iterator[Path]:
    """A directory that the rest of the test cannot write; root becomes nobody for it (files ignore root)."""
    if os.getuid() == 0:
        for parent in [tmp_path, *tmp_path.parents[:3]]:
            parent.chmod(parent.stat().st_mode | 0o011)
        os.chown(tmp_path, 65534, 65534)
        os.seteuid(65534)
    yield tmp_path
    for directory in [p for p in tmp_path.rglob("*") if p.is_dir()]:
        directory.chmod(0o700)
    if os.getuid() == 0:
        os.seteuid(0)


def test_a_read_only_directory_is_a_failed_save_and_still_readable(unprivileged: Path) -> None:
    directory = unprivileged / "c"
    store = CheckpointStore(directory, keep=3)
    store.save(1, writer(1))
    (store.save(2, writer(2)).path / STATE_FILE).write_bytes(b"{}")
    directory.chmod(0o500)
    with pytest.raises(CheckpointFailed, match="round 3 cannot be saved in .*: Permission denied"):
        store.save(3, writer(3))
    found = store.latest()
    assert found is not None and found.round == 1


def test_a_checkpoint_of_another_user_is_not_taken_for_a_damaged_one(unprivileged: Path) -> None:
    store = CheckpointStore(unprivileged / "c", keep=3)
    path = store.save(1, writer(1)).path
    (path / "model.safetensors").chmod(0o000)
    with pytest.raises(ConfigurationError, match="model.safetensors: permission denied"):
        store.latest()
    assert path.exists()


def test_a_reader_gets_a_whole_checkpoint_while_the_node_goes_on_saving(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "c", keep=1, sync_seconds=3600)
    store.save(0, writer(0))
    stop = threading.Event()

    def train() -> None:
        round = 1
        while not stop.is_set():
            store.save(round, writer(round))
            round += 1

    thread = threading.Thread(target=train)
    thread.start()
    try:
        seen = []
        for attempt in range(30):
            into = tmp_path / f"reader-{attempt}"
            into.mkdir()
            found = snapshot(tmp_path / "c", into)
            assert found is not None
            assert (load_file(found.path / "model.safetensors")["w"] == found.round).all()
            assert found.state["cursor"] == found.round * 8
            seen.append(found.round)
    finally:
        stop.set()
        thread.join()
    assert seen == sorted(seen)


def test_a_reader_changes_nothing_and_passes_over_a_damaged_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "c", keep=3)
    store.save(1, writer(1))
    (store.save(2, writer(2)).path / "optimizer.safetensors").write_bytes(b"moments of round 2")
    before = names(tmp_path / "c")
    (tmp_path / "r").mkdir()
    found = snapshot(tmp_path / "c", tmp_path / "r")
    assert found is not None and found.round == 1
    assert names(tmp_path / "c") == before
    (tmp_path / "empty").mkdir()
    assert snapshot(tmp_path / "empty", tmp_path / "r") is None
    assert snapshot(tmp_path / "missing", tmp_path / "r") is None
