"""Where swarmd keeps its things: state, cache and runtime directories, and the lock on the state directory.

Under systemd the manager names the directories (STATE_DIRECTORY and its like, systemd.exec(5)). Root, on a machine
where the service is installed, means the service's unless $XDG_... says otherwise. Else the XDG base directory
specification says where; it asks to ignore relative values.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from swarmd.system.exits import ConfigurationError
from swarmd.system.installation import CACHE_ROOT, STATE_ROOT

LOCK_FILE = "lock"


def _from_systemd(variable: str) -> Path | None:
    # A unit may name several directories, joined by colons; the first one is ours.
    value = os.environ.get(variable, "").split(":")[0]
    return Path(value) if value else None


def _from_xdg(variable: str, fallback: str) -> Path:
    value = os.environ.get(variable, "")
    if value.startswith("/"):
        return Path(value)
    try:
        return Path.home() / fallback
    except RuntimeError:
        raise ConfigurationError(
            f"no directory to keep data in: ${variable} and $HOME are not set and this user has no home; "
            "name one with --state DIR"
        ) from None


def _is_the_services(variable: str, path: Path) -> bool:
    """Whether the service's directory is meant: root, or the service's user, would otherwise work beside it."""
    return not os.environ.get(variable) and path.is_dir() and os.access(path, os.W_OK)


def _created(path: Path, origin: str) -> Path:
    try:
        path = path.expanduser().absolute()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigurationError(f"{path} ({origin}) cannot be used as a directory: {reason}") from error
    return path


def state_directory(flag: Path | None) -> Path:
    """The directory of identity, checkpoints and curves; created with mode 0700.

    In this order: `--state`, $STATE_DIRECTORY, $XDG_STATE_HOME/swarmd, for root the service's if it is installed,
    ~/.local/state/swarmd.
    Raises ConfigurationError where it cannot be made.
    """
    if flag is not None:
        return _created(flag, "--state")
    given = _from_systemd("STATE_DIRECTORY")
    if given is not None:
        return _created(given, "$STATE_DIRECTORY")
    return _created(default_state_directory(), "the default state directory")


def default_state_directory() -> Path:
    """The state directory of a node that was given none; not created."""
    if _is_the_services("XDG_STATE_HOME", STATE_ROOT):
        return STATE_ROOT
    return _from_xdg("XDG_STATE_HOME", ".local/state") / "swarmd"


def cache_directory() -> Path:
    """The directory of what can be fetched again.

    In this order: $CACHE_DIRECTORY, $XDG_CACHE_HOME/swarmd, the service's for those who may write there,
    ~/.cache/swarmd.
    """
    given = _from_systemd("CACHE_DIRECTORY")
    if given is not None:
        return _created(given, "$CACHE_DIRECTORY")
    if _is_the_services("XDG_CACHE_HOME", CACHE_ROOT):
        return CACHE_ROOT
    return _created(_from_xdg("XDG_CACHE_HOME", ".cache") / "swarmd", "the default cache directory")


def runtime_directory(state: Path) -> Path:
    """The directory of status.json: $RUNTIME_DIRECTORY under systemd, elsewhere the state directory.

    Not $XDG_RUNTIME_DIR: that is emptied at log-out, and the status of a stopped node shall stay readable.
    """
    given = _from_systemd("RUNTIME_DIRECTORY")
    return _created(given, "$RUNTIME_DIRECTORY") if given is not None else state


class HeldLock:
    """A held lock (flock(2)); the kernel lets go of it when the process ends, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> HeldLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lock_state(directory: Path) -> HeldLock:
    """Takes the state directory for this process alone (flock(2)); keep what it returns while the node runs.

    Raises ConfigurationError naming the process that holds it, or the reason why the lock cannot be written.
    """
    path = directory / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"{directory}: the state directory cannot be written: {error.strerror} ({path}); "
            "start swarmd as the user that owns it, or name another one with --state DIR"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise ConfigurationError(
            f"{directory}: the state directory is in use by process {holder or 'unknown'}; "
            "stop that swarmd first, or name another directory with --state DIR"
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise ConfigurationError(f"{path} cannot be locked: {error.strerror}") from error
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError:
        # A full disk: the number is only for the message above, the lock itself holds.
        pass
    return HeldLock(descriptor)
