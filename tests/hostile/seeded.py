"""Peers whose keys follow from a number: the same peer ids, and with them the same tasks, on every machine."""

from __future__ import annotations

import random
from functools import cache

from cryptography.hazmat.primitives.asymmetric import rsa

from swarmd.network import libp2p_keys
from tests.hostile.authors import Author

_EXPONENT = 65537
_SMALL = [number for number in range(3, 2000, 2) if all(number % divisor for divisor in range(3, number, 2))]


@cache
def seeded_author(seed: int) -> Author:
    """A third of a second each. For tests: who knows the number has the key."""
    rng = random.Random(f"key/{seed}")
    p, q = _prime(rng), _prime(rng)
    private = pow(_EXPONENT, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p, q, private, rsa.rsa_crt_dmp1(private, p), rsa.rsa_crt_dmq1(private, q), rsa.rsa_crt_iqmp(p, q),
        rsa.RSAPublicNumbers(_EXPONENT, p * q),
    )  # fmt: skip
    key = numbers.private_key()
    public = libp2p_keys.public_key_bytes(key.public_key())
    return Author(libp2p_keys.peer_id_of(public), public, key)


def _prime(rng: random.Random) -> int:
    """A prime of half the key's length with its two highest bits set, so that two of them give its whole length."""
    bits = libp2p_keys.NEW_KEY_BITS // 2
    while True:
        number = rng.getrandbits(bits) | 3 << (bits - 2) | 1
        if (number - 1) % _EXPONENT and all(number % small for small in _SMALL) and _is_prime(number):
            return number


def _is_prime(number: int) -> bool:
    """Miller and Rabin; for random numbers of this length a few bases are certain enough."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7):
        power = pow(base, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = pow(power, 2, number)
            if power == number - 1:
                break
        else:
            return False
    return True
