"""Secrets stay out of the configuration: how one is recognised, hidden in messages, and named by its file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from swarmd.config.problems import ConfigErrors, ConfigProblem

CREDENTIAL_PREFIX = "credential:"
HIDDEN = "<hidden>"

_SECRET_NAMES = (
    "token", "tokens", "access_token", "password", "passwd", "passphrase", "secret", "secrets", "private_key",
    "privatekey", "signing_key", "api_key", "apikey", "mnemonic", "seed_phrase", "credentials",
)  # fmt: skip
_SECRET_NAME = re.compile(rf"(?:.*[_-])?(?:{'|'.join(_SECRET_NAMES)})")

# No pattern has two unbounded repeats in a row, so that the search stays linear: a file may hold a megabyte.
_SECRET_VALUES = (
    ("a Hugging Face token", re.compile(r"\bhf_[A-Za-z0-9_]{16,}")),
    ("an API key", re.compile(r"\b(?:sk-|gh[pousr]_|github_pat_|xox[abps]-)[A-Za-z0-9_-]{16,}")),
    ("a private key", re.compile(r"\b0[xX][0-9a-fA-F]{64}(?![0-9a-fA-F])|-----BEGIN ")),
    ("a URL with a password", re.compile(r"://[^\s/?#@]{1,512}@")),
    ("an invite, which lets its reader into the swarm", re.compile(r"\bswarmd:[^\s/]{8,}")),
)
_URL = re.compile(r"\b(?:https?|wss?)://([^\s/?#]+)([^\s?#]*)(\?[^\s#]*)?")
_VERSION = re.compile(r"v[0-9]+")
_WORDS = re.compile(r"[a-z]+(?:[-_.][a-z]+)*")


def is_secret_name(name: str) -> bool:
    """Whether a key of this name would hold a secret itself (`token`) and not its place (`token_file`)."""
    return _SECRET_NAME.fullmatch(name.lower().replace("-", "_")) is not None


def secret_kind(text: str) -> str | None:
    """What secret the text looks like, or None. Among them are the URLs of RPC providers that carry a key."""
    for kind, pattern in _SECRET_VALUES:
        if pattern.search(text):
            return kind
    if any(_url_carries_key(match) for match in _URL.finditer(text)):
        return "a URL with a key in it"
    return None


def _url_carries_key(url: re.Match[str]) -> bool:
    for item in (url[3] or "").lstrip("?").split("&"):
        name, _, value = item.partition("=")
        if value and (name.lower() == "key" or is_secret_name(name)):
            return True
    before = ""
    for segment in url[2].split("/"):
        if len(segment) >= 8 and _VERSION.fullmatch(before) and not _WORDS.fullmatch(segment):
            return True
        if len(segment) >= 24 and re.search(r"[0-9]", segment) and re.search(r"[A-Za-z]", segment):
            return True
        before = segment
    return False


def shown(text: str, limit: int = 60) -> str:
    """The text as a message may show it: on one line, short, and not at all if it looks like a secret."""
    if secret_kind(text) is not None:
        return HIDDEN
    line = "".join(char if char.isprintable() else " " for char in text[: limit * 2])
    line = " ".join(line.split())
    if len(line) > limit or len(text) > limit * 2:
        line = line[:limit].rstrip() + "..."
    return line or '""'


def secret_path(reference: str, environ: Mapping[str, str]) -> Path:
    """The file that a `*_file` key names: an absolute path, or `credential:NAME` for a systemd credential.

    Raises ConfigErrors for a credential where systemd passed none (systemd.exec(5), LoadCredential=).
    """
    if not reference.startswith(CREDENTIAL_PREFIX):
        return Path(reference)
    folder = environ.get("CREDENTIALS_DIRECTORY")
    name = reference.removeprefix(CREDENTIAL_PREFIX)
    if not folder:
        message = f"is not set, so there is no credential {name}; the unit needs LoadCredential={name}:PATH"
        raise ConfigErrors([ConfigProblem("environment CREDENTIALS_DIRECTORY", None, "", None, message)])
    return Path(folder, name)
