"""The status in words."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from swarmd.monitor.lines import status_lines
from swarmd.monitor.status import (
    CheckpointStatus,
    ChildStatus,
    HeldoutStatus,
    MemoryStatus,
    ModelStatus,
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


def printed(*arguments: object) -> str:
    command = [sys.executable, "-m", "swarmd", *map(str, arguments)]
    ours = {name: value for name, value in os.environ.items() if not name.endswith("_DIRECTORY")}
    return subprocess.run(command, capture_output=True, text=True, env=ours, cwd=ROOT, check=True).stdout


def test_what_stands_in_a_status_file_cannot_steer_the_terminal_nor_add_lines(tmp_path: Path) -> None:
    status = Status("stopped", name=HOSTILE, phase=HOSTILE, model=ModelStatus(HOSTILE, 1, HOSTILE),
                    children={HOSTILE: ChildStatus(1, 1)})  # fmt: skip
    (tmp_path / "status.json").write_text(json.dumps({**asdict(status), "process": {}}))
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
