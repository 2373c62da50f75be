"""The node's identity: its libp2p key, the file that holds it, and the lock by which one node alone uses it.

The file is the one that hivemind's p2pd takes, and that GenRL's nodes have as swarm.pem.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from swarmd.config import ConfigErrors, secret_path
from swarmd.network import libp2p_keys
from swarmd.network.libp2p_keys import peer_id_of, verify
from swarmd.network.names import name_of
from swarmd.system.exits import ConfigurationError
from swarmd.system.paths import HeldLock

__all__ = [
    "FILE_NAME", "Identity", "HeldLock", "create", "create_from", "identity_path", "load", "load_or_create",
    "lock_identity", "name_of", "parse", "peer_id_of", "read_key_file", "verify",
]  # fmt: skip

FILE_NAME = "identity.key"
_MAX_BYTES = 16 * 1024
# Others must not read it, its group must not write it. A group that may read a file of root's is the administrator's
# choice (0640 root:swarmd), and is also how an ACL looks, by which systemd lets a service read its credentials.
_TOO_OPEN_OF_ROOT = 0o037
_TOO_OPEN = 0o077


@dataclass(frozen=True)
class Identity:
    """A key and the names that follow from it. peer_id: base58; name: three words; public_key: in libp2p's form."""

    peer_id: str
    name: str
    public_key: bytes = field(repr=False)
    path: Path
    _key: rsa.RSAPrivateKey = field(repr=False, compare=False)

    def sign(self, data: bytes) -> bytes:
        """A signature that `verify` takes; takes about a millisecond."""
        return libp2p_keys.sign(self._key, data)


def identity_path(reference: str | None, state: Path, environ: Mapping[str, str]) -> Path:
    """The file of the identity: what network.identity_file says, else identity.key in the state directory.

    Raises ConfigurationError for a credential outside the service.
    """
    if reference is None:
        return state / FILE_NAME
    try:
        return secret_path(reference, environ)
    except ConfigErrors as errors:
        raise ConfigurationError(f"network.identity_file: {errors}") from None


def load_or_create(path: Path) -> Identity:
    """The identity in this file, which is made if there is none.

    Raises:
        ConfigurationError: the file cannot be used, or cannot be made; names it and says what to do.
    """
    return load(path) if os.path.lexists(path) else create(path)


def load(path: Path) -> Identity:
    """The identity in this file.

    Raises:
        ConfigurationError: there is none, others may read it, or it holds something else.
    """
    return parse(read_key_file(path, private=True), path)


def create(path: Path) -> Identity:
    """A new identity in a new file of mode 0600. Of two processes that do this at once, both get the one that came
    first. Raises ConfigurationError where it cannot be written."""
    created = create_from(libp2p_keys.private_key_bytes(libp2p_keys.new_private_key()), path)
    return created or load(path)


def create_from(content: bytes, path: Path) -> Identity | None:
    """Puts the content of an identity file into a new one; None, and nothing is written, if the file exists.

    There is never a moment with half a key, or one that others can read; nor is a key ever overwritten.

    Raises:
        ConfigurationError: the content is no identity, or the file cannot be written.
    """
    identity = parse(content, path)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.link(beside, path)  # unlike a rename, it does not replace what is there
        finally:
            os.unlink(beside)
        _sync_folder(path.parent)
    except FileExistsError:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"{path}: the identity cannot be written there: {error.strerror}; make the folder writable for the user "
            "that runs swarmd, or name another file with network.identity_file"
        ) from error
    return identity


_IF_IT_IS_THE_NODES = (
    "restore a backup (`swarmd identity restore FILE`) after moving it away, or move it away to get a new identity"
)


def parse(content: bytes, path: Path, fix: str = _IF_IT_IS_THE_NODES) -> Identity:
    """The identity that a file with this content is. fix: what to do where it is none.

    Raises ConfigurationError naming the file.
    """
    try:
        key = libp2p_keys.parse_private_key(content)
    except ValueError as error:
        raise ConfigurationError(f"{path}: the file holds {error}; {fix}") from None
    public_key = libp2p_keys.public_key_bytes(key.public_key())
    peer_id = peer_id_of(public_key)
    return Identity(peer_id, name_of(peer_id), public_key, path, key)


def read_key_file(path: Path, *, private: bool) -> bytes:
    """The bytes of a small regular file. private: refuse one of another user, or that others could read.

    Raises ConfigurationError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigurationError(f"{path} is not a regular file")
        if private:
            _refuse_what_others_can_read(path, found)
        content = os.read(descriptor, _MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(content) > _MAX_BYTES:
        raise ConfigurationError(f"{path} is larger than {_MAX_BYTES} bytes, which no key is")
    return content


def _refuse_what_others_can_read(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(
            f"{path} belongs to user {found.st_uid}, who could change it, and swarmd runs as user {os.geteuid()}; "
            f"run `chown {os.geteuid()} {path}`"
        )
    if found.st_mode & (_TOO_OPEN if found.st_uid else _TOO_OPEN_OF_ROOT):
        raise ConfigurationError(
            f"{path} holds a key, and other users may use it (mode {stat.S_IMODE(found.st_mode):04o}); "
            f"run `chmod 0600 {path}`"
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_identity(path: Path) -> HeldLock:
    """Takes an identity for this process alone (flock(2) on PATH.lock); keep what it returns while the node runs.

    Two nodes with one key are one peer to all others, who then lose messages to the wrong one.

    Raises:
        ConfigurationError: another process holds it, which is named, or the lock cannot be written.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise ConfigurationError(f"{lock} cannot be written: {error.strerror}") from error
        # A credential, or a key in a folder of root's: nothing can be written beside it, but it can be locked itself.
        return HeldLock(_locked(_opened(path), path))
    _locked(descriptor, path)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError:
        # A full disk: the number is only for the message below, the lock itself holds.
        pass
    return HeldLock(descriptor)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error


def _locked(descriptor: int, path: Path) -> int:
    """The descriptor with the lock on it; closed where that fails."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 16, 0).strip()
        os.close(descriptor)
        named = f"process {holder.decode('ascii')}" if holder.isdigit() else "another process"
        raise ConfigurationError(
            f"{path}: the identity is in use by {named}, and two nodes cannot be one peer; stop that one, or give "
            "this node an identity of its own: another state directory (--state DIR), or network.identity_file naming "
            "a file that does not exist yet"
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise ConfigurationError(f"{path} cannot be locked: {error.strerror}") from error
    return descriptor
