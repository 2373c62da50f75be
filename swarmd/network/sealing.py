"""A private swarm's records: who does not have its secret neither finds, nor reads, nor writes them.

hivemind's authorizers are no replacement: they sign each request between two nodes with tokens of a server that
somebody must run, they leave what is stored readable for every node on the way, and a node without one is still
answered by all that have none. Here the secret is enough, and a record stays sealed wherever it is kept.
ChaCha20-Poly1305 is RFC 8439, HKDF RFC 5869.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from swarmd.network.refusals import Reason, Refused

_NONCE_BYTES = 12
_TAG_BYTES = 16
SEAL_BYTES = _NONCE_BYTES + _TAG_BYTES
"""By how much sealing makes bytes longer."""


class Seal:
    """The seal of one private swarm. secret: random text as in its invite; a password would be guessed."""

    def __init__(self, secret: str, swarm_id: str) -> None:
        if not secret:
            raise ValueError("a private swarm needs a secret; leave it away for an open swarm")
        derived = HKDF(SHA256(), length=32, salt=swarm_id.encode(), info=b"swarmd/seal/1")
        self._root = derived.derive(secret.encode())

    @property
    def namespace(self) -> str:
        """What stands in the DHT keys instead of the swarm's id: 32 hexadecimal digits that tell nothing of it."""
        return self._derive(b"swarmd/namespace/1", 16).hex()

    def close(self, content: bytes, key: str, subkey: str, header: bytes) -> bytes:
        """The content, sealed for this DHT key and subkey. header: is not hidden, but cannot be exchanged."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher(key, subkey).encrypt(nonce, content, header)

    def open(self, sealed: bytes, key: str, subkey: str, header: bytes) -> bytes:
        """What was sealed. Raises Refused where the secret, the key, the subkey or a single bit is another."""
        if len(sealed) < SEAL_BYTES:
            raise Refused(Reason.OTHER_SECRET, "too short to be sealed")
        nonce, encrypted = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._cipher(key, subkey).decrypt(nonce, encrypted, header)
        except InvalidTag as error:
            raise Refused(Reason.OTHER_SECRET, "not sealed with this swarm's secret for this place") from error

    def _cipher(self, key: str, subkey: str) -> ChaCha20Poly1305:
        # A cipher key for each place: all nodes of the swarm draw their nonces for one key otherwise, and 96 bits
        # drawn at random are too few for that.
        place = b"".join(len(part).to_bytes(8, "big") + part for part in (key.encode(), subkey.encode()))
        return ChaCha20Poly1305(self._derive(b"swarmd/place/1" + place, 32))

    def _derive(self, info: bytes, length: int) -> bytes:
        return HKDFExpand(SHA256(), length=length, info=info).derive(self._root)
