"""RSA keys in libp2p's forms: the private one in a file, the public one in messages, the peer id that follows from it.

Without hivemind, whose import brings torch along. The forms: https://github.com/libp2p/specs/blob/master/peer-ids.
Signatures are those of hivemind.utils.crypto (RSASSA-PSS, RFC 8017: SHA-256, MGF1 with SHA-256, the longest salt), as
bare bytes where hivemind has them in base64.
"""

from __future__ import annotations

import functools
import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

NEW_KEY_BITS = 2048
"""What hivemind's nodes have, and the smallest that libp2p takes."""

MAX_PUBLIC_KEY_BYTES = 600
"""No public key in libp2p's form that is accepted here is longer (RSA-4096 has 558 bytes)."""

_BITS = (2048, 3072, 4096)
_EXPONENT = 65537
# Message PublicKey or PrivateKey: field 1 (varint) the key's type, 0 for RSA; field 2 (bytes) the key in DER.
_TYPE_RSA = b"\x08\x00"
_TYPES = {b"\x08\x01": "an Ed25519 key", b"\x08\x02": "a Secp256k1 key", b"\x08\x03": "an ECDSA key"}
_DATA = b"\x12"
_SHA256_MULTIHASH = b"\x12\x20"
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_PADDING = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.MAX_LENGTH)
_HASH = hashes.SHA256()


def new_private_key() -> rsa.RSAPrivateKey:
    """A new key; takes up to a second."""
    return rsa.generate_private_key(public_exponent=_EXPONENT, key_size=NEW_KEY_BITS)


def private_key_bytes(key: rsa.RSAPrivateKey) -> bytes:
    """The content of an identity file: what `p2pd -id` and hivemind read, and what hivemind writes."""
    der = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return _message(der)


def parse_private_key(content: bytes) -> rsa.RSAPrivateKey:
    """The key in an identity file. Raises ValueError that says, to follow "the file holds", what it holds instead."""
    if content.startswith(b"-----BEGIN"):
        raise ValueError("a key as text (PEM), and not in libp2p's own form")
    if content[:2] in _TYPES:
        raise ValueError(f"{_TYPES[content[:2]]}, and the swarm's nodes have RSA keys")
    try:
        key = serialization.load_der_private_key(_data(content), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("no RSA key in libp2p's form, or a damaged one") from None
    if not isinstance(key, rsa.RSAPrivateKey) or not _is_taken(key.public_key()):
        raise ValueError(f"a key that the swarm does not take: RSA with {', '.join(map(str, _BITS))} bits")
    return key


def public_key_bytes(key: rsa.RSAPublicKey) -> bytes:
    """The public key in libp2p's form (299 bytes for 2048 bits)."""
    return _message(
        key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def peer_id_of(public_key: bytes) -> str:
    """The peer id (base58, 46 characters from "Qm" on) of a public key in libp2p's form.

    A hash of the bytes, whatever they are: only with `verify` does it say that there is such a key.
    """
    return _base58(_SHA256_MULTIHASH + hashlib.sha256(public_key).digest())


def sign(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    """The signature, as long as the key: 256 bytes for 2048 bits."""
    return key.sign(data, _PADDING, _HASH)


def verify(public_key: bytes, signature: bytes, data: bytes) -> bool:
    """Whether the owner of this public key (in libp2p's form) signed the data. False for whatever is no such key."""
    try:
        _public_key(public_key).verify(signature, data, _PADDING, _HASH)
    except (ValueError, InvalidSignature):
        return False
    return True


@functools.lru_cache(maxsize=1024)
def _public_key(content: bytes) -> rsa.RSAPublicKey:
    """Raises ValueError. Its form must be the one that libp2p writes: a key that could be written in two ways would
    have two peer ids."""
    if len(content) > MAX_PUBLIC_KEY_BYTES:
        raise ValueError("too long for a public key")
    try:
        key = serialization.load_der_public_key(_data(content))
    except (TypeError, UnsupportedAlgorithm):
        raise ValueError("no RSA key") from None
    if not isinstance(key, rsa.RSAPublicKey) or not _is_taken(key) or public_key_bytes(key) != content:
        raise ValueError("no RSA key of libp2p's form and of a size that is taken")
    return key


def _is_taken(key: rsa.RSAPublicKey) -> bool:
    """An exponent of a stranger's choice would make each of his signatures cost as much as he likes."""
    return key.key_size in _BITS and key.public_numbers().e == _EXPONENT


def _message(der: bytes) -> bytes:
    length, rest = bytearray(), len(der)
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest)
    return _TYPE_RSA + _DATA + bytes(length) + der


def _data(message: bytes) -> bytes:
    """Field 2 of a message that has type RSA and nothing else. Raises ValueError."""
    if message[:3] != _TYPE_RSA + _DATA:
        raise ValueError("no RSA key of libp2p")
    length = shift = 0
    for position, byte in enumerate(message[3:6], start=4):
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if len(message) - position != length:
                break
            return message[position:]
    raise ValueError("a message of another length than it says")


def _base58(data: bytes) -> str:
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return _ALPHABET[0] * (len(data) - len(data.lstrip(b"\0"))) + text
