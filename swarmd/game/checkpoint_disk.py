"""What is done to checkpoint directories and can fail in many ways: syncing, linking, telling why not."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# File systems without hard links, links across file systems, and files of another user
# (fs.protected_hardlinks, proc_sys_fs(5)).
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


def link_files(source: Path, target: Path) -> None:
    """Puts every file of directory `source` into `target`, by hard link where the file system allows it."""
    for entry in os.listdir(source):
        try:
            os.link(source / entry, target / entry)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            shutil.copyfile(source / entry, target / entry)


def sync_tree(directory: Path) -> None:
    """Puts a directory and the files in it on the disk. Raises OSError, of ENOSPC and EIO too."""
    for entry in os.listdir(directory):
        _sync(directory / entry, os.O_RDONLY, os.fdatasync)
    sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """Puts the names in a directory on the disk."""
    _sync(directory, os.O_RDONLY | os.O_DIRECTORY, os.fsync)


def _sync(path: Path, flags: int, synchronise: Callable[[int], None]) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        synchronise(descriptor)
    finally:
        os.close(descriptor)


def error_number(error: OSError | SafetensorError) -> int:
    """The errno of a failed write; safetensors has it only in its message ("... (os error 28)").

    Raises `error` itself where it is not the disk's: a tensor that cannot be written is a mistake of ours.
    """
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    match = re.search(r"\(os error (\d+)\)", str(error))
    if match is None:
        raise error
    return int(match[1])


def why(error: OSError | SafetensorError, directory: Path) -> str:
    """The reason in words; of a full disk with the space that is left."""
    number = error_number(error)
    if number in NO_SPACE:
        try:
            return f"{os.strerror(number)} ({shutil.disk_usage(directory).free / 1e6:.1f} MB free)"
        except OSError:
            pass  # the reason is clear without the figure
    return os.strerror(number)
