"""What a log line must not contain: secrets, and characters that would end the line or steer a terminal.

Secrets are known by their form, by the name of the field that holds them, or because who read them said so.
"""

from __future__ import annotations

import re

_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----")
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


_SECRET_FIELD = re.compile(r"(?i)(.*[_-])?(password|passphrase|secret|api[_-]?key|token|private[_-]?key|mnemonic)")
_SHORTEST_SECRET = 6
_known: tuple[str, ...] = ()


def conceal(secret: str) -> None:
    """Has `redact` hide this very text from now on: for what was read from a credential file, which may look like
    anything. Texts of less than six characters are not hidden: they would take ordinary words along."""
    global _known
    for part in {secret.strip(), *secret.split("\n")}:
        if len(part) >= _SHORTEST_SECRET and part not in _known and not part.startswith("-----"):
            # The longest first: one may hold another.
            _known = tuple(sorted({*_known, part}, key=len, reverse=True))


def _redact_url(match: re.Match[str]) -> str:
    scheme, host, rest = match.groups()
    credentials, at, name = host.rpartition("@")
    shown = f"***@{name}" if at and credentials else host
    return scheme + shown + _URL_KEY.sub("***", rest)


def redact(text: str) -> str:
    """`text` without what looks like a hub token, a private key, a password or a URL with a key in it."""
    for secret in _known:
        text = text.replace(secret, "***")
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return _URL.sub(_redact_url, text)


class LineRedactor:
    """Redacts a text that comes line by line, where a private key takes many lines."""

    def __init__(self) -> None:
        self._in_key = False

    def line(self, text: str) -> str | None:
        """The line without secrets; None for one inside a private key."""
        if self._in_key:
            self._in_key = "-----END" not in text
            return None
        begins = _KEY_BEGINS.search(text)
        self._in_key = begins is not None and "-----END" not in text[begins.end() :]
        return redact(text)


def redact_field(name: str, value: object) -> object:
    """A field's value without secrets, whatever it is made of; texts in it are on one line.

    What is neither a number, a text nor made of such is turned into a text.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {one_line(redact(str(key))): redact_field(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact_field(name, item) for item in value]
    if isinstance(value, bytes | bytearray):
        value = bytes(value).decode(errors="backslashreplace")
    if _SECRET_FIELD.fullmatch(name):
        return "***"
    return one_line(redact(str(value)))


def one_line(text: str) -> str:
    """`text` with everything that is not printable written as an escape.

    Strangers' text gets into messages: it must not begin a line of its own, nor steer the terminal.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
