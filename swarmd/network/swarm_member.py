"""A member of a swarm, as it lives in the network process: its DHT node, what it admits, and the round's exchange."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarmd.network.dht_node import NodeSettings, PeerSeen, SwarmNode
from swarmd.network.dialects import WireLimits, decode, dialect_for
from swarmd.network.hivemind_dht import P2PDaemonError
from swarmd.network.identity import load
from swarmd.network.peers_report import rows, write_peers
from swarmd.network.refusals import Reason, Refused, shown
from swarmd.network.settings import NetworkSettings, NetworkState

if TYPE_CHECKING:
    from swarmd.network.admission import Admission
    from swarmd.network.round_exchange import RoundExchange
    from swarmd.tasks.mix import TaskMix

REPUTATION_FILE = "reputation.json"
USED = "used"
"""The verdict on groups that were trained on."""
_ADDRESSES_SECONDS = 10.0
_PEERS_TOLD_SECONDS = 5.0

_log = logging.getLogger("swarmd")


class SwarmMember:
    """Joins the swarm with `start`, and then does what it is called for."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings
        self._identity = load(Path(settings.identity_file))
        self._dialect = dialect_for(
            settings.dialect, settings.swarm_id, settings.shards, settings.secret, settings.limits.record_bytes,
            WireLimits(completion_chars=settings.limits.completion_chars),
        )  # fmt: skip
        self._node: SwarmNode
        self._preparing: asyncio.Task[RoundExchange | None]
        self._exchange: RoundExchange | None = None
        self._admission: Admission | None = None
        # One exchange at a time: the next may be asked for before one that the main process gave up has ended, and
        # neither the mix nor the admission is for two threads.
        self._sharing = asyncio.Lock()
        self._looking: asyncio.Task[None]
        self._telling: asyncio.Task[None]
        self._seen: Sequence[PeerSeen] = ()
        self._untold = ""
        self._addresses: tuple[str, ...] = ()
        self._peer_addresses: Mapping[str, tuple[str, ...]] = {}

    async def start(self) -> None:
        """Starts p2pd and the DHT node; peers are looked for in the background.

        Raises ConfigurationError for an address that cannot be listened on, OSError where p2pd does not start.
        """
        settings = self._settings
        node = NodeSettings(
            state=settings.state_directory,
            identity=Path(settings.identity_file),
            listen=settings.listen,
            announce=settings.announce,
            relay=settings.relay,
            peers=settings.peers,
        )
        try:
            self._node = await SwarmNode.start(node, self._is_genuine)
        except (P2PDaemonError, TimeoutError) as error:
            raise OSError(f"p2pd does not start: {error}") from error
        self._preparing = asyncio.create_task(self._prepare())
        self._looking = asyncio.create_task(self._look_at_addresses())
        self._telling = asyncio.create_task(self._tell_of_peers())

    def _is_genuine(self, key: str, subkey: str, value: bytes, expires: float) -> bool:
        """Whether the peer in the subkey has signed the record."""
        try:
            return decode(value, _round_of(key), key, subkey, expires, self._dialect).signed
        except Refused:
            return False

    async def _look_at_addresses(self) -> None:
        while True:
            self._addresses = await self._node.visible_maddrs()
            self._peer_addresses = {peer.peer_id: peer.addresses for peer in await self._node.peers()}
            await asyncio.sleep(_ADDRESSES_SECONDS)

    async def _tell_of_peers(self) -> None:
        """Keeps the report for `swarmd peers` up to date."""
        # Until there is an opinion of anybody, what the process before this one wrote tells more.
        await asyncio.shield(self._preparing)
        while True:
            self._seen = await self._node.peers()
            await asyncio.to_thread(self._write_peers)
            await asyncio.sleep(_PEERS_TOLD_SECONDS)

    def _write_peers(self) -> None:
        now = time.time()
        try:
            write_peers(Path(self._settings.runtime), rows(self._admission, self._seen, now), now)
        except OSError as error:
            if str(error) != self._untold:
                self._untold = str(error)
                _log.warning("what is known of the peers cannot be written: %s", error)

    async def _prepare(self) -> RoundExchange | None:
        """What takes seconds, while the DHT node finds its peers."""
        if self._settings.trains:
            self._admission, self._exchange = await asyncio.to_thread(self._open_exchange)
        return self._exchange

    def _open_exchange(self) -> tuple[Admission, RoundExchange]:
        # Imported here, in a thread: reasoning-gym takes seconds, and a node that replaces this process is to hear
        # from it before.
        from swarmd.network.admission import Admission
        from swarmd.network.reputation import Reputation
        from swarmd.network.round_exchange import RoundExchange
        from swarmd.tasks.legacy_table import LEGACY_TABLE, load_table

        mix = _mix(self._settings.datasets)
        table = load_table(LEGACY_TABLE) if self._settings.dialect != "swarmd" else None
        if table is not None:
            len(table)  # made now: it takes a second, which the first record of a GenRL node would have to wait for
        limits, swarm_id = self._settings.limits, self._settings.swarm_id
        reputation = Reputation(self._settings.state_directory / REPUTATION_FILE)
        admission = Admission(swarm_id, self._identity.peer_id, self._dialect, mix, table, limits, reputation)
        exchange = RoundExchange(
            self._node, self._dialect, admission, mix, self._identity, swarm_id, limits.peers_per_round,
            self._settings.model, self._address_of,
        )  # fmt: skip
        return admission, exchange

    def state(self) -> NetworkState:
        """What is told each second."""
        node, exchange = self._node, self._exchange
        return NetworkState(
            connected=node.connected_peers,
            known=exchange.known if exchange else 0,
            addresses=self._addresses,
            skew_s=node.clock_skew(),
            reachable=node.reachable(),
            daemon_pid=node.daemon_pid,
            daemon_restarts=node.daemon_restarts,
            bytes_in=node.traffic.bytes_in,
            bytes_out=node.traffic.bytes_out,
            problem=node.problem,
        )

    def _address_of(self, peer_id: str) -> str | None:
        """The IP address from which a peer is connected, None for one that is not."""
        for address in self._peer_addresses.get(peer_id, ()):
            parts = address.split("/")
            if len(parts) > 2 and parts[1] in ("ip4", "ip6"):
                return parts[2]
        return None

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Carries out a call of the main process: share, open, verdicts or peers. ValueError for any other."""
        exchange = await asyncio.shield(self._preparing)
        if name == "open":
            keys = [key for number in _around(arguments["round"]) for key in self._dialect.keys(number)]
            self._node.allow(keys)
            return None
        if exchange is None or self._admission is None:
            raise ValueError(f"a bootnode has no call `{name}`")
        if name == "share":
            async with self._sharing:
                return (await exchange.run(**arguments)).to_message()
        if name == "verdicts":
            for peer, reasons in arguments["verdicts"].items():
                for reason, count in reasons.items():
                    if reason != USED:  # good news; it was booked when they were admitted
                        self._admission.report(peer, reason, time.time(), count)
            return None
        if name == "peers":
            return self._admission.peers(time.time())
        raise ValueError(f"there is no call `{name}`")

    async def close(self) -> None:
        """Leaves the swarm; the opinion of its peers is kept."""
        self._preparing.cancel()
        self._looking.cancel()
        self._telling.cancel()
        if self._admission is not None:
            self._admission.reputation.save()
        if self._preparing.done():
            self._write_peers()
        await self._node.close()


def _around(round: int) -> range:
    return range(max(0, round - 1), round + 3)


def _round_of(key: str) -> int:
    """The round in a key: swarmd/1/NAMESPACE/ROUND/SHARD, or GenRL's bare number. Raises Refused."""
    parts = key.split("/")
    number = parts[3] if len(parts) == 5 else key
    if not (number.isascii() and number.isdigit() and len(number) <= 15):
        raise Refused(Reason.WRONG_KEY, f"{shown(key)} is the key of no round")
    return int(number)


def _mix(datasets: Any) -> TaskMix:
    from swarmd.tasks.mix import DatasetSpec, TaskMix
    from swarmd.tasks.mix_files import preset

    if isinstance(datasets, str):
        return TaskMix(preset(datasets))
    return TaskMix([DatasetSpec(entry["name"], entry["weight"], entry["config"]) for entry in datasets])
