"""What `swarmd doctor` looks at of the node's membership: identity, secret, what all nodes of the swarm have alike, and
the machine's clock."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from swarmd.agreed import compare
from swarmd.awaited import STARTING, not_yet_in, still_in
from swarmd.config.secret_values import CREDENTIAL_PREFIX
from swarmd.doctor.look import Finding, Look
from swarmd.network.identity import identity_path, load
from swarmd.network.swarm_secret import read_swarm_secret
from swarmd.swarming import in_a_swarm

_SYNCHRONIZED = Path("/run/systemd/timesync/synchronized")
# adjtimex(2): the status word, and the bit that says that nobody disciplines the clock.
_TIMEX_BYTES, _STATUS_OFFSET, _STA_UNSYNC = 512, 40, 0x40


def membership(look: Look) -> Iterator[Finding]:
    """Whether there is a swarm to look at."""
    swarm = look.config.swarm
    status = look.status if look.running else {}
    if waits := still_in(status, look.config) or not_yet_in(status, look.config):
        begun = status["state"] == STARTING and not status.get("network")
        yield Finding("swarm", "ok" if begun else "warning", waits, None if begun else look.begin("restart"))
        return
    if in_a_swarm(look.config):
        name, state = swarm.name or swarm.id or swarm.dialect, look.status.get("state")
        role = "helps others to find each other" if look.bootnode else "trains"
        if look.running:
            yield Finding("swarm", "ok", f"the node {role} in the swarm {name}")
        elif state == "failed":
            yield Finding("swarm", "warning", f"the node is in the swarm {name}, and its last run has failed; "
                          f"`{look.command('status')}` tells when", look.begin())
        else:
            yield Finding("swarm", "ok", f"the node is in the swarm {name}, and does not run now")
        return
    yield Finding("swarm", "ok", "the node is in no swarm and trains alone; `swarmd found NAME` makes a swarm, "
                  "`swarmd join INVITE` joins one")


def identity(look: Look) -> Iterator[Finding]:
    """The key can be used, and by nobody else."""
    reference = look.config.network.identity_file
    if _hidden(reference, look):
        yield Finding("identity", "skipped", f"network.identity_file is {reference}, which the service alone can read")
        return
    path = identity_path(reference, look.state, look.environ)
    if not os.path.lexists(path):
        yield Finding("identity", "ok", f"there is no key yet; the first start makes {path}")
        return
    key = load(path)
    found = path.stat()
    yield Finding("identity", "ok", f"{key.name} ({key.peer_id}), {path}, mode {found.st_mode & 0o7777:04o}, of user "
                  f"{found.st_uid}")


def secret(look: Look) -> Iterator[Finding]:
    """The secret of a private swarm can be read."""
    reference = look.config.swarm.secret_file
    if reference is None:
        return
    if _hidden(reference, look):
        yield Finding("secret", "skipped", f"swarm.secret_file is {reference}, which the service alone can read")
        return
    read_swarm_secret(reference, look.environ)
    yield Finding("secret", "ok", f"the swarm is private, and its secret in {reference} can be read")


def _hidden(reference: str | None, look: Look) -> bool:
    return bool(reference and reference.startswith(CREDENTIAL_PREFIX)) and "CREDENTIALS_DIRECTORY" not in look.environ


def agreement(look: Look) -> Iterator[Finding]:
    """Tasks, clock and keys are those of the invite."""
    try:
        found = compare(look.config, look.config_path, look.environ)
    except OSError as error:
        yield Finding("agreement", "skipped", f"{error.filename} cannot be read ({error.strerror}), so nothing says "
                      "what the swarm agreed on")
        return
    if found.agreed is None:
        yield Finding("agreement", "skipped", f"{found.drop_in} does not say what the swarm agreed on; with an invite "
                      "it will", look.command("join INVITE"))
    elif found.disagreement:
        yield Finding("agreement", "failed", found.disagreement, found.fix)
    else:
        yield Finding("agreement", "ok", f"tasks, clock and keys are those of the invite ({found.agreed[:12]})")


def reasoning_gym(_: Look) -> Iterator[Finding]:
    """The library that makes the tasks is the version that all nodes of this release have."""
    here = version("reasoning-gym")
    try:
        pinned = next((line.partition("==")[2] for line in requires("swarmd") or ()
                       if line.replace("_", "-").startswith("reasoning-gym==")), here)
    except PackageNotFoundError:
        pinned = here  # a checkout that is not installed
    if here == pinned.partition(";")[0].strip():
        yield Finding("reasoning-gym", "ok", f"the tasks are made by reasoning-gym {here}")
    else:
        yield Finding("reasoning-gym", "failed", f"reasoning-gym is {here}, and this swarmd needs {pinned}: peers "
                      "refuse this node's tasks", f"pip install reasoning-gym=={pinned}  # or install swarmd anew")


def clock(_: Look) -> Iterator[Finding]:
    """Somebody keeps the machine's clock right: rounds and the life of records go by it."""
    if _SYNCHRONIZED.exists() or _disciplined():
        yield Finding("clock", "ok", "the system clock is synchronized")
    else:
        yield Finding("clock", "warning", "nothing keeps the system clock right, and the rounds of a swarm go by it",
                      "sudo timedatectl set-ntp true  # where that fails: sudo apt install systemd-timesyncd")


def _disciplined() -> bool:
    """What the kernel says, whichever program sets the clock (chrony, ntpd, the host of a container)."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: only read
    if ctypes.CDLL(None, use_errno=True).adjtimex(timex) < 0:
        return False
    status = int.from_bytes(timex.raw[_STATUS_OFFSET : _STATUS_OFFSET + 4], "little")
    return not status & _STA_UNSYNC
