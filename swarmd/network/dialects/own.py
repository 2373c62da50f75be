"""swarmd's own records: a few hundred bytes for each task, since tasks are named and made anew by who reads them.

value: magic, version (1 byte), then an envelope, sealed in a private swarm. envelope: a msgpack map with `key`,
`signature` and `body`; body: 0 or 1 (deflated), then a msgpack map with `round`, `expires` (ms), `model` and `groups`,
each [slot, environment, dataset, config hash, seed, index, completions, mean log-probabilities (int16 each) or nil].
More fields may come in maps and behind a group's; a record that needs to be understood in another way gets a greater
version.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import msgpack

from swarmd.network import strict_msgpack
from swarmd.network.dialects.dialect import (
    DEFAULT_LIMITS,
    Dialect,
    Encoded,
    OutgoingGroup,
    WireLimits,
    checked_completions,
    family,
    fit,
    is_family,
    logprobs_of,
    quantised,
    sendable,
)
from swarmd.network.records import ClaimedGroup, Record
from swarmd.network.refusals import Reason, Refused
from swarmd.network.sealing import SEAL_BYTES, Seal
from swarmd.network.signing import Signature, Signer, check, milliseconds, sign
from swarmd.network.strict_bounds import Bounds
from swarmd.tasks.provenance import SEEDS, Provenance, digest

MAGIC = b"\xc1swarmd"
"""0xc1 starts neither a msgpack value nor one of GenRL 0.1."""

VERSION = 1
_HEADER = MAGIC + bytes([VERSION])
_DOMAIN = "swarmd/record/1"
_PLAIN, _DEFLATED = 0, 1
_MOST_INFLATED = 256 * 1024
_MOST_NAME = 128
_MOST_SLOT = 64 * 4096
_ENVELOPE_BOUNDS = Bounds(depth=4, values=64)
_ENVELOPE_BYTES = 64  # of names and lengths in the envelope; 38 are used
_VALUES_OF_A_GROUP = 9
_OTHER_VALUES = 16


class OwnDialect(Dialect):
    """Raises ValueError for fewer than one shard. secret: of a private swarm, "" for an open one."""

    name = "swarmd"

    def __init__(
        self, swarm_id: str, shards: int, secret: str = "", most_bytes: int = 16384, limits: WireLimits = DEFAULT_LIMITS
    ) -> None:
        super().__init__(most_bytes, limits)
        if shards < 1:
            raise ValueError(f"a swarm has at least one shard, not {shards}")
        self._shards = shards
        self._seal = Seal(secret, swarm_id) if secret else None
        self._prefix = self.dht_namespace = f"swarmd/1/{self._seal.namespace if self._seal else swarm_id}"

    @property
    def is_private(self) -> bool:
        return self._seal is not None

    def keys(self, round: int) -> Sequence[str]:
        return [self._key(round, shard) for shard in range(self._shards)]

    def key_for(self, round: int, peer_id: str) -> str:
        number = int.from_bytes(digest("swarmd/shard/1", round, peer_id)[:8], "big")
        return self._key(round, number % self._shards)

    def _key(self, round: int, shard: int) -> str:
        return f"{self._prefix}/{round}/{shard}"

    def encode(
        self, groups: Sequence[OutgoingGroup], round: int, signer: Signer, expires: float, model: str = ""
    ) -> Encoded:
        key = self.key_for(round, signer.peer_id)
        head = {"round": round, "expires": milliseconds(expires), "model": family(model)}
        # Its length, and so what is left for the groups, is known from a first signature only.
        signature = sign(signer, _DOMAIN, key, expires, b"")
        overhead = len(_HEADER) + _ENVELOPE_BYTES + len(signature.public_key) + len(signature.signature)
        room = self.most_bytes - overhead - (SEAL_BYTES if self._seal else 0)

        def write(some: Sequence[OutgoingGroup]) -> bytes | None:
            values = sum(_VALUES_OF_A_GROUP + len(group.completions) for group in some) + _OTHER_VALUES
            if len(some) > self.limits.groups or values > self.limits.bounds.values:
                return None
            packed = msgpack.packb({**head, "groups": [_outgoing(group) for group in some]})
            return _deflated(packed) if len(packed) <= _MOST_INFLATED else None

        body, kept = fit([group for group in groups if sendable(group, self.limits)], room, write)
        signature = sign(signer, _DOMAIN, key, expires, body)
        envelope = {"key": signature.public_key, "signature": signature.signature, "body": body}
        content = msgpack.packb(envelope)
        if self._seal:
            content = self._seal.close(content, key, signer.peer_id, _HEADER)
        return Encoded(_HEADER + content, len(kept), len(groups) - len(kept))

    def read(self, value: bytes, round: int, key: str, subkey: str, expires: float, limits: WireLimits) -> Record:
        """The record in a value of at most `limits.value_bytes` that starts with the magic. Raises only Refused."""
        body = self._signed_body(value, key, subkey, expires)
        fields = _fields(_inflated(body), limits.bounds, round=int, expires=int, model=str, groups=list)
        if fields["round"] != round:
            raise Refused(Reason.OTHER_ROUND, f"says that it is of round {fields['round']}, not {round}")
        if fields["expires"] != milliseconds(expires):
            raise Refused(Reason.BAD_SIGNATURE, "names another expiration than the one it lies there with")
        if not is_family(fields["model"]):
            raise Refused(Reason.WRONG_SHAPE, "a model's family that is no short word")
        if len(fields["groups"]) > limits.groups:
            raise Refused(Reason.TOO_MANY_GROUPS, f"{len(fields['groups'])}, {limits.groups} are taken")
        groups = tuple(_claimed(group, limits) for group in fields["groups"])
        return Record(subkey, round, self.name, True, expires, fields["model"], groups, len(value))

    def is_signed(self, value: bytes, key: str, subkey: str, expires: float) -> bool:
        try:
            self._signed_body(value, key, subkey, expires)
        except Refused:
            return False
        return True

    def _signed_body(self, value: bytes, key: str, subkey: str, expires: float) -> bytes:
        """What the peer has signed, still packed. Raises Refused where it has not."""
        content = self._content(value, key, subkey)
        envelope = _fields(content, _ENVELOPE_BOUNDS, key=bytes, signature=bytes, body=bytes)
        body: bytes = envelope["body"]
        check(Signature(envelope["key"], envelope["signature"]), _DOMAIN, key, subkey, expires, body)
        return body

    def _content(self, value: bytes, key: str, subkey: str) -> bytes:
        header, content = value[: len(_HEADER)], value[len(_HEADER) :]
        if header[: len(MAGIC)] != MAGIC:
            raise Refused(Reason.OTHER_SECRET, "a record that is not sealed in a private swarm")
        if header != _HEADER:
            version = header[-1] if len(header) == len(_HEADER) else 0
            if version > VERSION:
                raise Refused(Reason.OTHER_VERSION, f"version {version}; this node knows {VERSION}, update it")
            raise Refused(Reason.NOT_DECODABLE, "an own record without a version")
        return self._seal.open(content, key, subkey, header) if self._seal else content


def _fields(data: bytes, bounds: Bounds, **kinds: type) -> dict[str, Any]:
    """A map that is all of these bytes, with these fields among others. Raises Refused."""
    parsed = strict_msgpack.read(data, bounds)
    if parsed.end != len(data):
        raise Refused(Reason.NOT_DECODABLE, f"{len(data) - parsed.end} bytes behind its end")
    if not isinstance(parsed.value, dict):
        raise Refused(Reason.WRONG_SHAPE, f"a {type(parsed.value).__name__} instead of a map")
    for name, kind in kinds.items():
        if type(parsed.value.get(name)) is not kind:
            raise Refused(Reason.WRONG_SHAPE, f"its {name} is not of type {kind.__name__}")
    return parsed.value


def _deflated(body: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflated = packer.compress(body) + packer.flush()
    return bytes([_DEFLATED]) + deflated if len(deflated) < len(body) else bytes([_PLAIN]) + body


def _inflated(body: bytes) -> bytes:
    """Raises Refused beyond _MOST_INFLATED: 64 KiB could become 64 MiB."""
    kind, content = body[:1], body[1:]
    if kind == bytes([_PLAIN]):
        return content
    if kind != bytes([_DEFLATED]):
        raise Refused(Reason.NOT_DECODABLE, "packed in an unknown way")
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = unpacker.decompress(content, _MOST_INFLATED + 1)
    except zlib.error as error:
        raise Refused(Reason.NOT_DECODABLE, "its deflated part is damaged") from error
    if len(inflated) > _MOST_INFLATED:
        raise Refused(Reason.TOO_LARGE, f"inflates to more than {_MOST_INFLATED} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise Refused(Reason.NOT_DECODABLE, "its deflated part is cut short, or something follows it")
    return inflated


def _outgoing(group: OutgoingGroup) -> list[Any]:
    task, steps = group.task.provenance, quantised(group.mean_logprobs)
    packed = None if steps is None else struct.pack(f">{len(steps)}h", *steps)
    name = [task.environment, task.dataset, task.config_hash, task.seed, task.index]
    return [group.slot, *name, list(group.completions), packed]


def _claimed(group: object, limits: WireLimits) -> ClaimedGroup:
    if not isinstance(group, list) or len(group) < _VALUES_OF_A_GROUP - 1:
        raise Refused(Reason.WRONG_SHAPE, "a group that is no list of eight")
    slot, environment, dataset, config_hash, seed, index, completions, packed = group[: _VALUES_OF_A_GROUP - 1]
    for number, least, most in ((slot, 0, _MOST_SLOT), (seed, 0, SEEDS), (index, 1, SEEDS)):
        if type(number) is not int or not least <= number < most:
            raise Refused(Reason.WRONG_SHAPE, f"a slot, seed or index that is not in {least}..{most - 1}")
    for name in (environment, dataset, config_hash):
        if not isinstance(name, str) or not 0 < len(name) <= _MOST_NAME:
            raise Refused(Reason.WRONG_SHAPE, f"a name in a provenance that has not 1 to {_MOST_NAME} characters")
    texts = checked_completions(completions, limits)
    logprobs = None
    if packed is not None:
        if not isinstance(packed, bytes) or len(packed) != 2 * len(texts):
            raise Refused(Reason.WRONG_SHAPE, "mean log-probabilities that are not two bytes for each completion")
        logprobs = logprobs_of(struct.unpack(f">{len(texts)}h", packed), len(texts))
    return ClaimedGroup(texts, Provenance(environment, dataset, config_hash, seed, index), slot, None, logprobs)
