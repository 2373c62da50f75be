"""What a log line must not contain: secrets, and characters that would end the line or steer a terminal."""

from __future__ import annotations

import re

_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(-----END|\Z)", re.DOTALL), "*** key ***"),
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), "hf_***"),
    (re.compile(r"\b0x[0-9a-fA-F]{64}\b"), "0x***"),
    (re.compile(r"(?i)\bbearer\s+[\w.~+/=-]{8,}"), "Bearer ***"),
    (
        re.compile(
            r"(?i)\b(password|secret|api[_-]?key|token|private[_-]?key)"
            r"(['\"]?\s{0,4}[:=]\s{0,4}['\"]?)[^\s'\"&,;]{8,}"
        ),
        r"\1\2***",
    ),
)
_URL = re.compile(r"\b([a-z][a-z0-9+.-]{1,15}://)([^\s/?#'\"<>]{0,300})([^\s'\"<>]*)", re.IGNORECASE)
# A path segment or a query value of 20 and more characters with a digit in it: providers of chain access put
# the key there (https://host/v2/KEY, https://host/?apikey=KEY).
_URL_KEY = re.compile(r"(?<=[/=])(?=[\w-]{0,200}\d)[\w-]{20,}")


def _redact_url(match: re.Match[str]) -> str:
    scheme, host, rest = match.groups()
    credentials, at, name = host.rpartition("@")
    shown = f"***@{name}" if at and credentials else host
    return scheme + shown + _URL_KEY.sub("***", rest)


def redact(text: str) -> str:
    """`text` without what looks like a hub token, a private key, a password or a URL with a key in it."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return _URL.sub(_redact_url, text)


def one_line(text: str) -> str:
    """`text` with everything that is not printable written as an escape.

    Strangers' text gets into messages: it must not begin a line of its own, nor steer the terminal.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
