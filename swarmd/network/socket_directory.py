"""The directory of p2pd's control sockets: private, on a short path, and one for a node however often it is started."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

_PREFIX = "swarmd-p2p-"
_LONGEST = 80


class SocketDirectory:
    """Made empty by `__init__`, with mode 0700: whoever can connect to the sockets acts with the node's identity.

    What a process of the same node left there when it was killed is taken away. Where the directory is in use by a
    process that lives, or not ours at all, it is one with a name that was free. Raises OSError where none can be made.
    """

    def __init__(self, peer_id: str) -> None:
        name = _PREFIX + hashlib.sha256(peer_id.encode()).hexdigest()[:12]
        # unix(7) has 108 bytes for the path of a socket, with its name.
        parent = Path(tempfile.gettempdir())
        if len(os.fsencode(parent / name)) > _LONGEST:
            parent = Path("/tmp")
        self.path = parent / name
        self._lock = _locked(self.path)
        if self._lock is None:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            return
        for entry in os.scandir(self.path):
            with contextlib.suppress(OSError):
                os.unlink(entry.path)

    def close(self) -> None:
        """Takes the directory away."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _locked(path: Path) -> int | None:
    """The directory, made if it is not there, opened and locked (flock(2), which ends with the process).

    None where somebody else has it: in a directory for all, another user may have made it, or a link by its name.
    """
    for _ in range(3):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(descriptor)
            # Who had the lock before may have taken the directory away in the meantime.
            if found.st_nlink and os.path.samestat(found, os.lstat(path)):
                if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == 0o700:
                    return descriptor
                os.close(descriptor)
                return None
        except FileNotFoundError:
            pass
        except OSError:
            os.close(descriptor)
            return None
        os.close(descriptor)
    return None
