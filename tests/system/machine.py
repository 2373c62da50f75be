"""A root directory booted under its own systemd, in a container (systemd-nspawn) without a network.

What happens in it leaves no trace: the root is only read, and what is written goes into memory. Commands run at the
speed of the host. Control groups are the host's, read-only for the container: systemd in it counts processes but
cannot limit memory; for that there is the virtual machine.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from swarmd.system.child import die_with

PATIENCE = 300.0
"""Seconds after which something that should have happened counts as failed, on a machine with much else to do."""

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_POWER_OFF_SECONDS = 60.0
_LAST_LINES = 60

Found = TypeVar("Found")


class MachineError(Exception):
    """The machine did not boot, or a command in it failed, or something did not happen in time; with its last lines."""


@dataclass(frozen=True)
class Finished:
    """A command that ran in the machine. output: both streams; seconds: how long it took."""

    code: int
    output: str
    seconds: float


class Machine:
    """A booted root directory. A context manager: at its end it is powered off and nothing of it runs any more.

    console: gets what the container writes to its console.
    """

    def __init__(self, root: Path, console: Path) -> None:
        self._root = root
        self._console = console
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> Machine:
        parent = os.getpid()
        command = [
            "systemd-nspawn", f"--directory={self._root}", "--volatile=overlay", "--boot", "--quiet",
            "--register=no", "--keep-unit", "--private-network", "--hostname=node", "--console=pipe",
            "--link-journal=no", "--resolv-conf=off", "--timezone=off",
            # Nothing that is enabled begins by itself: the tests start what they need.
            "systemd.unit=basic.target",
        ]  # fmt: skip
        with open(self._console, "ab") as console:
            self._nspawn = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, preexec_fn=lambda: die_with(parent)
            )
        try:
            self._leader = self.until(self._systemd, 60, "systemd-nspawn starts the root's init", every=0.1)
            # It answers before it has begun: not yet, and at first not at all.
            self.until(self._booted, PATIENCE, "the machine has booted", every=0.1)
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._nspawn is not None
        self.run("systemctl", "--no-block", "poweroff", check=False)
        try:
            self._nspawn.wait(_POWER_OFF_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
            raise MachineError(f"the machine did not power off in {_POWER_OFF_SECONDS:g} s") from None

    def run(self, *command: str, input: str = "", seconds: float = PATIENCE, check: bool = True) -> Finished:
        """Runs a command as root and waits for it.

        MachineError where it takes longer than `seconds`, or fails and `check` is set.
        """
        begun = time.monotonic()
        # timeout(1) in there: to end nsenter from here would leave the command running.
        entered = ["nsenter", f"--target={self._leader}", "--all", "timeout", "-k", "5", str(seconds), *command]
        done = subprocess.run(
            entered, input=input.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_ENVIRONMENT
        )
        finished = Finished(done.returncode, done.stdout.decode(errors="replace"), time.monotonic() - begun)
        if finished.code in (124, 137) and finished.seconds >= seconds:
            raise self._failed(f"{' '.join(command)}: took longer than {seconds:g} s")
        if check and finished.code != 0:
            raise self._failed(f"{' '.join(command)}: ended with {finished.code}; it wrote:\n{finished.output}")
        return finished

    def path(self, path: str) -> Path:
        """A file of the machine, as it can be read from here. Symbolic links in it would lead to files of the host."""
        return Path(f"/proc/{self._leader}/root", path.lstrip("/"))

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Writes a file of root's in one step, and the directories it needs."""
        target = self.path(path)
        for folder in reversed(target.parents):
            if not folder.exists():
                folder.mkdir()
                folder.chmod(0o755)  # whatever the umask of the tests is
        temporary = target.with_name(f".{target.name}.new")
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(mode)
        temporary.rename(target)

    def until(self, what: Callable[[], Found | None], seconds: float, why: str, every: float = 0.5) -> Found:
        """What `what` returns, as soon as that is true; it is asked `every` so many seconds, since asking costs the
        machine its time. MachineError where it isn't within `seconds`."""
        end = time.monotonic() + seconds
        while not (found := what()):
            if self._nspawn is None or self._nspawn.poll() is not None:
                raise self._failed(f"the machine is off while waiting until {why}")
            if time.monotonic() > end:
                raise self._failed(f"not within {seconds:g} s: {why}")
            time.sleep(every)
        return found

    def signal(self, name: str, pid: int) -> None:
        """Sends a signal ("KILL") to a process of the machine."""
        self.run("sh", "-c", f"kill -{name} {pid}")  # the shell's: kill(1) is not in every machine

    def processes(self, user: str) -> list[str]:
        """Process ids and command lines of a user's processes in the machine; of zombies the names."""
        found = []
        uid = re.search(rf"^{user}:[^:]*:(\d+):", self.path("/etc/passwd").read_text(), re.MULTILINE)
        assert uid is not None, f"the machine has no user {user}"
        for folder in self.path("/proc").glob("[0-9]*"):
            try:
                if f"\nUid:\t{uid[1]}\t" in (folder / "status").read_text():
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    found.append(f"{folder.name} {line or (folder / 'comm').read_text().strip()}")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended in between
        return found

    def _systemd(self) -> int | None:
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        for child in children.read_text().split():
            try:
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
            except FileNotFoundError:
                continue
        return None

    def _booted(self) -> bool:
        answer = self.run("systemctl", "is-system-running", "--wait", check=False).output.strip()
        return answer in ("running", "degraded")

    def _kill(self) -> None:
        if self._nspawn is not None:
            # nspawn's own death takes the container's init with it, and that all its processes.
            self._nspawn.send_signal(signal.SIGKILL)
            self._nspawn.wait()

    def _failed(self, what: str) -> MachineError:
        console = self._console.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        told = [f"{what}", f"the end of its console ({self._console}):", *console]
        if self._leader:
            last = ["nsenter", f"--target={self._leader}", "--all", "journalctl", "--no-pager", f"-n{_LAST_LINES}"]
            journal = subprocess.run(last, capture_output=True, text=True, env=_ENVIRONMENT)
            told += ["the end of its journal:", journal.stdout or journal.stderr]
        return MachineError("\n".join(told))
