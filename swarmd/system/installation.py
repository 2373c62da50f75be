"""Where the installed service keeps its things, and acting as its user: what the units in systemd/ say.

An instance is one of several nodes on a machine: swarmd@NAME.service with /etc/swarmd/NAME.yaml.
"""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import dataclass
from pathlib import Path

from swarmd.system.exits import ConfigurationError

CONFIG_ROOT = Path("/etc/swarmd")
STATE_ROOT = Path("/var/lib/swarmd")
CACHE_ROOT = Path("/var/cache/swarmd")
RUNTIME_ROOT = Path("/run/swarmd")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
# Files and folders that the node without a name has in the same places, and that would be taken for an instance's.
_TAKEN = frozenset({"config", "config.d", "credentials", "checkpoints", "lock", "huggingface"})


@dataclass(frozen=True)
class Installation:
    """The places of one node that runs as a service; nothing says that it is installed."""

    unit: str
    config: Path
    state: Path
    runtime: Path


def installation(instance: str | None) -> Installation:
    """The service, or its instance of that name.

    Raises:
        ConfigurationError: no instance can have that name.
    """
    if instance is None:
        return Installation("swarmd.service", CONFIG_ROOT / "config.yaml", STATE_ROOT, RUNTIME_ROOT)
    if not _NAME.fullmatch(instance) or instance in _TAKEN:
        raise ConfigurationError(
            f"--instance {instance!r}: no instance can have this name; take letters, digits and _ . -, "
            f"and none of {', '.join(sorted(_TAKEN))}"
        )
    return Installation(
        f"swarmd@{instance}.service", CONFIG_ROOT / f"{instance}.yaml", STATE_ROOT / instance, RUNTIME_ROOT / instance
    )


def status_directory(instance: str | None, own_state: Path) -> Path:
    """Where to look for the status of a node that was not named by its directory.

    A user's own node comes before the machine's: own_state is where that would be. Root's is the machine's.
    """
    named = installation(instance)
    if instance is not None:
        return named.runtime
    # A folder alone says nothing: any command that looks for its settings may have made one.
    if os.geteuid() != 0 and (own_state / "status.json").is_file():
        return own_state
    return named.runtime if named.runtime.is_dir() or CONFIG_ROOT.is_dir() else own_state


def is_there(folder: Path) -> bool:
    """Whether it is a directory; who may not look above it is told no."""
    try:
        return folder.is_dir()
    except PermissionError:
        return False


def owner_of(state: Path) -> pwd.struct_passwd | None:
    """The user that the state directory belongs to; None for root and where there is no such directory.

    Raises ConfigurationError where this machine does not have that user.
    """
    if not state.is_dir():
        return None
    trusted = state
    for root in (STATE_ROOT, CACHE_ROOT):
        # What lies in a folder of the service's user may be a link of that user's making: ask the folder itself.
        if root in state.absolute().parents and root.is_dir() and root.stat().st_uid != 0:
            trusted = root
    owner = trusted.stat().st_uid
    if owner == 0:
        return None
    try:
        return pwd.getpwuid(owner)
    except KeyError:
        raise ConfigurationError(
            f"{state} belongs to user {owner}, which this machine does not have; `chown` it to the service's user"
        ) from None


def become_owner(state: Path) -> None:
    """As root, goes on as the user that the state directory belongs to.

    What root writes there, or into the cache beside it, the service could not read. Does nothing for other users, for
    root's own directories and where there is no such directory.
    """
    user = owner_of(state) if os.geteuid() == 0 else None
    if user is None:
        return
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
