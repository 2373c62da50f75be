"""What a node would train in how much memory, before it starts: one answer for `swarmd check` and `swarmd doctor`."""

from __future__ import annotations

import glob
import os
import pwd
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from swarmd.assembly import Chosen, choose_model
from swarmd.config import DEFAULT_PATH, Config
from swarmd.game.history import HISTORY_FILE, Curves
from swarmd.system.as_owner import SERVICE_USER
from swarmd.system.exits import ConfigurationError
from swarmd.system.installation import Installation, owner_of
from swarmd.system.memory import MemoryLimit

_SECONDS = 5.0
_SETS_PATH = re.compile(r"\s*PYTHONPATH\s*=(.*)")


def unit_of(config_path: Path | None, state: Path | None, named: Installation) -> str | None:
    """The unit that runs the node with this configuration and state; None for a node that is no service.

    state: None where none was named, which then is the service's.
    """
    main = DEFAULT_PATH if config_path is None else config_path
    return named.unit if main == named.config and main.is_file() and state in (None, named.state) else None


def planned(config: Config, state: Path, unit: str | None) -> Chosen:
    """The model, its plan, and the limit it was made for, within the unit's: this process is in another control group.
    Nothing is written.

    Raises ConfigurationError as the node would, RestartableError where a GPU is not there yet.
    """
    remembered = None
    if (state / HISTORY_FILE).is_file():
        curves = Curves.of(state / HISTORY_FILE)
        remembered = curves.fact("model")
        curves.close()
    return choose_model(config, remembered, limit_of(unit) if unit is not None else None)


def limit_of(unit: str) -> MemoryLimit | None:
    """The limit that the service manager sets for the unit; None for none, or where it does not say."""
    answer = _property(unit, "MemoryMax")
    return MemoryLimit(int(answer), f"MemoryMax of {unit}") if answer.isdigit() and int(answer) > 0 else None


def user_of(unit: str | None, state: Path) -> pwd.struct_passwd | None:
    """As whom root has to run what the node will run: the owner of its state, before its first start the unit's user.

    None where that is this process's own user. Raises ConfigurationError where this machine does not have that user.
    """
    if os.geteuid() != 0:
        return None
    owner = owner_of(state)
    if owner is not None or unit is None:
        return owner
    said = _property(unit, "User")
    name = said or SERVICE_USER
    try:
        user = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        if not said:
            return None  # no service is installed: the node is root's own
        raise ConfigurationError(
            f"{unit} runs as {said!r}, a user that this machine does not have; mend User= by `systemctl edit {unit}`"
        ) from None
    return user if user.pw_uid != 0 else None


def python_path_of(unit: str | None) -> list[str]:
    """Where the unit's Python looks for modules before all else; without a unit, this process's environment says."""
    if unit is None:
        return []
    try:
        variables = dict(pair.partition("=")[::2] for pair in shlex.split(_property(unit, "Environment")))
    except ValueError:
        variables = {}  # quotes as systemd alone has them
    found = variables.get("PYTHONPATH", "")
    # They come after Environment=, and the last one says (systemd.exec(5), EnvironmentFile=).
    for line in _property(unit, "EnvironmentFiles").splitlines():
        for file in sorted(glob.glob(line.rpartition(" (ignore_errors=")[0])):
            found = _path_in(Path(file), found)
    return [folder for folder in found.split(os.pathsep) if folder]


def _path_in(file: Path, before: str) -> str:
    """PYTHONPATH as the file of variables sets it; before, where it does not or cannot be read."""
    try:
        lines = file.read_text(encoding="utf-8").replace("\\\n", "").splitlines()
        values = [" ".join(shlex.split(match[1])) for line in lines if (match := _SETS_PATH.match(line))]
    except (OSError, ValueError):
        return before
    return values[-1] if values else before


def _property(unit: str, name: str) -> str:
    """A property of the unit (systemctl(1), show), "" where nobody says."""
    program = shutil.which("systemctl")
    if program is None:
        return ""
    command = [program, "show", f"--property={name}", "--value", unit]
    try:
        return subprocess.run(command, timeout=_SECONDS, check=False, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
