"""The status in words."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from swarmd.monitor.lines import status_lines
from swarmd.monitor.report_file import process_mark
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
)
from swarmd.system.ledger import note_end, note_start
from swarmd.system.ledger_file import End

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "qwen\x1b[2J\x1b]0;owned\x07\nstate       training\r\x9b31m\u202e"
SHOWN = r"qwen\x1b[2J\x1b]0;owned\x07\nstate       training\r\x9b31m\u202e"


def test_a_node_that_has_only_just_begun_says_no_more_than_it_knows() -> None:
    assert list(status_lines(asdict(Status("starting")))) == ["state       starting, up 0 s"]


def test_a_training_node_tells_what_it_does() -> None:
    status = Status(
        "training",
        phase="generate",
        round=41,
        rounds_done=12,
        uptime_s=93784.0,
        model=ModelStatus("embedded", 886_400, "fp32"),
        reward=RewardStatus(0.5, 0.4321),
        heldout=HeldoutStatus(0.3, 0.4, 0.45, 40),
        signal_share=0.625,
        tokens_per_s=3456.7,
        memory=MemoryStatus(600 << 20, 2048 << 20, 610 << 20, 700 << 20),
        checkpoint=CheckpointStatus(41, "/s/round-00000041", "2026-01-02T03:04:05.678+00:00"),
        children={"scorer": ChildStatus(77, 2)},
    )
    assert list(status_lines(asdict(status))) == [
        "state       training, phase generate, up 1 d 2 h",
        "model       embedded, 0.9 M parameters, fp32",
        "round       41 (12 since the start)",
        "reward      0.500 in the last round, 0.432 over 100; 62% of the groups had signal",
        "held-out    0.400 after round 40; base 0.300, best 0.450",
        "speed       3457 tokens/s",
        "memory      600 MiB of 2048 MiB, peak 610 MiB, predicted 700 MiB",
        "checkpoint  round 41, 2026-01-02T03:04:05.678+00:00, /s/round-00000041",
        "child       scorer: pid 77, replaced 2 times",
    ]


def test_a_node_that_has_ended_has_no_children() -> None:
    for state in ("stopped", "failed"):
        status = Status(state, children={"p2pd": ChildStatus(77, 0)})
        assert list(status_lines(asdict(status))) == [f"state       {state}, up 0 s"]


def printed(*arguments: object) -> str:
    command = [sys.executable, "-m", "swarmd", *map(str, arguments)]
    ours = {name: value for name, value in os.environ.items() if not name.endswith("_DIRECTORY")}
    return subprocess.run(command, capture_output=True, text=True, env=ours, cwd=ROOT, check=True).stdout


def test_what_stands_in_a_status_file_cannot_steer_the_terminal_nor_add_lines(tmp_path: Path) -> None:
    status = Status("training", name=HOSTILE, phase=HOSTILE, model=ModelStatus(HOSTILE, 1, HOSTILE),
                    children={HOSTILE: ChildStatus(1, 1)})  # fmt: skip
    (tmp_path / "status.json").write_text(json.dumps({**asdict(status), "process": process_mark()}))
    lines = printed("status", "--state", tmp_path).removesuffix("\n").split("\n")
    assert [line.split()[0] for line in lines] == ["state", "model", "child"]
    assert all(SHOWN in line and line.isprintable() for line in lines)


def test_nor_can_what_stands_in_the_account_of_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    note_start(tmp_path, "1", "boot", "one")
    note_end(tmp_path, End("crash", HOSTILE, 7, signal=HOSTILE, invocation="one"), "1", "boot")
    lines = printed("restarts", "--state", tmp_path).removesuffix("\n").split("\n")
    assert [line.count(SHOWN) for line in lines[:3]] == [0, 2, 0]
    assert all(line.isprintable() for line in lines)


def test_peers_are_told_of_where_there_are_any_or_were() -> None:
    found = Status("training", peers=PeersStatus(4, 3), admitted=120, rejected={"expired": 2, "copied": 1})
    assert "peers       4 seen, 3 used; 120 groups admitted since the start, rejected: copied 1, expired 2" in list(
        status_lines(asdict(found))
    )
    (_, line) = status_lines(asdict(Status("degraded", rejected={"unsigned": 1})))
    assert line == "peers       0 seen, 0 used; 0 groups admitted since the start, rejected: unsigned 1"


ADDRESS = "/ip4/192.0.2.7/tcp/38751/p2p/Qm1"


def test_a_node_in_a_swarm_tells_who_is_there_and_whether_they_can_call_it() -> None:
    network = NetworkStatus("trial", "0" * 32, 3, 5, True, (ADDRESS,), -0.25)
    lines = list(status_lines(asdict(Status("training", peer_id="Qm1", name="brave bold badger", network=network))))
    assert lines[1:] == [
        "swarm       trial",
        "node        brave bold badger (Qm1)",
        "network     3 peers connected, 5 published lately; they can call this node; "
        "their clocks are 0.25 s behind ours",
        f"address     {ADDRESS}",
    ]


def test_a_node_that_others_cannot_call_or_that_is_cut_off_says_so() -> None:
    told = [
        list(status_lines(asdict(Status("degraded", network=network))))
        for network in (
            NetworkStatus("", "0" * 32, 1, 0, False),
            NetworkStatus("", "0" * 32, 0, 0, None),
            NetworkStatus("", "0" * 32, problem="network.listen: port 1 is in use"),
        )
    ]
    assert [lines[1] for lines in told] == [f"swarm       {'0' * 32}"] * 3
    assert told[0][3] == "network     1 peer connected, 0 published lately; none of them can call this node"
    assert told[1][3] == "network     0 peers connected, 0 published lately; none has tried to call this node yet"
    assert told[2][3:] == ["network     down: network.listen: port 1 is in use"]


def test_a_bootnode_serves_and_does_not_train() -> None:
    status = Status("training", phase="serve", round=41, uptime_s=61, role="bootnode", peers=PeersStatus(2),
                    network=NetworkStatus("trial", "0" * 32, 2, 0, True))  # fmt: skip
    lines = list(status_lines(asdict(status)))
    assert lines[:2] == ["state       serving, bootnode, up 1 min 1 s", "round       41"]
    assert lines[-1] == "network     2 peers connected; they can call this node"
    for state in ("starting", "degraded", "stopped", "failed"):
        (first, *_) = status_lines(asdict(Status(state, role="bootnode")))
        assert first == f"state       {state}, bootnode, up 0 s"


def test_a_status_of_a_version_that_told_less_is_told_all_the_same() -> None:
    old = {name: value for name, value in asdict(Status("training")).items() if name not in ("role", "network")}
    assert list(status_lines(old)) == ["state       training, up 0 s"]


def test_nobody_is_connected_to_a_node_that_has_ended() -> None:
    network = NetworkStatus("trial", "0" * 32, 3, 5, True, (ADDRESS,))
    lines = list(status_lines(asdict(Status("stopped", peer_id="Qm1", name="brave bold badger", network=network))))
    assert lines[1:] == ["swarm       trial", "node        brave bold badger (Qm1)"]
