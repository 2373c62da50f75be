"""The store of checkpoints: one a round, written so that no crash leaves less than the last finished round.

Every checkpoint is written in a hidden directory beside the others and takes its name by rename(2). That
alone outlives the process: whatever kills it, the kernel still holds every page written. A power cut is
another matter: against it helps fsync(2), which costs a quarter of a round of 0.2 s, and 15 MB five times a
second wear out a solid-state disk in months. So a checkpoint is also synced when none was for `sync_seconds`,
or when asked; the last synced one is never removed, and one that a power cut tore is recognised by its
checksums.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from swarmd.game.checkpoint_disk import NO_SPACE, error_number, link_files, sync_directory, sync_tree, why
from swarmd.game.checkpoint_files import (
    MANIFEST_FILE,
    STATE_FILE,
    Checkpoint,
    Damaged,
    Name,
    checksum,
    manifest_bytes,
    newest_first,
    state_bytes,
    verify,
)
from swarmd.system.events import event
from swarmd.system.exits import ConfigurationError

CHECKPOINTS = "checkpoints"
"""The directory of the store, in the state directory."""

_HALF_DONE = (".writing-", ".removing-")


class CheckpointFailed(Exception):
    """A checkpoint could not be written; those before are untouched. The message says why."""


class CheckpointStore:
    """The checkpoints in one directory. The caller holds the lock on the state directory (`lock_state`).

    keep: how many rounds stay; sync_seconds: how much training a power cut may cost, 0 to sync every save.
    Removes what an interrupted process left half done. ConfigurationError where the directory cannot be made.
    """

    def __init__(self, directory: Path, keep: int, sync_seconds: float = 30.0) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, not {keep}")
        self._directory = directory
        self._keep = keep
        self._sync_seconds = sync_seconds
        self._newest: Name | None = None
        self._synced: Name | None = None
        self._synced_at = 0.0
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            leftovers = [entry for entry in os.listdir(directory) if entry.startswith(_HALF_DONE)]
        except OSError as error:
            raise ConfigurationError(
                f"{directory}: no directory for checkpoints: {error.strerror}; name another with --state DIR"
            ) from error
        for entry in leftovers:
            shutil.rmtree(directory / entry, ignore_errors=True)

    def save(
        self, round: int, writer: Callable[[Path], dict[str, Any]], *, sync: bool | None = None
    ) -> Checkpoint:
        """Makes the checkpoint of `round`: `writer` puts its files into the directory it is given and returns
        the state, a dictionary of JSON values.

        sync: whether it must outlive a power cut when this returns; None leaves that to `sync_seconds`.
        When the disk is full, older checkpoints are removed (but for the newest, the best and the last synced
        one) and `writer` is called a second time.
        Raises CheckpointFailed for any failure of the disk and for a state that holds a NaN or an infinity.
        """
        if round < 0:
            raise ValueError(f"round {round} is negative")
        if sync is None:
            due = time.monotonic() - self._synced_at >= self._sync_seconds
            sync = due or self._synced is None
        try:
            checkpoint = self._write(round, writer, sync)
        except (OSError, SafetensorError) as error:
            if error_number(error) not in NO_SPACE:
                raise self._failed(round, error) from error
            self._make_room()
            try:
                checkpoint = self._write(round, writer, sync)
            except (OSError, SafetensorError) as again:
                raise self._failed(round, again) from again
        self._prune(self._keep)
        return checkpoint

    def flush(self) -> None:
        """Makes the last save outlive a power cut; for the end of a run. Raises CheckpointFailed."""
        if self._newest is None or self._newest == self._synced:
            return
        try:
            sync_tree(self._directory / str(self._newest))
            sync_directory(self._directory)
        except OSError as error:
            raise self._failed(self._newest.round, error) from error
        self._synced, self._synced_at = self._newest, time.monotonic()

    def latest(self) -> Checkpoint | None:
        """The newest intact checkpoint, pinned ones included; damaged ones are reported and set aside.

        ConfigurationError for one that another version of swarmd or another user has written: to pass over it
        would lose training that is there.
        """
        for name in newest_first(self._directory):
            checkpoint = self._intact(name)
            if checkpoint is not None:
                return checkpoint
        return None

    def best(self) -> Checkpoint | None:
        """The pinned checkpoint, if there is one and it is intact. Raises as `latest` does."""
        for name in newest_first(self._directory, ("best",)):
            checkpoint = self._intact(name)
            if checkpoint is not None:
                return checkpoint
        return None

    def pin(self, checkpoint: Checkpoint) -> Checkpoint:
        """Keeps `checkpoint` as the best one, in place of the one pinned before.

        The pinned directory shares its files with the round's (hard links; copies where the file system has
        none), so that it costs no space until the round is removed. Raises CheckpointFailed.
        """
        names = {str(name): name for name in newest_first(self._directory)}
        source = names.get(checkpoint.path.name)
        if source is None:
            raise CheckpointFailed(f"{checkpoint.path} is not there any more and cannot be kept as the best")
        best = Name(source.round, source.repetition, "best")
        if str(best) not in names:
            temporary = self._temporary(source.round)
            try:
                os.mkdir(temporary, 0o700)
                link_files(checkpoint.path, temporary)
                sync_tree(temporary)
                os.rename(temporary, self._directory / str(best))
                sync_directory(self._directory)
            except OSError as error:
                raise self._failed(source.round, error) from error
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        for name in names.values():
            if name.kind == "best" and name != best:
                self._remove(str(name))
        return Checkpoint(checkpoint.round, self._directory / str(best), checkpoint.saved, checkpoint.state)

    def _temporary(self, round: int) -> Path:
        return self._directory / f".writing-{round}-{os.getpid()}"

    def _write(self, round: int, writer: Callable[[Path], dict[str, Any]], sync: bool) -> Checkpoint:
        temporary = self._temporary(round)
        try:
            os.mkdir(temporary, 0o700)
            state = writer(temporary)
            saved = datetime.now(UTC).isoformat(timespec="milliseconds")
            try:
                (temporary / STATE_FILE).write_bytes(state_bytes(round, saved, state))
            except ValueError as error:
                raise CheckpointFailed(f"round {round} cannot be saved: its state: {error}") from error
            files = {entry: checksum(temporary / entry) for entry in sorted(os.listdir(temporary))}
            (temporary / MANIFEST_FILE).write_bytes(manifest_bytes(files))
            if sync:
                sync_tree(temporary)
            name = self._free_name(round)
            os.rename(temporary, self._directory / str(name))
            self._newest = name
            if sync:
                sync_directory(self._directory)
                self._synced, self._synced_at = name, time.monotonic()
        finally:
            # Nothing is there after the rename; after any failure, an interrupt included, the pieces go.
            shutil.rmtree(temporary, ignore_errors=True)
        return Checkpoint(round, self._directory / str(name), saved, state)

    def _free_name(self, round: int) -> Name:
        # A round may be saved twice (a roll-back after the round's own checkpoint). A directory cannot be
        # replaced in one step, so that the second one has a name of its own, which counts as the newer.
        used = [name.repetition for name in newest_first(self._directory) if name.round == round]
        return Name(round, max(used) + 1 if used else 0, "round")

    def _intact(self, name: Name) -> Checkpoint | None:
        path = self._directory / str(name)
        try:
            return verify(path)
        except Damaged as damage:
            aside = self._set_aside(path)
            event(
                "checkpoint_damaged",
                f"checkpoint {path} is damaged: {damage}; it is not used and now called {aside}"
                if aside
                else f"checkpoint {path} is damaged: {damage}; it is not used",
                priority=4,
                directory=str(path),
                reason=str(damage),
            )
            return None

    def _set_aside(self, path: Path) -> str:
        """Renames a damaged checkpoint for a look at it later; only one is kept. "" where that fails."""
        for entry in os.listdir(self._directory):
            if entry.startswith("damaged-"):
                shutil.rmtree(self._directory / entry, ignore_errors=True)
        target = path.with_name(f"damaged-{path.name}")
        try:
            os.rename(path, target)
        except OSError:
            return ""  # a read-only disk: it is passed over all the same
        return target.name

    def _prune(self, keep: int) -> None:
        rounds = newest_first(self._directory, ("round",))
        for name in rounds[keep:]:
            if name != self._synced:
                self._remove(str(name))

    def _make_room(self) -> None:
        for entry in os.listdir(self._directory):
            if entry.startswith("damaged-"):
                self._remove(entry)
        self._prune(1)

    def _remove(self, entry: str) -> None:
        # Renamed first: a process killed half-way must not leave what looks like a damaged checkpoint.
        doomed = self._directory / f".removing-{entry}"
        try:
            os.rename(self._directory / entry, doomed)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                return  # it stays, and is tried again after the next save
        shutil.rmtree(doomed, ignore_errors=True)

    def _failed(self, round: int, error: OSError | SafetensorError) -> CheckpointFailed:
        reason = why(error, self._directory)
        return CheckpointFailed(f"round {round} cannot be saved in {self._directory}: {reason}")


def snapshot(directory: Path, into: Path) -> Checkpoint | None:
    """The newest intact checkpoint, for a process that does not own the store: linked (or copied) into `into`
    and verified there, because a training node removes old checkpoints several times a second.

    `into`: an empty directory, best on the same file system. None where there is no intact checkpoint.
    Raises ConfigurationError as `CheckpointStore.latest` does, other OSErrors where `into` cannot be written.
    """
    while True:
        try:
            return _snapshot_once(directory, into)
        except _Removed:
            continue
        except PermissionError as error:
            raise ConfigurationError(
                f"{error.filename}: permission denied; run this as the user that owns it"
            ) from error


class _Removed(Exception):
    """The node removed the checkpoint while it was being read."""


def _snapshot_once(directory: Path, into: Path) -> Checkpoint | None:
    for name in newest_first(directory):
        source, target = directory / str(name), into / str(name)
        os.mkdir(target, 0o700)
        try:
            link_files(source, target)
            return verify(target)
        except (FileNotFoundError, Damaged):
            shutil.rmtree(target)
            if not source.exists():
                raise _Removed from None
    return None
