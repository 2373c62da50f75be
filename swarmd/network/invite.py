"""An invite: all that a node needs to join a swarm, as one word that survives chats, mails and shells.

`swarmd:` and, in base64url, a byte for the version, the zlib-compressed JSON of the fields, and eight bytes of checksum
over both. Whoever has the invite of a private swarm is in it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import zlib
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ValidationError

from swarmd.config.coordinator import Coordinator
from swarmd.config.swarm import Swarm
from swarmd.config.tasks import Tasks
from swarmd.config.values import Section
from swarmd.network.swarm_secret import is_secret
from swarmd.system.exits import ConfigurationError

PREFIX = "swarmd:"
VERSION = 1
MOST_PEERS = 32
_CHECKSUM_BYTES = 8
# Also the curved ones that chats and word processors make of them.
_QUOTES = "'\"`\u2018\u2019\u201c\u201d"
_PASTED = re.compile(rf"[\s{_QUOTES}]*(?:(?:sudo\s+)?swarmd\s+join\s+)?[\s{_QUOTES}]*")
_MOST_TEXT = 64 * 1024
_MOST_JSON = 256 * 1024
_HASH = re.compile(r"[0-9a-f]{64}")
_RELEASE = re.compile(r"[0-9A-Za-z.+!-]{0,40}")


@dataclass(frozen=True)
class Invite:
    """What a swarm is and where it is found.

    epoch (since 1970), round_seconds: seconds. datasets: a preset's name, or of each dataset name, weight and config.
    peers: multiaddresses with peer ids, the inviting node's first. config_hash: network.agreement. reasoning_gym: the
    version of the founder, for a message that says more than the hash. secret: of a private swarm.
    """

    name: str
    swarm_id: str
    epoch: float
    round_seconds: float
    shards: int
    datasets: str | tuple[dict[str, Any], ...]
    dialect: str
    peers: tuple[str, ...]
    config_hash: str
    reasoning_gym: str = ""
    secret: str | None = field(default=None, repr=False)


def encode(invite: Invite) -> str:
    """The word for an invite. Raises ConfigurationError for one that `decode` would refuse."""
    _check(invite)
    plain = json.dumps(asdict(invite), separators=(",", ":"), sort_keys=True, allow_nan=False)
    body = bytes([VERSION]) + zlib.compress(plain.encode(), 9)
    text = PREFIX + base64.urlsafe_b64encode(body + _checksum(body)).decode().rstrip("=")
    if len(text) > _MOST_TEXT or len(plain) > _MOST_JSON:
        raise ConfigurationError(
            f"tasks.datasets: the mix is too large for an invite ({len(text)} characters of at most {_MOST_TEXT}); "
            "leave out settings that are the datasets' own defaults"
        )
    return text


def decode(text: str) -> Invite:
    """The invite that a word stands for. Ignored are white space in it, quotes around it, and the command before it:
    people paste the whole line that they were sent.

    Raises:
        ConfigurationError: it is no invite, not a whole one, of a newer version, or a field has no allowed value. The
            message never holds the invite.
    """
    body = _body("".join(_PASTED.sub("", text, count=1).split()).strip(_QUOTES))
    if body[0] != VERSION:
        raise ConfigurationError(
            f"the invite has version {body[0]}, and this swarmd reads version {VERSION}; upgrade swarmd to join"
        )
    try:
        inflater = zlib.decompressobj()
        plain = inflater.decompress(body[1:], _MOST_JSON)
        if not inflater.eof or inflater.unused_data:
            raise ValueError("larger than any invite")
        fields = json.loads(plain, parse_constant=_refuse_constant)
        invite = _from_fields(fields)
    except (zlib.error, ValueError, RecursionError, TypeError, KeyError) as error:
        raise ConfigurationError(f"the invite holds something that no swarmd wrote: {type(error).__name__}") from None
    _check(invite)
    return invite


def _body(word: str) -> bytes:
    """Version and content, once the checksum is right."""
    if not word.startswith(PREFIX):
        raise ConfigurationError(
            f"this is no invite: an invite begins with {PREFIX} and is what `swarmd found` or `swarmd invite` printed"
        )
    coded = word.removeprefix(PREFIX)
    damaged = ConfigurationError(
        "the invite is damaged: a part is missing or changed; copy it again, whole, from what `swarmd invite` prints"
    )
    if len(word) > _MOST_TEXT:
        raise damaged
    try:
        data = base64.b64decode(coded + "=" * (-len(coded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise damaged from None
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if len(body) < 2 or checksum != _checksum(body):
        raise damaged
    return body


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(b"swarmd/invite" + body).digest()[:_CHECKSUM_BYTES]


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _from_fields(fields: dict[str, Any]) -> Invite:
    """Raises TypeError or KeyError for other fields than an invite has."""
    datasets = fields["datasets"]
    return Invite(
        **{
            **fields,
            "datasets": datasets if isinstance(datasets, str) else tuple(datasets),
            "peers": tuple(fields["peers"]),
        }
    )


def _check(invite: Invite) -> None:
    """Each field against what the configuration allows for it. Raises ConfigurationError naming the first to fail."""
    swarm = {"name": invite.name, "id": invite.swarm_id, "dialect": invite.dialect, "shards": invite.shards}
    clock = {"kind": "clock", "epoch": invite.epoch, "round_seconds": invite.round_seconds}
    _validate("swarm", Swarm, {**swarm, "peers": invite.peers})
    _validate("coordinator", Coordinator, clock)
    tasks = _validate("tasks", Tasks, {"datasets": invite.datasets})
    assert isinstance(tasks, Tasks)
    if invite.datasets != plain_datasets(tasks):
        raise _refused("tasks.datasets has entries without weight or config")
    if not invite.name or not invite.swarm_id:
        raise _refused("it names no swarm")
    if len(invite.peers) > MOST_PEERS:
        raise _refused(f"it names {len(invite.peers)} peers, and at most {MOST_PEERS} are taken")
    if not isinstance(invite.config_hash, str) or not _HASH.fullmatch(invite.config_hash):
        raise _refused("its configuration hash is not 64 hexadecimal digits")
    if not isinstance(invite.reasoning_gym, str) or not _RELEASE.fullmatch(invite.reasoning_gym):
        raise _refused("its version of reasoning-gym is none")
    if invite.secret is not None:
        if not isinstance(invite.secret, str) or not is_secret(invite.secret):
            raise _refused("its secret does not have the form of one")
        if invite.dialect != "swarmd":
            raise _refused(f"the dialect {invite.dialect} cannot keep a swarm private, and it has a secret")


def plain_datasets(tasks: Tasks) -> str | tuple[dict[str, Any], ...]:
    """tasks.datasets as an invite carries them."""
    if isinstance(tasks.datasets, str):
        return tasks.datasets
    return tuple(dataset.model_dump(mode="json") for dataset in tasks.datasets)


def _validate(section: str, model: type[Section], values: dict[str, Any]) -> Section:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in (section, *first["loc"]))
        raise _refused(f"{key}: {first['msg']}") from None


def _refused(why: str) -> ConfigurationError:
    return ConfigurationError(f"the invite cannot be used: {why}; ask for a new one, made by `swarmd invite`")
