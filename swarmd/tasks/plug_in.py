"""Whether the factory of an environment is there, asked in a process of its own.

To look means to import the module, which runs its author's code: that may hang, print, end its process or take all
memory, and whoever only checks a configuration must survive it. Root has it run by the node's user from its start on:
what is imported before a process lets go of its rights may be a stranger's as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import IO

from swarmd.system.exits import SettingsRefused
from swarmd.tasks.factories import find_factory, refused

_SECONDS = 120.0
_MOST_ANSWER = 64 * 1024
_BEGUN = b"\n"  # said first, and nothing to who reads JSON
# The folders of the environment's author come first for that module, and not for what looks for it.
_PROGRAM = """
import json, sys
first, sys.path[:] = json.loads(sys.argv[1])
from swarmd.tasks.plug_in import answer
sys.path[:0] = first
answer(sys.argv[2])
"""


def check_factory(
    name: str, user: pwd.struct_passwd | None, first: Sequence[str] = (), seconds: float = _SECONDS
) -> None:
    """Looks for the factory that `tasks.environment` names.

    user: whose code it shall be, which root alone can choose; None for this process's own user. first: folders to look
    in before all others. What the module prints goes to stderr.

    Raises SettingsRefused where there is none, its module does not let itself be imported within `seconds`, or the user
    cannot run this program, and then nothing is imported.
    """
    with tempfile.TemporaryFile() as told:
        folders = json.dumps([list(first), [os.path.abspath(folder) for folder in sys.path]])
        process = _start([folders, name], user, told)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise refused(
                f"{name!r}: importing its module takes longer than {seconds:g} s; work belongs into the factory, which "
                "is called when the node starts"
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        told.seek(0)
        text = told.read(_MOST_ANSWER)
    if not text:
        raise refused(_unlooked(name, user, f"ended before it came to the module ({process.returncode})"))
    try:
        problem = json.loads(text)
    except ValueError:
        raise refused(f"{name!r}: importing its module ended the process ({process.returncode})") from None
    if problem:
        raise refused(str(problem))


def _start(arguments: list[str], user: pwd.struct_passwd | None, told: IO[bytes]) -> subprocess.Popen[bytes]:
    # -P: the working directory, where anything may lie, has no part in it.
    command = [sys.executable, "-P", *(["-s"] if user else []), "-c", _PROGRAM, *arguments]
    try:
        if user is None:
            # Its own session, here and below: it ends with all that it may have started.
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=told, start_new_session=True)
        environ = {**os.environ, "HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=told, start_new_session=True, env=environ, cwd="/",
            user=user.pw_uid, group=user.pw_gid, extra_groups=os.getgrouplist(user.pw_name, user.pw_gid),
        )  # fmt: skip
    except OSError as error:
        raise refused(_unlooked(arguments[1], user, f"cannot be started: {error.strerror}")) from None


def _unlooked(name: str, user: pwd.struct_passwd | None, why: str) -> str:
    whom = f", as user {user.pw_name}, who runs the node," if user else ""
    return (
        f"{name!r}: it cannot be looked for: {sys.executable}{whom} {why}; where this program cannot be read by the "
        "node's user, install the package, whose files all can read"
    )


def answer(name: str) -> None:
    """The other process: writes what is wrong as JSON, "" for nothing, where its parent has put stdout."""
    out = os.dup(1)
    os.write(out, _BEGUN)
    os.dup2(2, 1)  # what the module prints is no answer
    sys.dont_write_bytecode = True
    try:
        find_factory(name)
        problem = ""
    except SettingsRefused as error:
        problem = error.problems[0].message
    # A stranger's module raises whatever it likes; its author needs the trace.
    except Exception as error:
        traceback.print_exc()
        problem = f"{name!r}: its module cannot be imported: {type(error).__name__}: {error}"
    os.write(out, json.dumps(problem).encode())
    os._exit(0)  # whatever the module has started
