"""Kernel and initrd for test machines, from Debian's packages, which are unpacked beside the cached root
directories and never installed.

The cloud kernel has ext4 built in and virtio as modules. The initrd loads those, mounts the disk, puts the agent and
what a test brings into /run, which systemd takes over as it is, and hands on to the disk's own init. So the disk
holds nothing but the machine under test.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tests.system import roots

CACHE = roots.CACHE / "vm"
PYTHON = "/usr/lib/swarmd/bin/python3"
"""The package's own interpreter: the machine need not have another."""
_KERNEL, _BUSYBOX = "linux-image-cloud-amd64", "busybox-static"
_DRIVERS = ("virtio_pci", "virtio_blk", "virtio_console")

_INIT = """\
#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t devtmpfs dev /dev
for module in {modules}; do $bb insmod /$module.ko; done
tries=0
until $bb mount -t ext4 /dev/vda /root; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || {{ echo "no file system on /dev/vda"; $bb poweroff -f; }}
    $bb sleep 0.1
done
$bb mount -t tmpfs -o mode=755,nosuid,nodev run /root/run
$bb cp -r /run/. /root/run/
exec $bb switch_root /root /sbin/init
"""

# Commands must run whatever happens to the machine's memory and whichever units are stopped.
_UNIT = f"""\
[Unit]
Description=Runs the commands of the tests
DefaultDependencies=no
After=systemd-journald.socket sysinit.target

[Service]
ExecStart={PYTHON} -I /run/vm/agent.py
Restart=always
OOMScoreAdjust=-1000
CPUWeight=1000
KillMode=process
"""
_WANTED = """\
[Unit]
Wants=vm-agent.service
"""


@dataclass(frozen=True)
class Kernel:
    """Files that qemu's -kernel and -initrd take; version as uname -r says it."""

    image: Path
    initrd: Path
    version: str


def kernel(files: Mapping[str, str]) -> Kernel:
    """Debian's newest cloud kernel as of the first call; downloaded then, and kept.

    files: what the machine finds in /run at each boot, by path below it, such as units in systemd/system/.
    """
    unpacked = CACHE / "packages"
    if not unpacked.exists():
        _unpack(unpacked)
    image = next((unpacked / "boot").glob("vmlinuz-*"))
    version = image.name.removeprefix("vmlinuz-")
    initrd = CACHE / "initrd"
    initrd.write_bytes(_archive(unpacked, version, files))
    return Kernel(image, initrd, version)


def _unpack(target: Path) -> None:
    temporary = target.with_name(f"{target.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for package in (_depends(_KERNEL), _BUSYBOX):
        # As root, apt would drop privileges for the download and then fail to write here.
        command = ["apt-get", "-o", "APT::Sandbox::User=root", "download", package]
        subprocess.run(command, cwd=temporary, check=True, stdout=subprocess.DEVNULL)
    for archive in temporary.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", archive, temporary], check=True)
        archive.unlink()
    temporary.rename(target)


def _depends(package: str) -> str:
    """The kernel itself: the package of this name only points to it."""
    told = subprocess.run(["apt-cache", "depends", package], check=True, capture_output=True, text=True).stdout
    names = [line.split()[-1] for line in told.splitlines() if "Depends: linux-image-" in line]
    if not names:
        raise RuntimeError(f"apt-cache knows no kernel behind {package}; run `apt-get update`")
    return names[0]


def _archive(unpacked: Path, version: str, files: Mapping[str, str]) -> bytes:
    modules = _with_dependencies(unpacked / "lib/modules" / version / "kernel/drivers")
    ours = {
        "vm/agent.py": Path(__file__).with_name("agent.py").read_text(),
        "systemd/system/vm-agent.service": _UNIT,
        "systemd/system/multi-user.target.d/vm-agent.conf": _WANTED,
    }
    content = {
        "init": _INIT.format(modules=" ".join(modules)).encode(),
        "bin/busybox": (unpacked / "bin/busybox").read_bytes(),
        **{f"{name}.ko": module for name, module in modules.items()},
        **{f"run/{path}": text.encode() for path, text in {**ours, **files}.items()},
    }
    return b"".join(_cpio(content, ("dev", "root")))


def _with_dependencies(folder: Path) -> dict[str, bytes]:
    """The drivers and what they need, in the order to load them in. Each names what it needs in its .modinfo."""
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        content = next(folder.rglob(f"{name}.ko")).read_bytes()
        needed = re.search(rb"\0depends=([^\0]*)\0", content)
        for other in needed[1].decode().split(",") if needed and needed[1] else ():
            if other not in found:
                add(other)
        found[name] = content

    for driver in _DRIVERS:
        add(driver)
    return found


def _cpio(files: dict[str, bytes], directories: tuple[str, ...]) -> Iterator[bytes]:
    """A "newc" archive (Linux Documentation/driver-api/early-userspace/buffer-format.rst)."""
    folders = {str(parent) for name in files for parent in PurePosixPath(name).parents if parent.name}
    entries = [(name, 0o040755, b"") for name in sorted({*directories, *folders})]
    entries += [(name, 0o100755 if name in ("init", "bin/busybox") else 0o100644, files[name]) for name in files]
    # The kernel opens the console for init before init can make it.
    entries.append(("dev/console", 0o020600, b""))
    entries.append(("TRAILER!!!", 0, b""))
    for number, (name, mode, content) in enumerate(entries):
        major, minor = (5, 1) if name == "dev/console" else (0, 0)
        links, nothing = 1, 0
        encoded = os.fsencode(name) + b"\0"
        fields = (number, mode, 0, 0, links, nothing, len(content), 0, 0, major, minor, len(encoded), nothing)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        yield header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4)
