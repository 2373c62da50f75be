"""The wire formats of swarms, one file each. What is written is the swarm's; what is read is told by its bytes."""

from __future__ import annotations

import math
import re

from swarmd.network.dialects.dialect import DEFAULT_LIMITS, Dialect, Encoded, OutgoingGroup, WireLimits
from swarmd.network.dialects.genrl_01 import Genrl01Dialect
from swarmd.network.dialects.genrl_03 import Genrl03Dialect
from swarmd.network.dialects.own import MAGIC, OwnDialect
from swarmd.network.records import Record
from swarmd.network.refusals import Reason, Refused, shown
from swarmd.network.strict_tlv import TYPE_ZEROS

__all__ = ["Dialect", "Encoded", "OutgoingGroup", "WireLimits", "decode", "dialect_for"]

_PEER_ID = re.compile(r"[1-9A-HJ-NP-Za-km-z]{40,64}")
_GENRL_01, _GENRL_03 = Genrl01Dialect(), Genrl03Dialect()
_OPEN = OwnDialect("", 1)
_LATEST = 2.0**40  # seconds since 1970: beyond it a float has no milliseconds


def dialect_for(
    name: str,
    swarm_id: str,
    shards: int = 32,
    secret: str = "",
    most_bytes: int = 16384,
    limits: WireLimits = DEFAULT_LIMITS,
) -> Dialect:
    """The dialect of a swarm: "swarmd", "genrl-0.3" or "genrl-0.1". secret: of a private swarm, "" for an open one.

    most_bytes: of a record that is written. Raises ValueError for other names, and for a secret in a legacy swarm.
    """
    if name == OwnDialect.name:
        return OwnDialect(swarm_id, shards, secret, most_bytes, limits)
    if secret:
        raise ValueError(f"the dialect {name} cannot keep a swarm private; found it with the dialect swarmd")
    for legacy in (Genrl03Dialect, Genrl01Dialect):
        if name == legacy.name:
            return legacy(most_bytes, limits)
    raise ValueError(f"the dialect {name!r} is unknown; swarmd, genrl-0.3 and genrl-0.1 are there")


def decode(
    value: bytes, round: int, key: str, subkey: str, expires: float, dialect: Dialect, limits: WireLimits | None = None
) -> Record:
    """The record that lay in the DHT at this place, whatever wrote it.

    key, subkey, expires: as the DHT gives them (expires: seconds since 1970). dialect: the swarm's; it says where
    records lie, and opens those of a private swarm, in which no others are taken. limits: the dialect's if None.
    The record is within all limits; what of it is true is not looked at but for its signature, if it has one, and
    `signed` tells whether. Raises Refused, and nothing else, whatever the bytes are.
    """
    limits = limits or dialect.limits
    if not isinstance(value, bytes):
        raise Refused(Reason.WRONG_SHAPE, f"a {type(value).__name__} instead of bytes")
    if len(value) > limits.value_bytes:
        raise Refused(Reason.TOO_LARGE, f"{len(value)} bytes, {limits.value_bytes} are taken")
    if not isinstance(subkey, str) or not _PEER_ID.fullmatch(subkey):
        raise Refused(Reason.WRONG_KEY, "a subkey that is no peer id in base58")
    if not math.isfinite(expires) or not 0 <= expires < _LATEST:
        raise Refused(Reason.WRONG_SHAPE, "an expiration that is no time")
    if key != dialect.key_for(round, subkey):
        raise Refused(Reason.WRONG_KEY, f"a record of {subkey} does not belong under {shown(key)}")
    if isinstance(dialect, OwnDialect) and (dialect.is_private or value[: len(MAGIC)] == MAGIC):
        return dialect.read(value, round, key, subkey, expires, limits)
    if value[: len(MAGIC)] == MAGIC:
        return _OPEN.read(value, round, key, subkey, expires, limits)
    legacy = _GENRL_01 if value[: len(TYPE_ZEROS)] == TYPE_ZEROS else _GENRL_03
    return legacy.read(value, round, key, subkey, expires, limits)
