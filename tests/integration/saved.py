"""What a state directory holds, read beside or after the node that writes it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from swarmd.game.checkpoint_files import Checkpoint, Damaged, newest_first, verify
from swarmd.system.ledger import note_end, note_start, this_boot
from swarmd.system.ledger_file import End


def failed(state: Path, times: int) -> Path:
    """The state directory of a node that has so often ended quickly: it waits 2, 4, 8 ... s from the third on."""
    state.mkdir()
    for number in range(times):
        note_start(state, "1", this_boot(), f"quick{number}")
        note_end(state, End("crash", invocation=f"quick{number}"), "1", this_boot())
    return state


def newest(state: Path) -> Checkpoint | None:
    """The newest intact checkpoint; any other is left as it is."""
    directory = state / "checkpoints"
    for name in newest_first(directory):
        try:
            return verify(directory / str(name))
        except Damaged:
            continue
    return None


def newest_round(state: Path) -> int | None:
    found = newest(state)
    return found.round if found else None


def rounds_on_disk(state: Path) -> list[int]:
    """The rounds that have a checkpoint, by its name alone."""
    return [name.round for name in newest_first(state / "checkpoints", ("round",))]


def half_written(state: Path) -> list[Path]:
    """Checkpoints that are being written, or were when the process died."""
    return sorted((state / "checkpoints").glob(".writing-*"))


def checksums(checkpoint: Path) -> dict[str, str]:
    """The checksums of weights and optimizer as they were written."""
    files = json.loads((checkpoint / "manifest.json").read_text())["files"]
    return {name: files[name]["xxh3_128"] for name in ("model.safetensors", "optimizer.safetensors")}


def checksums_of_all(state: Path) -> dict[int, dict[str, str]]:
    """{round: checksums} of the rounds' checkpoints that are there now, while a node may write and remove some."""
    found: dict[int, dict[str, str]] = {}
    directory = state / "checkpoints"
    for name in newest_first(directory, ("round",)):
        try:
            found.setdefault(name.round, checksums(directory / str(name)))
        except FileNotFoundError:
            continue  # removed just now
    return found


def rows(state: Path, columns: str, table: str = "rounds") -> list[tuple[Any, ...]]:
    """A table of the curves, in the order of the rounds."""
    with closing(sqlite3.connect(f"file:{state / 'state.sqlite'}?mode=ro", uri=True)) as curves:
        return [tuple(row) for row in curves.execute(f"SELECT {columns} FROM {table} ORDER BY round")]


def status(state: Path) -> dict[str, Any]:
    """The status file as it stands there, without a look at whether its process lives."""
    document: dict[str, Any] = json.loads((state / "status.json").read_text())
    return document
