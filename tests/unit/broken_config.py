"""A row of the table of broken configurations: what stands where, and what swarmd says to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MAIN = "config.yaml"


@dataclass(frozen=True)
class BrokenConfig:
    """A configuration that is refused, and every line of the refusal.

    `files` are texts or bytes by name; `links` point elsewhere; `folders` and `pipes` stand in a file's
    place; `unreadable` files have mode 0, so that the case needs a user other than root. In `messages` files
    stand without their directory.
    """

    name: str
    messages: tuple[str, ...]
    files: Mapping[str, str | bytes] = field(default_factory=lambda: {MAIN: ""})
    environ: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    pipes: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    def write(self, directory: Path) -> Path:
        """Lay everything down in a directory; the path of the file to load."""
        for name in self.folders:
            (directory / name).mkdir()
        for name, content in self.files.items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        for name, target in self.links.items():
            (directory / name).symlink_to(target)
        for name in self.pipes:
            os.mkfifo(directory / name)
        for name in self.unreadable:
            (directory / name).chmod(0)
        return directory / MAIN

    def expected(self, directory: Path) -> str:
        """The whole refusal, with the directory before each file."""
        lines = (line if line.startswith("environment ") else f"{directory}/{line}" for line in self.messages)
        return "\n".join(lines)


def broken(name: str, text: str | bytes, message: str) -> BrokenConfig:
    """The plain case: one file, one mistake. The message begins after the file's name."""
    return BrokenConfig(name, (f"{MAIN}{message}",), files={MAIN: text})
