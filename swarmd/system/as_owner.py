"""Work in the service's state directory by whoever calls: as root, in a child that has become the service's user.

What root writes there the service could not read, and what lies there may be a link of that user's making, which root
must not follow. The caller itself stays root: it has more to write elsewhere.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swarmd.system.exits import ConfigurationError
from swarmd.system.installation import STATE_ROOT, become_owner, installation
from swarmd.system.paths import state_directory

SERVICE_USER = "swarmd"
_MODE = 0o750


def as_owner(state: Path, act: Callable[[], Any]) -> Any:
    """What act() returns (plain JSON data), done as the user that the state directory belongs to.

    act must import nothing: that user may be unable to read where this program comes from.

    Raises ConfigurationError as act() does; RuntimeError where it fails otherwise, its traceback on stderr.
    """
    if os.geteuid() != 0:
        return act()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _answer(writer, state, act)
    os.close(writer)
    with open(reader, "rb") as stream:
        answer = stream.read()
    _, status = os.waitpid(child, 0)
    if not answer:
        raise RuntimeError(f"the part that works as the owner of {state} failed ({os.waitstatus_to_exitcode(status)})")
    kind, value = json.loads(answer)
    if kind == "refused":
        raise ConfigurationError(value)
    return value


def _answer(writer: int, state: Path, act: Callable[[], Any]) -> None:
    """The child: one answer, and no way back into the caller's code."""
    code = 1
    try:
        become_owner(state)
        try:
            answer = ["done", act()]
        except ConfigurationError as error:
            answer = ["refused", str(error)]
        with open(writer, "wb") as stream:
            stream.write(json.dumps(answer).encode())
        code = 0
    except BaseException:
        # Told here: the parent sees the end of the pipe only.
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def members_state(flag: Path | None, config: Path, instance: str | None) -> Path:
    """The state directory of the node with this configuration.

    Where it is the service's and the service has not run yet, it is made as systemd would make it (systemd.exec(5),
    StateDirectory=): root would otherwise put the service's identity under its own home.
    """
    named = installation(instance)
    if flag is None and "STATE_DIRECTORY" not in os.environ and config == named.config and os.geteuid() == 0:
        try:
            user = pwd.getpwnam(SERVICE_USER)
        except KeyError:
            return state_directory(None)
        if not STATE_ROOT.is_dir():
            STATE_ROOT.mkdir()
            STATE_ROOT.chmod(_MODE)  # whatever the umask is
            os.chown(STATE_ROOT, user.pw_uid, user.pw_gid)
        if instance is not None and not named.state.is_dir():
            as_owner(STATE_ROOT, lambda: _make(named.state))
        return named.state
    return state_directory(flag)


def _make(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(_MODE)
