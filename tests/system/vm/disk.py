"""Disks of test machines: one image of a root directory, and any number of throw-away disks on top of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_ROOM = 4 << 30


def image_of(root: Path, cache: Path) -> Path:
    """The image of a root directory that never changes, kept in `cache` under its name; those of others are removed."""
    image = cache / f"{root.name}.img"
    if not image.exists():
        for old in cache.glob("*.img"):
            old.unlink()
        make_image(root, image)
    return image


def make_image(root: Path, image: Path) -> Path:
    """An ext4 file system with what is under `root`, owners and all, and 4 GiB of room; a sparse file.

    Made as root, as everything else would be owned by one user. Raises CalledProcessError with mke2fs' words.
    """
    # Blocks as du counts them; a tenth more for the file system's own.
    used = int(subprocess.run(["du", "-xsk", root], check=True, capture_output=True, text=True).stdout.split()[0])
    temporary = image.with_name(f"{image.name}.new")
    temporary.unlink(missing_ok=True)
    image.parent.mkdir(parents=True, exist_ok=True)
    with open(temporary, "wb") as file:
        os.truncate(file.fileno(), (used * 1024 * 11 // 10 + _ROOM) & ~0xFFFFF)
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-L", "root", "-d", str(root), str(temporary)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    temporary.rename(image)
    return image


def make_disk(image: Path, disk: Path) -> Path:
    """A disk whose contents are the image's until they are written over.

    A qcow2 file: what the machine has written and not yet flushed, qemu may forget when it is killed, because the
    tables of newly used clusters are in its memory until then. So pulling the plug loses what a real disk's
    write-back cache loses, and not only what the machine's kernel had not written yet.
    """
    disk.unlink(missing_ok=True)
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image.resolve()), str(disk)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return disk
