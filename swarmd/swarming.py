"""Whether the node is in a swarm, and what that takes: an identity of its own, and the network process."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swarmd.agreed import warn_of_disagreement
from swarmd.config import Config
from swarmd.monitor.status import ChildStatus, NetworkStatus
from swarmd.network.identity import Identity, identity_path, load_or_create, lock_identity
from swarmd.network.network_process import NetworkProcess
from swarmd.network.peers_report import remove_report
from swarmd.network.settings import ExchangeLimits, NetworkSettings
from swarmd.network.swarm_secret import read_swarm_secret
from swarmd.system.events import event
from swarmd.system.paths import runtime_directory

if TYPE_CHECKING:
    from swarmd.network.alone import Alone
    from swarmd.network.swarm_link import Swarm

SOLO_SWARM = "solo"
"""Stands in the tasks' seeds for the id of a swarm where there is none."""

SHARED_ENVIRONMENT = "reasoning_gym"
"""The environment whose tasks any node makes anew from their provenance (tasks.mix)."""

# Measured: the network process, its part for the tasks of peers (reasoning-gym), and p2pd, which had 60 to 110 MiB with
# 40 peers and keeps at most 512 connections.
_PROCESS_BYTES, _TASKS_BYTES, _P2PD_BYTES = 52 << 20, 85 << 20, 110 << 20

_SHARE_OF_THE_ROUND = 0.25
_SHORTEST_GATHERING, _LONGEST_GATHERING = 1.0, 120.0


@dataclass(frozen=True)
class Membership:
    """A node's place in its swarm while it runs. swarm: its name, "" for one without. disagreement: in what it differs
    from what the swarm agreed on, "" where it does not."""

    identity: Identity
    swarm: str
    swarm_id: str
    process: NetworkProcess
    disagreement: str

    def children(self) -> dict[str, ChildStatus]:
        """The network process and p2pd, as far as they run."""
        found = {}
        if (pid := self.process.pid) is not None:
            found["network"] = ChildStatus(pid, self.process.restarts)
        state = self.process.state
        if state.daemon_pid is not None:
            found["p2pd"] = ChildStatus(state.daemon_pid, state.daemon_restarts)
        return found

    def status(self) -> NetworkStatus:
        """What the status tells of the swarm."""
        state = self.process.state
        return NetworkStatus(
            self.swarm, self.swarm_id, state.connected, state.known, state.reachable, state.addresses, state.skew_s,
            state.bytes_in, state.bytes_out, self.trouble() if self.process.pid is None else state.problem,
            self.disagreement,
        )  # fmt: skip

    def trouble(self) -> str:
        """Why the node trains without peers, "" when it has some."""
        state = self.process.state
        if self.process.pid is None:
            return "the network process is being replaced"
        if state.problem:
            return state.problem
        return "" if state.connected else "0 peers"


def in_a_swarm(config: Config) -> bool:
    """Whether this configuration makes the node a member of a swarm."""
    return config.coordinator.kind != "solo"  # all others count the rounds of a swarm


def network_bytes(config: Config) -> int:
    """The memory that being in a swarm takes beside training: the network process and p2pd."""
    if not in_a_swarm(config):
        return 0
    makes_tasks = config.swarm.role == "node" and config.tasks.environment == SHARED_ENVIRONMENT
    return _PROCESS_BYTES + _P2PD_BYTES + (_TASKS_BYTES if makes_tasks else 0)


@contextmanager
def membership(
    config: Config,
    config_path: Path | None,
    state: Path,
    model: str,
    environ: Mapping[str, str],
    beat: Callable[[], None],
) -> Iterator[Membership | None]:
    """The node's membership for as long as the block lasts; None where it is in no swarm.

    config_path: of the file that it was read from, None for the default one. model: its name, told to the peers. beat:
    called while it waits.
    Raises ConfigurationError: the identity is in use or cannot be read, an address cannot be listened on.
    """
    if not in_a_swarm(config):
        with suppress(OSError):  # of a swarm that the node has left; it does no harm either
            remove_report(runtime_directory(state))
        yield None
        return
    path = identity_path(config.network.identity_file, state, environ)
    with lock_identity(path):
        identity = load_or_create(path)
        settings = network_settings(config, identity, state, model, environ)
        process = NetworkProcess(settings)
        process.start(beat)
        event("joined", f"in swarm {config.swarm.name or settings.swarm_id} as {identity.name} ({identity.peer_id})",
              peer_id=identity.peer_id, swarm=settings.swarm_id)
        try:
            disagreement = warn_of_disagreement(config, config_path, environ)
            yield Membership(identity, config.swarm.name or "", settings.swarm_id, process, disagreement)
        finally:
            process.close()


def network_settings(
    config: Config, identity: Identity, state: Path, model: str, environ: Mapping[str, str]
) -> NetworkSettings:
    """What the network process is told. Raises ConfigurationError for a secret that cannot be read."""
    swarm, network, limits = config.swarm, config.network, config.network.limits
    secret = read_swarm_secret(swarm.secret_file, environ) if swarm.secret_file is not None else ""
    tasks = config.tasks.model_dump(mode="json")
    return NetworkSettings(
        swarm_id=swarm.id or SOLO_SWARM,
        dialect=swarm.dialect,
        shards=swarm.shards,
        secret=secret,
        identity_file=os.path.abspath(identity.path),
        state=os.path.abspath(state),
        runtime=os.path.abspath(runtime_directory(state)),
        listen=network.listen,
        announce=network.announce,
        relay=network.relay,
        peers=swarm.peers,
        datasets=tasks["datasets"],
        limits=ExchangeLimits(
            record_bytes=limits.record_bytes,
            peers_per_round=limits.peers_per_round,
            groups_per_peer=limits.groups_per_peer,
            completion_chars=limits.completion_chars,
        ),
        model=model.rpartition("/")[2][:64],
        trains=swarm.role == "node" and config.tasks.environment == SHARED_ENVIRONMENT,
    )


def communication_of(
    member: Membership | None, config: Config, deadline: Callable[[int], float], node_id: str, beat: Callable[[], None]
) -> Alone | Swarm:
    """How the game talks to the swarm, or to nobody. deadline: when a round ends, seconds since 1970."""
    # GenRL, on whose interface both stand, brings torch along, which a bootnode does without.
    from swarmd.network.alone import Alone
    from swarmd.network.swarm_link import Swarm

    if member is None:
        return Alone(node_id)
    if config.tasks.environment != SHARED_ENVIRONMENT:
        event("network_down", f"tasks.environment is {config.tasks.environment}: peers could not make its tasks anew "
              "to check what was answered, so nothing is exchanged", priority=4)
        return Alone(node_id)
    return Swarm(
        member.process, member.identity.peer_id, member.swarm_id, config.training.tasks_per_round, deadline,
        gather_seconds(config), beat,
    )  # fmt: skip


def gather_seconds(config: Config) -> float:
    """How long a round waits for the records of peers."""
    wanted = config.network.gather_seconds
    if wanted != "auto":
        return float(wanted)
    if config.coordinator.kind != "clock":
        return math.inf
    return min(_LONGEST_GATHERING, max(_SHORTEST_GATHERING, _SHARE_OF_THE_ROUND * config.coordinator.round_seconds))
