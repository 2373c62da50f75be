"""The status file: its keys are a promise, and a dead node's file does not say that it trains."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swarmd.monitor.status import (
    CheckpointStatus,
    ChildStatus,
    HeldoutStatus,
    MemoryStatus,
    ModelStatus,
    NetworkStatus,
    PeersStatus,
    RewardStatus,
    Status,
    StatusError,
    StatusFile,
    read_status,
)

ROOT = Path(__file__).resolve().parents[2]

FULL = Status(
    state="training",
    phase="generate",
    round=12,
    rounds_done=13,
    peer_id="12D3Koo",
    name="brave badger",
    uptime_s=61.5,
    model=ModelStatus("embedded", 1_200_000, "fp32"),
    reward=RewardStatus(0.5, 0.44),
    heldout=HeldoutStatus(0.34, 0.44, 0.45, 10),
    signal_share=0.7,
    tokens_per_s=3000.0,
    peers=PeersStatus(3, 2),
    network=NetworkStatus("trial", "0" * 32, 3, 5, True, ("/ip4/192.0.2.7/tcp/38751/p2p/Qm",), 0.25, 10, 20),
    admitted=7,
    rejected={"expired": 1},
    memory=MemoryStatus(1, 2, 3, 4),
    checkpoint=CheckpointStatus(12, "/var/lib/swarmd/checkpoints/round-00000012", "2026-01-01T00:00:00Z"),
    restarts={"crash": 1},
    children={"scorer": ChildStatus(4711, 0)},
)

KEYS = ["state", "phase", "round", "rounds_done", "peer_id", "name", "role", "uptime_s", "model", "reward", "heldout"]
KEYS += ["signal_share", "tokens_per_s", "peers", "network", "admitted", "rejected", "memory", "checkpoint"]
KEYS += ["restarts", "children"]
PARTS = {
    "model": {"name", "parameters", "plan"},
    "reward": {"last", "mean_100"},
    "heldout": {"base", "last", "best", "round"},
    "peers": {"seen", "used"},
    "network": {
        "swarm", "swarm_id", "connected", "known", "reachable", "addresses", "clock_skew_s", "bytes_in", "bytes_out",
        "problem", "disagreement",
    },
    "memory": {"used", "limit", "peak", "predicted"},
    "checkpoint": {"round", "path", "time"},
}


def test_the_keys_are_those_that_were_promised(tmp_path: Path) -> None:
    StatusFile(tmp_path / "status.json").write(FULL)
    found = read_status(tmp_path)
    assert list(found) == KEYS
    for part, keys in PARTS.items():
        assert set(found[part]) == keys
    assert found["children"] == {"scorer": {"pid": 4711, "restarts": 0}}
    assert found["rejected"] == {"expired": 1}
    assert (found["state"], found["round"], found["heldout"]["best"]) == ("training", 12, 0.45)


def test_a_node_that_has_just_begun_has_every_key_too(tmp_path: Path) -> None:
    StatusFile(tmp_path / "status.json").write(Status("starting"))
    assert list(read_status(tmp_path)) == KEYS


def test_a_number_that_is_not_finite_is_null(tmp_path: Path) -> None:
    status = Status("training", tokens_per_s=math.inf, reward=RewardStatus(math.nan))
    StatusFile(tmp_path / "status.json").write(status)
    found = json.loads((tmp_path / "status.json").read_text(), parse_constant=pytest.fail)
    assert found["tokens_per_s"] is None
    assert found["reward"]["last"] is None


def test_everybody_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        StatusFile(tmp_path / "status.json").write(FULL)
    finally:
        os.umask(before)
    assert (tmp_path / "status.json").stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["status.json"]


def test_it_is_written_seldom_unless_forced(tmp_path: Path) -> None:
    file = StatusFile(tmp_path / "status.json", interval=3600)
    for round in range(3):
        file.write(Status("training", round=round))
    assert read_status(tmp_path)["round"] == 0
    file.write(Status("stopping", round=3), force=True)
    assert read_status(tmp_path)["round"] == 3


def test_after_the_interval_it_is_written_again(tmp_path: Path) -> None:
    file = StatusFile(tmp_path / "status.json", interval=0.05)
    file.write(Status("training", round=1))
    time.sleep(0.06)
    file.write(Status("training", round=2))
    assert read_status(tmp_path)["round"] == 2


def test_a_state_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'idle' is not a state; the states are starting, training"):
        StatusFile(tmp_path / "status.json").write(Status("idle"))


def test_a_disk_that_refuses_is_no_error(tmp_path: Path) -> None:
    StatusFile(tmp_path / "missing" / "status.json").write(FULL)
    assert os.listdir(tmp_path) == []


WRITER = """
import sys, time
from pathlib import Path
from swarmd.monitor.status import Status, StatusFile
StatusFile(Path(sys.argv[1])).write(Status(sys.argv[2], phase="train"))
print("written", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("state", "after"), [("training", "stopped"), ("starting", "stopped"), ("failed", "failed")]
)
def test_the_status_of_a_killed_node_says_stopped(tmp_path: Path, state: str, after: str) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "status.json"), state]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert read_status(tmp_path)["state"] == state
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie is dead, too
        assert read_status(tmp_path)["state"] == after
    found = read_status(tmp_path)
    assert (found["state"], found["phase"]) == (after, "train")


def test_another_process_with_the_same_number_is_not_the_node(tmp_path: Path) -> None:
    StatusFile(tmp_path / "status.json").write(FULL)
    document = json.loads((tmp_path / "status.json").read_text())
    document["process"]["started_ticks"] -= 1
    (tmp_path / "status.json").write_text(json.dumps(document))
    assert read_status(tmp_path)["state"] == "stopped"


def test_no_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StatusError, match="status.json does not exist: no swarmd has run .* `swarmd run`"):
        read_status(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'{"state": "training"}',
        b'{"state": 1, "process": {}}',
        b'{"state": [], "process": {}}',
        b"\xff",
        b"[" * 99_999,
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "status.json").write_bytes(content)
    with pytest.raises(StatusError, match="status.json is not a status file"):
        read_status(tmp_path)


@pytest.mark.parametrize("process", [{}, {"pid": "1"}, {"pid": -1, "started_ticks": None}, {"pid": 10**30}])
def test_a_process_that_makes_no_sense_is_a_stopped_one(tmp_path: Path, process: dict[str, object]) -> None:
    (tmp_path / "status.json").write_text(json.dumps({"state": "training", "process": process}))
    assert read_status(tmp_path)["state"] == "stopped"
