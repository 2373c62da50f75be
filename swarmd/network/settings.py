"""What the network process is told at its start, and what it tells of itself. Both travel as plain maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ExchangeLimits:
    """How much is taken from others: section `network.limits` of the configuration."""

    record_bytes: int
    peers_per_round: int
    groups_per_peer: int
    completion_chars: int


@dataclass(frozen=True)
class NetworkSettings:
    """Everything the network process needs; it reads no configuration.

    secret: of a private swarm, "" for an open one. datasets: the mix, a preset's name or entries as in the
    configuration. dialect: what is written; what is read is told by the bytes. trains: False for a bootnode.
    runtime: the directory for what it tells of its peers (peers_report).
    """

    swarm_id: str
    dialect: str
    shards: int
    secret: str = field(repr=False)
    identity_file: str
    state: str
    runtime: str
    listen: tuple[str, ...]
    announce: tuple[str, ...]
    relay: bool
    peers: tuple[str, ...]
    datasets: Any
    limits: ExchangeLimits
    model: str
    trains: bool

    @property
    def state_directory(self) -> Path:
        return Path(self.state)

    def to_message(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> NetworkSettings:
        """The settings in a message of `to_message`."""
        lists = {name: tuple(message[name]) for name in ("listen", "announce", "peers")}
        return cls(**{**message, **lists, "limits": ExchangeLimits(**message["limits"])})


@dataclass(frozen=True)
class NetworkState:
    """What the network process says of itself each second.

    connected, known: peers connected now, and heard of in the last rounds. addresses: multiaddresses others may use.
    skew_s: seconds by which peers' clocks differ from ours, None while nobody told. reachable: whether a peer could
    call us back, None while nobody tried. daemon_pid, daemon_restarts: of p2pd. bytes_in, bytes_out: of DHT messages
    since the start. problem: why p2pd does not run, "" while it does.
    """

    connected: int = 0
    known: int = 0
    addresses: tuple[str, ...] = ()
    skew_s: float | None = None
    reachable: bool | None = None
    daemon_pid: int | None = None
    daemon_restarts: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    problem: str = ""

    def to_message(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> NetworkState:
        return cls(**{**message, "addresses": tuple(message["addresses"])})
