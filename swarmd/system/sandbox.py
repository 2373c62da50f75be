"""What a process that handles strangers' text gives up: system calls (seccomp) and resources (setrlimit).

Two cages: that of the zygote, which forks the workers and watches them, and the narrower one of a worker, which
does nothing but compute. Both are lists of what is allowed; every other system call fails with EPERM, so that a
library that tries its luck gets a PermissionError and goes on. Neither needs any privilege (no_new_privs is set),
and neither can be left again. Sources: seccomp(2), prctl(2), setrlimit(2), libseccomp's seccomp_rule_add(3).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import mmap
import os
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from swarmd.system.exits import ConfigurationError
from swarmd.system.memory import killed_together


class SandboxUnavailable(ConfigurationError):
    """This machine does not let a process give up system calls."""


_COMPUTE = (
    # memory
    "brk", "munmap", "mremap", "madvise",
    # time, randomness and the process's own numbers
    "clock_gettime", "clock_getres", "gettimeofday", "times", "getrusage", "getrandom",
    "getpid", "getppid", "gettid", "getuid", "geteuid", "getgid", "getegid",
    "uname", "sysinfo", "sched_yield", "sched_getaffinity",
    # threads' locks and signals inside the process
    "futex", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
    # reading: scorers import modules and read tables when they are first used
    "read", "pread64", "lseek", "close", "fstat", "newfstatat", "stat", "lstat", "statx", "access", "faccessat",
    "faccessat2", "readlink", "readlinkat", "getcwd", "getdents64",
    "exit", "exit_group",
)  # fmt: skip

_WATCH = (
    # workers: their ends, their signals, the pipes they report through
    "wait4", "kill", "pipe2", "dup", "dup2", "dup3", "poll", "ppoll", "fcntl", "ioctl", "write", "writev",
    # the link to the parent process
    "sendto", "recvfrom",
    # what a forked child calls before its own cage closes: prctl, seccomp, rlimits, the C library's set-up
    "prctl", "seccomp", "prlimit64", "setrlimit", "getrlimit", "set_robust_list", "rseq", "set_tid_address",
)  # fmt: skip

# Any of these in the flags makes an open(2) more than reading; the last is O_TMPFILE without O_DIRECTORY.
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | (os.O_TMPFILE & ~os.O_DIRECTORY)
# fork(2) as the C library makes it has none of these: CLONE_VM and CLONE_THREAD make threads, CLONE_NEW*
# namespaces.
_NOT_A_FORK = 0x00000100 | 0x00010000 | 0x7E020080


@functools.cache
def _library() -> Any:
    try:
        import pyseccomp
    except RuntimeError as error:
        raise SandboxUnavailable(
            "libseccomp was not found, and without it the scorer cannot be confined; install it "
            "(Debian: apt install libseccomp2)"
        ) from error
    return pyseccomp


def _filter(allowed: Iterable[str]) -> Any:
    seccomp = _library()
    cage = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for name in allowed:
        cage.add_rule(seccomp.ALLOW, name)
    reading = seccomp.MASKED_EQ, _WRITING, 0
    cage.add_rule(seccomp.ALLOW, "open", seccomp.Arg(1, *reading))
    cage.add_rule(seccomp.ALLOW, "openat", seccomp.Arg(2, *reading))
    return cage


@functools.cache
def _zygote_filter() -> Any:
    seccomp = _library()
    cage = _filter((*_COMPUTE, *_WATCH, "mmap", "mprotect"))
    cage.add_rule(seccomp.ALLOW, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, _NOT_A_FORK, 0))
    # The C library takes ENOSYS, and nothing else, as the advice to use clone instead.
    cage.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    return cage


@functools.cache
def _worker_filter(writable: tuple[int, ...]) -> Any:
    seccomp = _library()
    cage = _filter(_COMPUTE)
    for name in ("mmap", "mprotect"):
        cage.add_rule(seccomp.ALLOW, name, seccomp.Arg(2, seccomp.MASKED_EQ, mmap.PROT_EXEC, 0))
    for descriptor in writable:
        cage.add_rule(seccomp.ALLOW, "write", seccomp.Arg(0, seccomp.EQ, descriptor))
    return cage


def prepare_worker_sandbox(writable: tuple[int, ...]) -> None:
    """Builds the worker's filter in the process that forks them, so that no worker spends time on it."""
    _worker_filter(writable)


def enter_zygote_sandbox() -> None:
    """No network, no programs, no threads, no file opened for writing, no core dump; forking stays possible.

    Call after the imports. Raises SandboxUnavailable where the kernel, or a filter around this process, refuses.
    """
    # Where memory runs out and the kernel takes one process, a worker and its one answer are lost rather than the node:
    # proc(5), oom_score_adj. Not where it takes the whole unit with the one (OOMPolicy=kill): the first to be killed on
    # all of the machine would then be the unit, for its smallest process, where that stands at the unit's own
    # OOMScoreAdjust otherwise. What a worker can take is bounded in any case (RLIMIT_AS below), and there is one at a
    # time. A /proc that cannot be written leaves the choice to the kernel.
    if not killed_together():
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, 128)
    _load(_zygote_filter())


def enter_worker_sandbox(writable: tuple[int, ...], memory_bytes: int, cpu_seconds: int) -> None:
    """Nothing but computing, reading files, and writing to the descriptors in `writable`.

    memory_bytes: address space this process may add to what it maps now. cpu_seconds: CPU time of the process
    until the kernel kills it. Raises SandboxUnavailable like `enter_zygote_sandbox`.
    """
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    _lower(resource.RLIMIT_AS, mapped + memory_bytes)
    _lower(resource.RLIMIT_CPU, cpu_seconds)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_NPROC, 0)
    _lower(resource.RLIMIT_NOFILE, 32)
    _load(_worker_filter(writable))


def _lower(kind: int, value: int) -> None:
    """Sets the soft and the hard limit to `value`, or leaves a hard limit that is lower already."""
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _load(cage: Any) -> None:
    try:
        cage.load()
    except OSError as error:
        raise SandboxUnavailable(
            f"the kernel refuses a seccomp filter ({error.strerror}), and without it the scorer cannot be confined; "
            "use a kernel with CONFIG_SECCOMP_FILTER, or allow prctl() and seccomp() in the container's profile"
        ) from error
