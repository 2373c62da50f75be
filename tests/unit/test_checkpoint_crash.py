"""The checkpoint store under SIGKILL and on full disks: the real thing, in processes of their own."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swarmd.game.checkpoint import CheckpointStore

ROOT = Path(__file__).resolve().parents[2]


def content(round: int, file: str) -> bytes:
    return hashlib.shake_256(f"{file} {round}".encode()).digest(200_000)


def save_for_ever(directory: Path, report: int, sync_seconds: float) -> None:
    """The child: saves round after round, and reports each when save() has returned."""
    store = CheckpointStore(directory, keep=3, sync_seconds=sync_seconds)
    found = store.latest()
    round = found.round + 1 if found else 0

    def writer(into: Path) -> dict[str, int]:
        for file in ("model", "optimizer"):
            (into / file).write_bytes(content(round, file))
        return {"cursor": round}

    while True:
        checkpoint = store.save(round, writer)
        if round % 5 == 0:
            store.pin(checkpoint)
        os.write(report, round.to_bytes(8, "big"))
        round += 1


@pytest.mark.parametrize("sync_seconds", [0.0, 3600.0])
def test_a_kill_at_any_moment_loses_no_finished_round(tmp_path: Path, sync_seconds: float) -> None:
    chance = random.Random(20)
    finished = -1
    for _ in range(40):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(read)
                save_for_ever(tmp_path, write, sync_seconds)
            finally:
                os._exit(1)
        os.close(write)
        for _ in range(chance.randrange(4)):  # none: killed while it starts
            finished = int.from_bytes(os.read(read, 8), "big")
        time.sleep(chance.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the child ended by itself"
        while report := os.read(read, 8):
            finished = int.from_bytes(report, "big")
        os.close(read)
        store = CheckpointStore(tmp_path, keep=3)
        found = store.latest()
        if found is None:
            assert finished < 0
            continue
        # The one in work may have taken its name without a chance to report it.
        assert found.round in (finished, finished + 1)
        assert found.state == {"cursor": found.round}
        for file in ("model", "optimizer"):
            assert (found.path / file).read_bytes() == content(found.round, file)
        assert not [entry for entry in os.listdir(tmp_path) if entry.startswith((".", "damaged-"))]
        finished = found.round  # reported or not: the next child goes on from it
        best = store.best()
        assert best is None or best.round % 5 == 0
    assert finished > 40


FULL_DISK = """
import json, os, resource, sys
from pathlib import Path
import numpy
from safetensors.numpy import save_file
from swarmd.game.checkpoint import CheckpointFailed, CheckpointStore

directory, limit = Path(sys.argv[1]), int(sys.argv[2])

def writer(size):
    def write(into):
        save_file({"w": numpy.ones(size // 4, dtype=numpy.float32)}, into / "model.safetensors")
        (into / "optimizer").write_bytes(b"m" * (size // 4))
        return {}
    return write

store = CheckpointStore(directory, keep=3, sync_seconds=0.0)
for round in range(8):
    store.save(round, writer(900_000))
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
failures = []
for round in range(8, 11):
    try:
        store.save(round, writer(6_000_000))
    except CheckpointFailed as failure:
        failures.append(str(failure))
after_failures = store.latest().round, sorted(os.listdir(directory))
store.save(11, writer(900_000))
print(json.dumps([failures, after_failures, store.latest().round]))
"""


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def test_a_full_disk_is_a_failed_save_and_the_last_good_checkpoint_stays(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=4m tmpfs "$1" || exit 99; exec "$2" -c "$3" "$1" 0'
    outcome = run(["unshare", "-m", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, FULL_DISK])
    if outcome.returncode == 99 or "unshare" in outcome.stderr:
        pytest.skip(f"needs root and a mount namespace: {outcome.stderr.strip()}")
    assert outcome.returncode == 0, outcome.stderr
    failures, (latest, left), latest_at_the_end = json.loads(outcome.stdout)
    # Three of 1.1 MB and the one being written do not fit: the store made room, and no save of these failed.
    assert latest == 7
    assert len(failures) == 3
    for round, failure in zip((8, 9, 10), failures, strict=True):
        assert f"round {round} cannot be saved in {tmp_path}: No space left on device" in failure
        assert "MB free" in failure
    assert left == ["round-00000007"]
    assert latest_at_the_end == 11


def test_a_file_size_limit_is_a_failed_save_and_the_last_good_checkpoint_stays(tmp_path: Path) -> None:
    outcome = run([sys.executable, "-c", FULL_DISK, str(tmp_path), "2000000"])
    assert outcome.returncode == 0, outcome.stderr
    failures, (latest, left), latest_at_the_end = json.loads(outcome.stdout)
    assert latest == 7
    assert [failure.rpartition(": ")[2] for failure in failures] == ["File too large"] * 3
    assert left == ["round-00000005", "round-00000006", "round-00000007"]
    assert latest_at_the_end == 11
