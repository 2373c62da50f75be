"""Root directories of Debian 12, as small as the package's `Depends:` allow, with and without the package installed.

They are made once and kept in `.run/cache/system`: the bare one for each list of packages, the one with the package
for each build of it. Nobody writes into those; who has to write gets an overlay of one, or copies it.

    python -m tests.system.roots     makes both, and prints where the installed one is
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "dist" / "swarmd.deb"
CACHE = REPOSITORY / ".run" / "cache" / "system"

_RELEASE = "bookworm"
# What a server has whatever it is for. No Python packages: the interpreter comes because the package depends on it.
_ALWAYS = ("systemd", "systemd-sysv", "dbus")
_ROOM = 3 << 30  # bytes: the package unpacked, and half as much again
_UNUSED_SECONDS = 3600
_TOOLS = ("mmdebstrap", "dpkg-deb", "unshare", "chroot", "mount")


class RootError(Exception):
    """A root directory could not be made; with the last words of the program that failed."""


def why_not() -> str | None:
    """Why no root directory can be made here, for a test to say when it skips; None where it can."""
    if os.geteuid() != 0:
        return "needs root, to make a Debian root directory and to install the package in it"
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"needs {', '.join(missing)}: `make test` installs them"
    if not PACKAGE.exists():
        return f"needs {PACKAGE.relative_to(REPOSITORY)}: `make deb` builds it"
    return None


def bare_root() -> Path:
    """A root directory with all that the package depends on, and without it. Only to be read.

    Made from Debian's archive by mmdebstrap(1) when it is not in the cache; raises RootError with its last words.
    """
    names = sorted({*_ALWAYS, *_dependencies()})
    root = CACHE / f"bare-{_digest(_RELEASE, *names)}"
    with _made_once(root) as building:
        if building is not None:
            _call("mmdebstrap", "--variant=minbase", "--mode=root", f"--include={','.join(names)}", _RELEASE, building)
            # Each machine shall think itself new, and a chroot has no name server of its own.
            (building / "etc/machine-id").write_text("uninitialized\n")
            (building / "etc/hostname").write_text("node\n")
    return root


def shared_root() -> Path:
    """A root directory with the newest build of the package installed, by apt and without a network. Only to be read.

    Raises RootError where the package does not install.
    """
    root = CACHE / f"installed-{_digest(bare_root().name, _content(PACKAGE))}"
    with _made_once(root) as building:
        if building is not None:
            for old in CACHE.glob("installed-*"):
                # Two gigabytes of a build that is gone; another run may still have it booted.
                if old not in (root, building) and time.time() - old.stat().st_mtime > _UNUSED_SECONDS:
                    shutil.rmtree(old)
            _call("cp", "-a", "--reflink=auto", f"{bare_root()}/.", building)
            install(building, PACKAGE)
    os.utime(root)
    return root


@contextmanager
def installed_root(folder: Path) -> Iterator[Path]:
    """A root directory with the package installed that may be changed: `folder`/root, gone at the end."""
    with layered(shared_root(), folder) as root:
        yield root


@contextmanager
def layered(lower: Path, folder: Path) -> Iterator[Path]:
    """`lower` with changes kept in `folder`: an overlay at `folder`/root, or a copy where the kernel has no overlay
    for these file systems (an overlay on an overlay, as in many containers). Nothing of it is left at the end.

    The changes are in memory where there is plenty: to write and to delete the 30,000 files of the package takes a
    disk minutes.
    """
    folder.mkdir(parents=True)
    in_memory = _available_memory() > 4 * _ROOM
    if in_memory:
        _call("mount", "-t", "tmpfs", "-o", f"mode=0700,size={_ROOM}", "tmpfs", folder)
    try:
        with _overlay(lower, folder) as root:
            yield root
    finally:
        if in_memory:
            _call("umount", folder)
        folder.rmdir()


@contextmanager
def _overlay(lower: Path, folder: Path) -> Iterator[Path]:
    root, changes, work = (folder / name for name in ("root", "changes", "work"))
    for made in (root, changes, work):
        made.mkdir()
    changes.chmod(0o755)  # which is the new root's mode, whatever this process' umask is
    options = f"lowerdir={lower},upperdir={changes},workdir={work}"
    mounted = subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", root], capture_output=True)
    if mounted.returncode != 0:
        _call("cp", "-a", "--reflink=auto", f"{lower}/.", root)
    try:
        yield root
    finally:
        if mounted.returncode == 0:
            _call("umount", root)
        for made in (root, changes, work):
            shutil.rmtree(made)


def install(root: Path, package: Path, *options: str) -> str:
    """What a user does, `apt install ./swarmd.deb`, in `root`, without a network. Returns what apt printed.

    Raises RootError where apt fails.
    """
    inside = root / "tmp" / "swarmd.deb"
    inside.touch()
    # A bind mount instead of a copy of 400 MB.
    _call("mount", "--bind", package, inside)
    try:
        return offline(root, "apt-get", "install", "--yes", *options, "/tmp/swarmd.deb")
    finally:
        _call("umount", inside)
        inside.unlink()


def offline(root: Path, *command: str, input: str = "") -> str:
    """Runs a command in `root` without a network, with /proc and /dev/shm, and returns its output. Raises RootError
    where it fails."""
    # --fork --pid: what the command leaves running dies with it. The mounts are the command's own.
    script = 'mount -t proc proc "$1/proc" && mount -t tmpfs -o mode=1777 shm "$1/dev/shm" && exec chroot "$@"'
    entered = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", str(root)]
    return _call(*entered, *command, input=input)


def _call(*command: str | Path, input: str = "") -> str:
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "HOME": "/root",
    }  # fmt: skip
    done = subprocess.run(
        command, input=input, env=environment, umask=0o022, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode != 0:
        words = " ".join(map(str, command))
        raise RootError(f"{words}: ended with {done.returncode}; it wrote:\n{done.stdout[-4000:]}")
    return done.stdout


@contextmanager
def _made_once(root: Path) -> Iterator[Path | None]:
    """A new folder to build in, which becomes `root` when that went well; None where `root` is there already. Another
    process that wants the same waits."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        if root.exists():
            yield None
            return
        fcntl.flock(lock, fcntl.LOCK_EX)
        if root.exists():
            yield None
            return
        building = root.with_name(f"{root.name}.new")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        yield building
        building.rename(root)


def _available_memory() -> int:
    """Bytes, as proc(5) has them in /proc/meminfo; limits of control groups are not looked at."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def _dependencies() -> list[str]:
    """The packages that the .deb depends on; of alternatives the first, which is the one apt takes."""
    depends = subprocess.run(
        ["dpkg-deb", "--field", PACKAGE, "Depends"], check=True, capture_output=True, text=True
    ).stdout
    return [each.split("|")[0].split("(")[0].strip() for each in depends.split(",")]


def _content(package: Path) -> str:
    with open(package, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


if __name__ == "__main__":
    if reason := why_not():
        sys.exit(f"no root directory can be made here: {reason}")
    print(shared_root())
