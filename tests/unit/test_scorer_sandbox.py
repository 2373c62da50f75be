"""What a sandboxed process can still do, tried out in forked processes that enter the sandbox for good."""

import errno
import mmap
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pyseccomp
import pytest

from swarmd.system.sandbox import SandboxUnavailable, enter_worker_sandbox, enter_zygote_sandbox

MEMORY = 256 * 1024 * 1024


def in_fork(enter: Callable[[int], None], action: Callable[[], object]) -> object:
    """What `action` returned or raised, in a forked process after `enter`."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            enter(writer)
            try:
                outcome = action()
            except (OSError, ValueError, MemoryError, RuntimeError) as error:
                outcome = error
            os.write(writer, pickle.dumps(outcome))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert data, f"the process ended with status {status:#x} and without an outcome"
    return pickle.loads(data)


def worker(writer: int) -> None:
    enter_worker_sandbox((writer,), MEMORY, 5)


def zygote(writer: int) -> None:
    enter_zygote_sandbox()


def open_for(mode: str, path: Path) -> Callable[[], object]:
    return lambda: open(path, mode).close()


def forbidden_actions(folder: Path) -> dict[str, Callable[[], object]]:
    present = folder / "present"
    present.write_text("kept")
    new = folder / "new"
    return {
        "socket": socket.socket,
        "unix socket": lambda: socket.socket(socket.AF_UNIX),
        "socketpair": socket.socketpair,
        "open w": open_for("w", new),
        "open a": open_for("a", present),
        "open r+": open_for("r+", present),
        "open x": open_for("x", new),
        "O_TMPFILE": lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR),
        "truncate on reading": lambda: os.open(present, os.O_RDONLY | os.O_TRUNC),
        "create on reading": lambda: os.open(new, os.O_RDONLY | os.O_CREAT),
        "execve": lambda: os.execv("/bin/true", ["true"]),
        "posix_spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "subprocess": lambda: subprocess.run(["/bin/true"]),
        "thread": lambda: threading.Thread(target=int).start(),
        "mkdir": lambda: os.mkdir(new),
        "unlink": lambda: os.unlink(present),
        "rename": lambda: os.rename(present, new),
        "link": lambda: os.link(present, new),
        "symlink": lambda: os.symlink(present, new),
        "chmod": lambda: os.chmod(present, 0o777),
        "chown": lambda: os.chown(present, 0, 0),
        "truncate": lambda: os.truncate(present, 0),
        "utime": lambda: os.utime(present),
        "mkfifo": lambda: os.mkfifo(new),
        "chdir": lambda: os.chdir(folder),
        "setuid": lambda: os.setuid(0),
        "setsid": os.setsid,
        "memfd_create": lambda: os.memfd_create("x"),
        "eventfd": lambda: os.eventfd(0),
        "pidfd_open": lambda: os.pidfd_open(os.getppid()),
    }


ONLY_THE_WORKER: dict[str, Callable[[], object]] = {
    "fork": lambda: os.fork() or os._exit(0),
    "kill the parent": lambda: os.kill(os.getppid(), 0),
    "kill everybody": lambda: os.kill(-1, 0),
    "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16)),
    "pipe": os.pipe,
    "dup": lambda: os.dup(0),
    "write elsewhere": lambda: os.write(2, b""),
}


def refused(outcome: object) -> bool:
    # Python turns two of the kernel's refusals into errors of its own.
    return isinstance(outcome, PermissionError) or str(outcome) in (
        "can't start new thread",
        "not allowed to raise maximum limit",
    )


SHARED_NAMES = sorted(forbidden_actions(Path("/tmp")))


@pytest.mark.parametrize("name", [*SHARED_NAMES, *ONLY_THE_WORKER])
def test_a_worker_can_do_nothing_but_compute_and_read(name, tmp_path):
    action = (forbidden_actions(tmp_path) | ONLY_THE_WORKER)[name]
    outcome = in_fork(worker, action)
    assert refused(outcome), outcome
    assert [p.name for p in tmp_path.iterdir()] == ["present"]
    assert (tmp_path / "present").read_text() == "kept"


@pytest.mark.parametrize("name", SHARED_NAMES)
def test_the_zygote_has_no_network_starts_no_program_and_writes_no_file(name, tmp_path):
    outcome = in_fork(zygote, forbidden_actions(tmp_path)[name])
    assert refused(outcome), outcome
    assert [p.name for p in tmp_path.iterdir()] == ["present"]
    assert (tmp_path / "present").read_text() == "kept"


def test_a_zygote_can_fork_workers_and_they_cannot_fork_again():
    def fork_a_worker() -> int:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            enter_worker_sandbox((writer,), MEMORY, 5)
            try:
                os.fork()
            except PermissionError:
                os._exit(42)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert in_fork(zygote, fork_a_worker) == 42


def test_a_worker_reads_files_and_imports_python_modules(tmp_path):
    (tmp_path / "present").write_text("text")
    assert in_fork(worker, (tmp_path / "present").read_text) == "text"
    assert in_fork(worker, lambda: __import__("this").__name__ and len(__import__("colorsys").__doc__) > 0)


def test_a_worker_gets_the_memory_that_it_is_given_and_no_more():
    # Mapped, and not from what the process that is forked has ready on its heap.
    assert in_fork(worker, lambda: len(mmap.mmap(-1, MEMORY // 2))) == MEMORY // 2
    refused = in_fork(worker, lambda: len(mmap.mmap(-1, MEMORY + (32 << 20))))
    assert isinstance(refused, OSError) and refused.errno == errno.ENOMEM


def test_the_limits_of_a_worker_are_hard_ones():
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        worker(writer)
        os.write(writer, b"entered")
        while True:
            pass
    assert os.read(reader, 7) == b"entered"
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    limits = {line[:26].strip(): line[26:].split()[:2] for line in lines}
    assert limits["Max cpu time"] == ["5", "5"]
    assert limits["Max core file size"] == limits["Max file size"] == limits["Max processes"] == ["0", "0"]
    assert limits["Max open files"] == ["32", "32"]
    assert limits["Max address space"][0] == limits["Max address space"][1] != "unlimited"


def test_a_sandbox_that_the_kernel_refuses_is_an_error_that_names_the_remedy():
    def refuse_further_filters() -> None:
        cage = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        cage.add_rule(pyseccomp.ERRNO(22), "seccomp")
        cage.add_rule(pyseccomp.ERRNO(22), "prctl", pyseccomp.Arg(0, pyseccomp.EQ, 22))
        cage.load()

    def enter() -> str:
        try:
            enter_worker_sandbox((1,), MEMORY, 5)
        except SandboxUnavailable as error:
            return str(error)
        return "entered"

    assert "CONFIG_SECCOMP_FILTER" in in_fork(lambda writer: refuse_further_filters(), enter)


def test_the_main_process_is_not_confined_by_the_import():
    assert "swarmd.system.sandbox" in sys.modules
    socket.socket().close()
