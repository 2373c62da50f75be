"""Whether the factory of an environment is there, asked in a process of its own.

To look means to import the module, which runs its author's code: that may hang, print, end its process or take all
memory, and whoever only checks a configuration must survive it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from swarmd.system.exits import SettingsRefused
from swarmd.system.installation import become_owner
from swarmd.tasks.factories import find_factory, refused

_SECONDS = 120.0
_MOST_ANSWER = 64 * 1024
_PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from swarmd.tasks.plug_in import answer
answer(sys.argv[2], sys.argv[3])
"""


def check_factory(name: str, state: Path, first: Sequence[str] = (), seconds: float = _SECONDS) -> None:
    """Looks for the factory that `tasks.environment` names, as the user that the state directory belongs to.

    first: folders to look in before all others. What the module prints goes to stderr.

    Raises SettingsRefused where there is none, or its module does not let itself be imported within `seconds`.
    """
    with tempfile.TemporaryFile() as told:
        # Its own session: it ends with all that it may have started.
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps([*first, *sys.path]), name, str(state)],
            stdin=subprocess.DEVNULL, stdout=told, start_new_session=True,
        )  # fmt: skip
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
        text = told.read(_MOST_ANSWER).decode(errors="replace")
    try:
        problem = json.loads(text)
    except ValueError:
        raise refused(f"{name!r}: importing its module ended the process ({process.returncode})") from None
    if problem:
        raise refused(str(problem))


def answer(name: str, state: str) -> None:
    """The other process: writes what is wrong as JSON, "" for nothing, where its parent has put stdout."""
    out = os.dup(1)
    os.dup2(2, 1)  # what the module prints is no answer
    sys.dont_write_bytecode = True
    become_owner(Path(state))
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
