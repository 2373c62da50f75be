"""Kinds of values that several sections use, each with its bounds, and the base of all sections."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from annotated_types import Interval
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


@dataclass(frozen=True)
class Allowed:
    """Says in a message what a value must be, where the type alone does not tell."""

    text: str


@dataclass(frozen=True)
class Unit:
    """The unit of a number: "seconds", "bytes", "tokens"."""

    text: str


@dataclass(frozen=True)
class Because:
    """Why the bounds are what they are; closes the message."""

    text: str


@dataclass(frozen=True)
class Contradiction:
    """Values that cannot stand together. `keys`, dotted, are the ones to change, the most telling first."""

    keys: tuple[str, ...]
    message: str


class Section(BaseModel):
    """A part of the configuration: frozen, strict about types, without unknown keys.

    `rules` are functions named as sentences; each returns a Contradiction where its sentence is broken.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    rules: ClassVar[tuple[Callable[..., Contradiction | None], ...]] = ()

    @model_validator(mode="after")
    def _keeps_its_rules(self) -> Self:
        raise_contradictions(found for rule in self.rules if (found := rule(self)) is not None)
        return self


def raise_contradictions(found: Iterable[Contradiction]) -> None:
    """Raise all contradictions as one pydantic error, if there are any."""
    contradictions = tuple(found)
    if contradictions:
        text = "; ".join(contradiction.message for contradiction in contradictions)
        raise PydanticCustomError("contradiction", "{text}", {"text": text, "contradictions": contradictions})


def matching(pattern: str) -> AfterValidator:
    """A validator: the whole text has this form."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError("does not have the form")
        return text

    return AfterValidator(check)


_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)(?:([KMGT])(?:iB)?)?")
_POWERS = {None: 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


def _parse_size(value: object) -> object:
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)) is not None:
        return int(float(match[1]) * _POWERS[match[2]])
    return value


_PEER_ID = r"[1-9A-HJ-NP-Za-km-z]{40,64}"
_HOST_PROTOCOLS = ("ip4", "ip6", "dns", "dns4", "dns6")
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_-]{1,63})*\.?")


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and int(text) <= 65535


def _is_host(protocol: str, text: str) -> bool:
    if protocol.startswith("dns"):
        return _HOST_NAME.fullmatch(text) is not None
    try:
        return ipaddress.ip_address(text).version == int(protocol[-1])
    except ValueError:
        return False


def _transport_and_rest(text: str) -> tuple[str, ...]:
    """Check the front of a multiaddress, `/ip4/HOST/tcp/PORT` or the like, and return the parts after it.

    Form: https://github.com/multiformats/multiaddr. Raises ValueError for anything but TCP, since p2pd
    is told to use nothing else.
    """
    empty, *parts = text.split("/")
    if empty or len(parts) < 4 or parts[0] not in _HOST_PROTOCOLS or not _is_host(parts[0], parts[1]):
        raise ValueError("not a multiaddress")
    if not _is_port(parts[3]):
        raise ValueError("not a port")
    if parts[2] != "tcp":
        raise ValueError("not TCP")
    return tuple(parts[4:])


def _listen_address(text: str) -> str:
    if _transport_and_rest(text):
        raise ValueError("more than a transport address")
    return text


def _announced_address(text: str) -> str:
    """Raises ValueError for an address that stands for all of a machine's own: nobody else can call it."""
    protocol, host = _listen_address(text).split("/")[1:3]
    if not protocol.startswith("dns") and ipaddress.ip_address(host).is_unspecified:
        raise ValueError("an address that nobody can call")
    return text


def _peer_address(text: str) -> str:
    rest = "/".join(_transport_and_rest(text))
    if re.fullmatch(rf"p2p/{_PEER_ID}(?:/p2p-circuit/p2p/{_PEER_ID})?", rest) is None:
        raise ValueError("no peer id at the end")
    return text


def _socket_address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    protocol, bare = ("ip6", host[1:-1]) if host.startswith("[") and host.endswith("]") else ("dns", host)
    if not colon or not _is_port(port) or not _is_host(protocol, bare):
        raise ValueError("not HOST:PORT")
    return text


Auto = Literal["auto"]
"""Left to the node, which chooses when it knows the model and the machine."""

Size = Annotated[
    int,
    BeforeValidator(_parse_size),
    Interval(ge=256 * 1024**2, le=64 * 1024**4),
    Allowed("a size from 256M to 64T, such as 12G or 1.5GiB (K, M, G and T are powers of 1024)"),
]
HexId = Annotated[str, matching(r"[0-9a-f]{8,64}"), Allowed("8 to 64 hexadecimal digits in lower case")]
Name = Annotated[
    str,
    matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"),
    Allowed("a name of at most 64 letters, digits, dots, dashes and underscores"),
]
FileReference = Annotated[
    str,
    matching(r"/[^\x00-\x1f\x7f]{1,4095}|credential:[A-Za-z0-9_.-]{1,255}"),
    Allowed("the absolute path of a file, or credential:NAME for a systemd credential"),
]
Url = Annotated[
    str,
    matching(r"https?://[A-Za-z0-9._\[\]:-]{1,260}(?:/[^\s\x00-\x1f\x7f]{0,2000})?"),
    Allowed("a URL that starts with http:// or https://"),
]
ContractAddress = Annotated[
    str, matching(r"0x[0-9a-fA-F]{40}"), Allowed("a contract's address: 0x and 40 hexadecimal digits")
]
HubId = Annotated[
    str,
    matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}"),
    Allowed("a repository such as OWNER/NAME"),
]
ListenAddress = Annotated[
    str, AfterValidator(_listen_address), Allowed("a multiaddress such as /ip4/0.0.0.0/tcp/38751")
]
AnnouncedAddress = Annotated[
    str,
    AfterValidator(_announced_address),
    Allowed("a multiaddress that others can call, such as /ip4/203.0.113.7/tcp/38751 (never 0.0.0.0 or ::)"),
]
PeerAddress = Annotated[
    str,
    AfterValidator(_peer_address),
    Allowed("a multiaddress with the peer's id, such as /ip4/203.0.113.7/tcp/38751/p2p/PEER_ID"),
]
SocketAddress = Annotated[
    str, AfterValidator(_socket_address), Allowed("HOST:PORT, such as 127.0.0.1:9470 or [::1]:9470")
]

# YAML has lists; a frozen section keeps them as tuples, which strict mode alone would not make of a list.
ListenAddresses = Annotated[tuple[ListenAddress, ...], Field(strict=False)]
AnnouncedAddresses = Annotated[tuple[AnnouncedAddress, ...], Field(strict=False)]
PeerAddresses = Annotated[tuple[PeerAddress, ...], Field(strict=False)]
