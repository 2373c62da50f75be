"""A virtual machine whose processor is emulated: booted, spoken to, rebooted, and its plug pulled.

Emulated (qemu's TCG) even where the host could do better, so that it runs anywhere and the plug can be pulled at any
instruction. Everything takes ten to twenty times as long as on the host.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarmd.system.child import die_with
from tests.system.vm.agent import PORT_NAME
from tests.system.vm.kernel import Kernel

PATIENCE = 2700.0
"""Seconds after which something that should have happened counts as failed, emulated and beside other work; more than
the unit's TimeoutStartSec= here (node.py), so that a start that fails is told by systemd."""
_LAST_CHARACTERS = 3000
_APPEND = "console=ttyS0 root=/dev/vda rw rdinit=/init panic=-1 loglevel=4 systemd.show_status=no systemd.getty_auto=no"
# What fails before the agent runs is told nowhere else.
_APPEND += " systemd.journald.forward_to_console=1 systemd.journald.max_level_console=err"


class MachineError(Exception):
    """The machine died, did not answer, or a command in it failed; with the end of its console."""


@dataclass(frozen=True)
class Finished:
    """A command that ran in the machine. code: negative for a signal; seconds: the host's."""

    code: int
    output: str
    seconds: float


class Machine:
    """One machine on one disk. A context manager: at its end nothing of it runs any more.

    console: gets all that the machine writes to its serial console, over all its boots.
    """

    def __init__(self, disk: Path, kernel: Kernel, console: Path, memory_mib: int = 3072) -> None:
        self._disk = disk
        self._kernel = kernel
        self._memory_mib = memory_mib
        self.console = console
        self._qemu: subprocess.Popen[bytes] | None = None
        self._agent: socket.socket | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._boots: list[str] = []
        self._booted = threading.Condition(self._lock)
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._qemu is not None:
            self.pull_plug()

    def boot(self) -> float:
        """Switches it on and waits for the agent; the seconds that took."""
        assert self._qemu is None, "it is on already"
        begun, boots = time.monotonic(), len(self._boots)
        ours, theirs = socket.socketpair()
        with open(self.console, "ab") as console:
            parent = os.getpid()
            self._qemu = subprocess.Popen(
                self._command(theirs.fileno()),
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, pass_fds=(theirs.fileno(),),
                preexec_fn=lambda: die_with(parent),
            )  # fmt: skip
        theirs.close()
        self._agent = ours
        self._reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self._reader.start()
        self._wait_for_boot(boots)
        return time.monotonic() - begun

    def pull_plug(self) -> None:
        """Ends the machine between two instructions. What its disk had not been told to flush may be lost."""
        assert self._qemu is not None and self._agent is not None and self._reader is not None, "it is off already"
        self._qemu.send_signal(signal.SIGKILL)
        self._qemu.wait()
        self._reader.join()
        self._agent.close()
        self._qemu = self._agent = self._reader = None

    def reboot(self) -> float:
        """Has systemd reboot it, and waits for the agent of the next boot; the seconds that took."""
        begun, boots = time.monotonic(), len(self._boots)
        self.run("systemctl", "--no-block", "reboot")
        self._wait_for_boot(boots)
        return time.monotonic() - begun

    @property
    def boot_id(self) -> str:
        """/proc/sys/kernel/random/boot_id of the boot that runs now."""
        return self._boots[-1]

    def run(self, *command: str, input: str = "", seconds: float = PATIENCE, check: bool = True) -> Finished:
        """Runs a command as root and waits for it. MachineError where it takes longer, or fails and `check` is set."""
        begun = time.monotonic()
        answer = self._result(self.start(*command, input=input, seconds=seconds), seconds + PATIENCE)
        if "error" in answer:
            raise self._failed(f"{' '.join(command)}: {answer['error']}")
        if answer["code"] is None or (check and answer["code"] != 0):
            how = f"took longer than {seconds:g} s" if answer["code"] is None else f"ended with {answer['code']}"
            raise self._failed(f"{' '.join(command)}: {how}; it wrote:\n{answer['output']}")
        return Finished(answer["code"], answer["output"], time.monotonic() - begun)

    def start(self, *command: str, input: str = "", seconds: float = PATIENCE) -> Future[dict[str, Any]]:
        """Starts a command; the agent's answer, when it comes."""
        return self._ask({"run": command, "input": input, "seconds": seconds})

    def read(self, path: str) -> bytes | None:
        """A file of the machine; None where it cannot be read."""
        answer = self._result(self._ask({"read": path}), PATIENCE)
        return base64.b64decode(answer["content"]) if "content" in answer else None

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Writes a file, and the directories it needs."""
        data = content.encode() if isinstance(content, str) else content
        request = {"write": path, "content": base64.b64encode(data).decode(), "mode": mode}
        answer = self._result(self._ask(request), PATIENCE)
        if "error" in answer:
            raise self._failed(f"{path}: {answer['error']}")

    def _command(self, agent: int) -> Sequence[str | Path]:
        return (
            "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
            "-m", str(self._memory_mib), "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none",
            "-kernel", self._kernel.image, "-initrd", self._kernel.initrd, "-append", _APPEND,
            "-drive", f"file={self._disk},if=virtio,format=qcow2", "-serial", "stdio",
            "-chardev", f"socket,id=agent,fd={agent}", "-device", "virtio-serial-pci",
            "-device", f"virtserialport,chardev=agent,name={PORT_NAME}",
        )  # fmt: skip

    def _ask(self, request: dict[str, Any]) -> Future[dict[str, Any]]:
        assert self._agent is not None, "it is off"
        future: Future[dict[str, Any]] = Future()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = future
            try:
                self._agent.sendall(json.dumps({"id": number, **request}).encode() + b"\n")
            except OSError as error:
                raise self._failed(f"the machine is gone: {error}") from None
        return future

    def _result(self, future: Future[dict[str, Any]], seconds: float) -> dict[str, Any]:
        try:
            return future.result(seconds)
        except TimeoutError:
            raise self._failed(f"no answer within {seconds:g} s") from None

    def _read(self, agent: socket.socket) -> None:
        """Gives each answer to who waits for it, until the machine is off."""
        with agent.makefile("rb") as lines:
            try:
                for line in lines:
                    # A boot cuts off whatever the one before it was writing.
                    message = json.loads(line[line.rfind(b'{"boot"') :] if b'{"boot"' in line else line)
                    self._take(message)
            except ConnectionResetError:
                pass  # the end of a machine whose plug was pulled
        self._lose("the machine is off")

    def _take(self, message: dict[str, Any]) -> None:
        if "boot" in message:
            self._lose("the machine has booted anew")
            with self._booted:
                self._boots.append(message["boot"])
                self._booted.notify_all()
            return
        with self._lock:
            future = self._waiting.pop(message["id"], None)
        if future is not None:
            future.set_result(message)

    def _lose(self, why: str) -> None:
        with self._lock:
            lost, self._waiting = self._waiting, {}
        for future in lost.values():
            future.set_exception(MachineError(why))

    def _wait_for_boot(self, boots: int) -> None:
        end = time.monotonic() + PATIENCE
        with self._booted:
            while len(self._boots) == boots:
                assert self._qemu is not None
                if self._qemu.poll() is not None or time.monotonic() > end:
                    break
                self._booted.wait(1.0)
            else:
                return
        raise self._failed(f"it did not boot; qemu's exit code is {self._qemu.poll()}")

    def _failed(self, what: str) -> MachineError:
        console = self.console.read_text(errors="replace") if self.console.exists() else ""
        return MachineError(f"{what}\nthe end of its console ({self.console}):\n{console[-_LAST_CHARACTERS:]}")
