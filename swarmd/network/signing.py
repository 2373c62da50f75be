"""Signatures on records, and the trailer that carries them behind bytes of GenRL's.

hivemind's RSASignatureValidator is not used: what it signs, a node without it waits for without end. A signature in
the value's own bytes, behind GenRL's object, is passed over by its decoders and harms nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from swarmd.network.identity import peer_id_of, verify
from swarmd.network.refusals import Reason, Refused

_TRAILER_MAGIC = b"\xc1swarmd\x00"  # 0xc1 starts no msgpack value, and 0xc17377... is no type of GenRL 0.1
_TRAILER_VERSION = 1
_MOST_KEY_BYTES = 640  # RSA with 4096 bits, and room for its wrapping
_MOST_SIGNATURE_BYTES = 704  # the same in base64
_LEAST_TRAILER_BYTES = len(_TRAILER_MAGIC) + 1
_MOST_TRAILER_BYTES = _LEAST_TRAILER_BYTES + 2 + _MOST_KEY_BYTES + 2 + _MOST_SIGNATURE_BYTES


class Signer(Protocol):
    """The part of an identity that publishing needs: network.identity.Identity."""

    @property
    def peer_id(self) -> str: ...

    @property
    def public_key(self) -> bytes: ...

    def sign(self, data: bytes) -> bytes: ...


@dataclass(frozen=True)
class Signature:
    """A signature and the public key that it is to be checked with, both as network.identity makes them."""

    public_key: bytes
    signature: bytes


def milliseconds(expires: float) -> int:
    """An expiration (seconds since 1970) as a whole number that two nodes cannot disagree on."""
    return round(expires * 1000)


def sign(signer: Signer, domain: str, key: str, expires: float, body: bytes) -> Signature:
    """Signs a record that is to lie under this DHT key and the signer's peer id until `expires`.

    All of it is covered, so that the same bytes under another round, peer or expiration are refused.
    """
    statement = _statement(domain, key, signer.peer_id, expires, body)
    return Signature(signer.public_key, signer.sign(statement))


def check(signature: Signature, domain: str, key: str, subkey: str, expires: float, body: bytes) -> None:
    """Raises Refused unless `subkey` is the peer id of the signature's key, and signed all of this."""
    sizes = len(signature.public_key), len(signature.signature)
    if not (0 < sizes[0] <= _MOST_KEY_BYTES and 0 < sizes[1] <= _MOST_SIGNATURE_BYTES):
        raise Refused(Reason.BAD_SIGNATURE, f"a key of {sizes[0]} and a signature of {sizes[1]} bytes")
    peer_id = peer_id_of(signature.public_key)
    if peer_id != subkey:
        raise Refused(Reason.OTHER_PEER, f"signed by {peer_id}")
    statement = _statement(domain, key, subkey, expires, body)
    if not verify(signature.public_key, signature.signature, statement):
        raise Refused(Reason.BAD_SIGNATURE, "signed for another key, expiration or content")


def trailer(signature: Signature) -> bytes:
    """The signature as bytes to follow an object of GenRL's; about 600 for RSA with 2048 bits."""
    parts = [_TRAILER_MAGIC, bytes([_TRAILER_VERSION])]
    for part in (signature.public_key, signature.signature):
        parts += [len(part).to_bytes(2, "big"), part]
    return b"".join(parts)


def trailer_start(value: bytes) -> int:
    """Where the trailer of a value begins, told without reading the object before it; its length if it has none."""
    start = value.rfind(_TRAILER_MAGIC, max(0, len(value) - _MOST_TRAILER_BYTES))
    return len(value) if start < 0 else start


def read_trailer(tail: bytes) -> Signature | None:
    """The signature behind an object; None where nothing is there. Raises Refused for any other bytes."""
    if not tail:
        return None
    start = len(_TRAILER_MAGIC)
    if tail[:start] != _TRAILER_MAGIC or len(tail) < _LEAST_TRAILER_BYTES:
        raise Refused(Reason.NOT_DECODABLE, f"{len(tail)} bytes behind its end that are no signature")
    if tail[start] > _TRAILER_VERSION:
        raise Refused(Reason.OTHER_VERSION, f"its signature has version {tail[start]}, this node knows 1")
    public_key, rest = _sized(tail[start + 1 :])
    signature, rest = _sized(rest)
    if rest:
        raise Refused(Reason.NOT_DECODABLE, f"{len(rest)} bytes behind its signature")
    return Signature(public_key, signature)


def _sized(data: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(data[:2], "big")
    if len(data) < 2 + size:
        raise Refused(Reason.NOT_DECODABLE, "its signature is cut short")
    return data[2 : 2 + size], data[2 + size :]


def _statement(domain: str, key: str, subkey: str, expires: float, body: bytes) -> bytes:
    """What is signed. Each part goes in with its length, so that no two records make the same statement."""
    parts = (domain.encode(), key.encode(), subkey.encode(), str(milliseconds(expires)).encode(), body)
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
