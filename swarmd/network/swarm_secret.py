"""The secret of a private swarm: how it looks, how a new one is made, and reading it from its file."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from swarmd.config import ConfigErrors, secret_path
from swarmd.network.identity import read_key_file
from swarmd.system.exits import ConfigurationError
from swarmd.system.redaction import conceal

FILE_NAME = "swarm.secret"
_FORM = re.compile(r"[!-~]{32,128}")


def new_secret() -> str:
    """256 random bits, as 43 characters that no shell and no mail changes."""
    return secrets.token_urlsafe(32)


def is_secret(text: str) -> bool:
    """Whether a text can be the secret of a swarm: 32 to 128 printable ASCII characters without a space."""
    return _FORM.fullmatch(text) is not None


def read_swarm_secret(reference: str, environ: Mapping[str, str]) -> str:
    """The secret in the file that swarm.secret_file names; from now on no log line shows it.

    Raises:
        ConfigurationError: it cannot be read, others can read it, or it is no secret.
    """
    try:
        path = secret_path(reference, environ)
    except ConfigErrors as errors:
        raise ConfigurationError(f"swarm.secret_file: {errors}") from None
    try:
        text = read_key_file(path, private=True).decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    except ConfigurationError as error:
        raise ConfigurationError(f"swarm.secret_file: {error}; `swarmd join` writes it anew from the invite") from None
    if not is_secret(text):
        raise ConfigurationError(
            f"swarm.secret_file: {path} holds no secret of a swarm, which is one line of 32 to 128 printable "
            "characters without spaces; `swarmd join` writes it anew from the invite"
        )
    conceal(text)
    return text


def write_swarm_secret(path: Path, secret: str) -> None:
    """Puts the secret into a file of mode 0600, in place of one that is there. Raises ConfigurationError naming it."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as stream:
                stream.write(f"{secret}\n".encode())
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(beside, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
    except OSError as error:
        raise ConfigurationError(f"{path}: the swarm's secret cannot be written: {error.strerror}") from error


def remove_swarm_secret(path: Path) -> None:
    """Removes the file if there is one. Raises ConfigurationError naming it."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{path}: the swarm's secret cannot be removed: {error.strerror}") from error
