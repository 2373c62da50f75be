"""What each check of `swarmd doctor` is given, and what it says."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from swarmd.config import DEFAULT_PATH, Config
from swarmd.system.installation import Installation

Result = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One sentence on one thing. fix: the command that mends it, or what to do where no command can.

    skipped: it could not be looked at; the message says what that takes.
    """

    check: str
    result: Result
    message: str
    fix: str | None = None


@dataclass(frozen=True)
class Look:
    """Where to look. status: what the node says of itself, as `swarmd status --json`, {} where none has run.

    config_path: None for the default one. running: whether the node runs now. named: the places of the service.
    """

    config: Config
    config_path: Path | None
    state: Path
    status: Mapping[str, Any]
    running: bool
    named: Installation
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def main(self) -> Path:
        """The configuration file."""
        return DEFAULT_PATH if self.config_path is None else self.config_path

    @property
    def is_the_service(self) -> bool:
        return self.main == self.named.config and self.state == self.named.state

    @property
    def bootnode(self) -> bool:
        return self.config.swarm.role == "bootnode"

    def begin(self, verb: str = "start") -> str:
        """The command that starts the node; verb: start or restart, of systemctl(1)."""
        if self.is_the_service:
            return f"sudo systemctl {verb} {self.named.unit.removesuffix('.service')}"
        return f"swarmd run {self.options()}"

    def command(self, words: str) -> str:
        """The command with these words for this node, by whoever may give it."""
        if not self.is_the_service:
            return f"swarmd {words} {self.options()}"
        instance = self.named.unit.removesuffix(".service").partition("@")[2]
        return f"sudo swarmd {words}{f' --instance {instance}' if instance else ''}"

    def options(self) -> str:
        """The common options that name this node to another command."""
        given = [] if self.config_path is None else ["--config", str(self.config_path)]
        return shlex.join([*given, "--state", str(self.state)])
