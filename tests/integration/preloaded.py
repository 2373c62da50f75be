"""Forks swarmd processes that have their imports behind them.

A node spends most of its start importing torch, transformers and reasoning-gym; a test that starts it thirty times
would wait for little else. So one process imports everything once and forks. Each fork is a process of its own: it
runs `swarmd.cli.program` from the first line, starts a scorer of its own, and dies of signals like any other.

    python -m tests.integration.preloaded
    first:    {"ready": true}
    request:  {"arguments": [...], "environment": {...}, "directory": path, "out": path, "err": path}
    answers:  {"pid": number}, and when a fork has ended {"ended": pid, "code": exit code, negative for a signal}
"""

from __future__ import annotations

import json
import os
import select
import signal
from typing import Any, NoReturn

from swarmd.system.child import die_with
from swarmd.system.startup import prepare_process


def become(request: dict[str, Any], parent: int) -> NoReturn:
    """The fork's life: where it reads and writes, its environment, and then a command line like any other."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    die_with(parent)
    for descriptor, path in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    from swarmd.cli import program

    program(request["arguments"])


def reaped() -> list[dict[str, int]]:
    """Those forks that have ended since the last call."""
    found = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        found.append({"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def serve() -> None:
    """Forks for each line on stdin until there are no more."""
    import swarmd.commands.heldout  # noqa: F401
    import swarmd.daemon  # noqa: F401

    server = os.getpid()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    print(json.dumps({"ready": True}), file=answers)
    pending = b""
    while True:
        readable, _, _ = select.select([0, woken], [], [])
        if 0 in readable:
            received = os.read(0, 65536)
            if not received:
                return
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                pid = os.fork()
                if pid == 0:
                    answers.close()
                    become(json.loads(line), server)
                print(json.dumps({"pid": pid}), file=answers)
        if woken in readable:
            os.read(woken, 4096)
        for end in reaped():
            print(json.dumps(end), file=answers)


if __name__ == "__main__":
    prepare_process()
    serve()
