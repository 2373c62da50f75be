"""The status file: what the node does now, for `swarmd status` and other programs. It holds no secrets."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from swarmd.monitor.report_file import lives, process_mark, read_report, write_report

STATUS_FILE = "status.json"
STATES = ("starting", "training", "degraded", "stopping", "stopped", "failed")
BOOTNODE = "bootnode"
"""The role of a node that does not train: its state "training" means that it serves."""
ENDED = ("stopped", "failed")

_log = logging.getLogger("swarmd")


class StatusError(Exception):
    """There is no status to read; the message says why and what to do."""


@dataclass(frozen=True)
class ModelStatus:
    """plan: the memory plan in words."""

    name: str
    parameters: int
    plan: str


@dataclass(frozen=True)
class RewardStatus:
    last: float | None = None
    mean_100: float | None = None


@dataclass(frozen=True)
class HeldoutStatus:
    """Held-out scores, and the round of the last one."""

    base: float | None = None
    last: float | None = None
    best: float | None = None
    round: int | None = None


@dataclass(frozen=True)
class PeersStatus:
    seen: int = 0
    used: int = 0


@dataclass(frozen=True)
class MemoryStatus:
    """Bytes: in use, allowed, the most used so far, and the peak that the plan predicts."""

    used: int = 0
    limit: int = 0
    peak: int = 0
    predicted: int = 0


@dataclass(frozen=True)
class CheckpointStatus:
    """The last good checkpoint; time: ISO 8601 UTC."""

    round: int
    path: str
    time: str


@dataclass(frozen=True)
class ChildStatus:
    pid: int
    restarts: int


@dataclass(frozen=True)
class NetworkStatus:
    """The node's place in its swarm. swarm: the swarm's name, "" for one without. connected, known: peers that answer,
    and whose records came in the last rounds. reachable: whether peers could call this node back, None while none
    tried. addresses: multiaddresses for others. clock_skew_s: seconds that the peers' clocks are ahead of this one.
    bytes_in, bytes_out: of DHT messages since the network process started. problem: why there is no connection, ""
    while there is. disagreement: in what the configuration differs from what the swarm agreed on, "" where it does not.
    """

    swarm: str
    swarm_id: str
    connected: int = 0
    known: int = 0
    reachable: bool | None = None
    addresses: tuple[str, ...] = ()
    clock_skew_s: float | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    problem: str = ""
    disagreement: str = ""


@dataclass(frozen=True)
class Status:
    """state: one of STATES; round: the one in work; uptime_s: seconds; None where there is nothing yet.

    role: node, or BOOTNODE. network: None for a node in no swarm.
    """

    state: str
    phase: str = ""
    round: int | None = None
    rounds_done: int = 0
    peer_id: str | None = None
    name: str = ""
    role: str = "node"
    uptime_s: float = 0.0
    model: ModelStatus | None = None
    reward: RewardStatus = RewardStatus()
    heldout: HeldoutStatus = HeldoutStatus()
    signal_share: float | None = None
    tokens_per_s: float | None = None
    peers: PeersStatus = PeersStatus()
    network: NetworkStatus | None = None
    admitted: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    memory: MemoryStatus = MemoryStatus()
    checkpoint: CheckpointStatus | None = None
    restarts: Mapping[str, int] = field(default_factory=dict)
    children: Mapping[str, ChildStatus] = field(default_factory=dict)


class StatusFile:
    """Writes the status of this process to `path`, at most every half second."""

    def __init__(self, path: Path, *, interval: float = 0.5) -> None:
        self._path = path
        self._interval = interval
        self._written = -math.inf
        self._warned = ""
        self._process = process_mark()

    def write(self, status: Status, *, force: bool = False) -> None:
        """Replaces the file in one step, readable by all; `force` for a change of state.

        A disk that refuses is a warning: the status is not worth the node. ValueError for an unknown state.
        """
        if status.state not in STATES:
            raise ValueError(f"{status.state!r} is not a state; the states are {', '.join(STATES)}")
        now = time.monotonic()
        if not force and now - self._written < self._interval:
            return
        self._written = now
        document = {**_without_nan(asdict(status)), "process": self._process}
        try:
            write_report(self._path, document)
        except OSError as error:
            if str(error) != self._warned:
                self._warned = str(error)
                _log.warning("the status cannot be written: %s", error)


def read_status(directory: Path) -> dict[str, Any]:
    """The last status written in a state or runtime directory, `state` "stopped" where its process is gone.

    Raises StatusError.
    """
    path = directory / STATUS_FILE
    try:
        document = read_report(path)
    except FileNotFoundError:
        raise StatusError(
            f"{path} does not exist: no swarmd has run with this state directory; "
            "start one with `swarmd run`, or name the directory with --state DIR"
        ) from None
    except OSError as error:
        raise StatusError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise StatusError(f"{path} is not a status file: {error}") from error
    process = document.pop("process", None) if isinstance(document, dict) else None
    if not isinstance(process, dict) or document.get("state") not in STATES:
        raise StatusError(f"{path} is not a status file of swarmd")
    if document["state"] not in ENDED and not lives(process):
        document["state"] = "stopped"
    return document


def _without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: null in their place."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
