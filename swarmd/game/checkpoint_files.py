"""What a checkpoint is on disk, and how to tell a whole one from a damaged one.

    round-00000123/   model.safetensors, optimizer.safetensors (or whatever the trainer writes)
                      state.json      the round and the dictionary given to save()
                      manifest.json   size and checksum of every other file, and a checksum of itself

A name ends in "-N" for the Nth checkpoint of the same round. Nothing here changes a file; see checkpoint.py.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from swarmd.system.exits import ConfigurationError

FORMAT = 1
STATE_FILE = "state.json"
MANIFEST_FILE = "manifest.json"

_NAME = re.compile(r"(round|best)-(\d{8,18})(?:-(\d{1,9}))?")
_LARGEST_JSON = 16 * 1024 * 1024
_BUFFER = 1024 * 1024


class Damaged(Exception):
    """The checkpoint is not what was saved; the message says what is wrong with which file."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: `state` is the dictionary that was saved, `saved` the time (ISO 8601 UTC)."""

    round: int
    path: Path
    saved: str
    state: dict[str, Any]


@dataclass(frozen=True, order=True)
class Name:
    """The parsed name of a checkpoint's directory; ordered by age."""

    round: int
    repetition: int
    kind: str  # "round", or "best" for a pinned one

    def __str__(self) -> str:
        return f"{self.kind}-{self.round:08d}" + (f"-{self.repetition}" if self.repetition else "")


def parse_name(name: str) -> Name | None:
    match = _NAME.fullmatch(name)
    return Name(int(match[2]), int(match[3] or 0), match[1]) if match else None


def newest_first(directory: Path, kinds: Iterable[str] = ("round", "best")) -> list[Name]:
    """The checkpoints in `directory` by name, unverified. Empty where there is no such directory."""
    try:
        found = [parse_name(entry) for entry in os.listdir(directory)]
    except FileNotFoundError:
        return []
    return sorted((name for name in found if name is not None and name.kind in kinds), reverse=True)


def checksum(path: Path) -> tuple[int, str]:
    """Size in bytes and xxh3-128 of a file.

    It guards against torn writes and failing disks, not against an attacker, who would write the manifest
    too. xxh3 runs at memory speed (15 MB in 0.6 ms; zlib.crc32 takes 5 ms), and there is one every round.
    Read, not mapped: a bad sector under a mapping is a SIGBUS, under read(2) an OSError.
    """
    digest = xxhash.xxh3_128()
    size = 0
    buffer = memoryview(bytearray(_BUFFER))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            size += count
    return size, digest.hexdigest()


def state_bytes(round: int, saved: str, state: dict[str, Any]) -> bytes:
    """The contents of state.json. ValueError for a number that is not finite: JSON has none."""
    document = {"format": FORMAT, "round": round, "saved": saved, "state": state}
    return json.dumps(document, allow_nan=False).encode()


def manifest_bytes(files: dict[str, tuple[int, str]]) -> bytes:
    body = {
        "format": FORMAT,
        "files": {name: {"size": size, "xxh3_128": digest} for name, (size, digest) in files.items()},
    }
    return json.dumps({**body, "checksum": _own_checksum(body)}, indent=1).encode()


def _own_checksum(body: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(body, sort_keys=True).encode())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_JSON + 1)
    except FileNotFoundError:
        raise Damaged(f"{path.name} is missing") from None
    if len(data) > _LARGEST_JSON:
        raise Damaged(f"{path.name} is larger than {_LARGEST_JSON} bytes")
    try:
        document = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path.name} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise Damaged(f"{path.name} does not hold an object")
    return document


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")


def _read_manifest(path: Path) -> dict[str, Any]:
    document = _read_json(path / MANIFEST_FILE)
    own = document.pop("checksum", None)
    if own != _own_checksum(document):
        raise Damaged(f"{MANIFEST_FILE} does not match its own checksum")
    # Only now: the checksum tells another format from a flipped bit, and every format will carry it.
    if document.get("format") != FORMAT:
        raise ConfigurationError(
            f"{path}: this checkpoint has format {document.get('format')}, this swarmd reads {FORMAT}; "
            "use the version of swarmd that wrote it, or another state directory"
        )
    return document


def _check_files(path: Path, listed: dict[str, dict[str, Any]]) -> None:
    if STATE_FILE not in listed:
        raise Damaged(f"{MANIFEST_FILE} does not list {STATE_FILE}")
    for file, expected in listed.items():
        try:
            # The size first: a torn file is found without reading gigabytes.
            size = os.stat(path / file).st_size
            if size != expected["size"]:
                raise Damaged(f"{file} has {size} bytes, not {expected['size']}")
            if checksum(path / file)[1] != expected["xxh3_128"]:
                raise Damaged(f"{file} does not match its checksum")
        except FileNotFoundError:
            raise Damaged(f"{file} is missing") from None


def verify(path: Path) -> Checkpoint:
    """Reads and checks the checkpoint in directory `path`.

    Raises Damaged; ConfigurationError for an intact one of another format, or one of another user.
    """
    name = parse_name(path.name)
    if name is None:
        raise Damaged(f"{path.name!r} is not the name of a checkpoint")
    try:
        manifest = _read_manifest(path)
        _check_files(path, manifest["files"])
        document = _read_json(path / STATE_FILE)
    except PermissionError as error:
        raise ConfigurationError(
            f"{error.filename}: permission denied; run swarmd as the user that owns it, "
            f"or give it the files (chown -R USER {path.parent})"
        ) from error
    except OSError as error:
        raise Damaged(f"{error.filename or path} cannot be read: {error.strerror}") from error
    state, saved = document.get("state"), document.get("saved")
    if document.get("round") != name.round or not isinstance(state, dict) or not isinstance(saved, str):
        raise Damaged(f"{STATE_FILE} does not have the form of round {name.round}")
    return Checkpoint(name.round, path, saved, state)
