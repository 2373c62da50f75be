"""Fetching the node's model: in a process of its own, watched by the bytes that arrive."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from swarmd.assembly import hub_cache
from swarmd.system.exits import EXIT_CONFIG, RestartableError
from swarmd.training.models import ModelError

_LOOK_SECONDS = 1.0


def fetch(name: str, config_path: Path | None, progress: Callable[[int], None]) -> None:
    """Fetches a hub model with `swarmd model pull`, which may talk to the hub; this process may not.

    progress(bytes): called whenever more has arrived, with what the cache then holds.

    Raises:
        ModelError: a person has to mend it; the reason stands above it on stderr.
        RestartableError: the network or the hub was at fault.
    """
    command = [sys.executable, "-P", "-s", "-m", "swarmd", "model", "pull", name]
    if config_path is not None:
        command += ["--config", str(config_path)]
    cache = hub_cache()
    # A session of its own: Ctrl-C is this process's to answer, and the fetched part stays for the next attempt.
    # The pieces of hf_xet lie under the cache, too, so that all that arrives is seen there.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "HF_XET_CACHE": str(cache / "xet")},
    ) as process:  # fmt: skip
        try:
            code = _watched(process, cache, progress)
        # Whatever ends the wait, Ctrl-C too, ends the process that is waited for.
        except BaseException:
            process.kill()
            raise
    if code == EXIT_CONFIG:
        raise ModelError(f"model {name}: it is not in the cache and could not be fetched, see above")
    if code != 0:
        raise RestartableError(f"model {name}: it is not in the cache and could not be fetched now, see above")


def _watched(process: subprocess.Popen[bytes], cache: Path, progress: Callable[[int], None]) -> int:
    before = stored_bytes(cache)
    while True:
        try:
            return process.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            now = stored_bytes(cache)
            if now > before:
                progress(now)
            before = now


def stored_bytes(directory: Path) -> int:
    """Bytes on disk under a directory (a file that was only made long takes none)."""
    total = 0
    for folder, _, files in os.walk(directory):
        for file in files:
            try:
                total += os.lstat(os.path.join(folder, file)).st_blocks * 512
            except FileNotFoundError:
                continue  # renamed just now: it counts at the next look
    return total
