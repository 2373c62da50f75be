"""The agent inside a virtual machine: runs commands that come over a virtio port, as root.

It is put into the machine by the initrd (see kernel.py) and knows nothing but Python's standard library. One JSON
object a line each way. First it says {"boot": boot id}; then for each request there is an answer with the same id:

    {"id": 1, "run": ["true"], "input": "text", "seconds": 60}   {"id": 1, "code": 0, "output": "both streams"}
    {"id": 2, "read": "/path"}                                   {"id": 2, "content": "base64", or "error": "why"}
    {"id": 3, "write": "/path", "content": "base64", "mode": 420}    {"id": 3}

`code` is negative for a signal, as in subprocess, and null where the command ran longer than `seconds` and was killed.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

PORT_NAME = "swarmd-test"
_answering = threading.Lock()


def port() -> str:
    """The device of our virtio port; there is none before the kernel has found it."""
    while True:
        for entry in Path("/sys/class/virtio-ports").glob("vport*"):
            if (entry / "name").read_text().strip() == PORT_NAME and (device := Path("/dev", entry.name)).exists():
                return str(device)
        time.sleep(0.1)


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Runs a command in a session of its own, so that all it started can be killed when its time is over."""
    with subprocess.Popen(
        request["run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        code: int | None
        try:
            output, _ = process.communicate(request.get("input", "").encode(), timeout=request["seconds"])
            code = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            code = None
    return {"code": code, "output": output.decode(errors="replace")}


def read(request: dict[str, Any]) -> dict[str, Any]:
    return {"content": base64.b64encode(Path(request["read"]).read_bytes()).decode()}


def write(request: dict[str, Any]) -> dict[str, Any]:
    path = Path(request["write"])
    path.parent.mkdir(parents=True, exist_ok=True)
    # In one step: there may be a program that takes the file as soon as it is there.
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(base64.b64decode(request["content"]))
    temporary.chmod(request["mode"])
    temporary.rename(path)
    return {}


def answer(request: dict[str, Any], descriptor: int) -> None:
    """Does what is asked and says how it went."""
    action = run if "run" in request else read if "read" in request else write
    try:
        reply = action(request)
    except OSError as error:
        reply = {"error": str(error)}
    send(descriptor, {"id": request["id"], **reply})


def send(descriptor: int, message: dict[str, Any]) -> None:
    """Writes one line; the port takes as much at a time as its queue holds."""
    rest = memoryview(json.dumps(message).encode() + b"\n")
    with _answering:
        while rest:
            rest = rest[os.write(descriptor, rest):]


def serve() -> None:
    """Answers until the machine goes down, each request in a thread of its own."""
    descriptor = os.open(port(), os.O_RDWR | os.O_CLOEXEC)
    send(descriptor, {"boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip()})
    pending = b""
    while True:
        received = os.read(descriptor, 65536)
        if not received:
            time.sleep(0.2)  # nobody holds the other end
            continue
        *lines, pending = (pending + received).split(b"\n")
        for line in lines:
            threading.Thread(target=answer, args=(json.loads(line), descriptor), daemon=True).start()


if __name__ == "__main__":
    try:
        serve()
    except OSError as error:
        sys.exit(f"the virtio port: {error}")
