"""A member of a swarm, as it lives in the network process: its DHT node, what it admits, and the round's exchange."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarmd.network.addresses import is_circuit
from swarmd.network.dht_node import NodeSettings, PeerSeen, SwarmNode
from swarmd.network.dialects import WireLimits, dialect_for
from swarmd.network.hivemind_dht import P2PDaemonError
from swarmd.network.identity import load
from swarmd.network.peers_report import rows, write_peers
from swarmd.network.settings import NetworkSettings, NetworkState
from swarmd.network.strict_bounds import Bounds

if TYPE_CHECKING:
    from swarmd.network.admission import Admission
    from swarmd.network.round_exchange import Exchanged, RoundExchange
    from swarmd.tasks.mix import TaskMix

REPUTATION_FILE = "reputation.json"
USED = "used"
"""The verdict on groups that were trained on."""
_ADDRESSES_SECONDS = 10.0
_PEERS_TOLD_SECONDS = 5.0
_AGAIN_SECONDS = 1.0
# Values in one of swarmd's records: a node writes 64 groups of 8 at most. Each costs some 20 microseconds to read.
_OWN_BOUNDS = Bounds(values=1500)

_log = logging.getLogger("swarmd")


class GivenUp(Exception):
    """An exchange that nobody waits for any more: what the main process asked for came later than its patience."""


class SwarmMember:
    """Joins the swarm with `start`, and then does what it is called for."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings
        self._identity = load(Path(settings.identity_file))
        self._dialect = dialect_for(
            settings.dialect, settings.swarm_id, settings.shards, settings.secret, settings.limits.record_bytes,
            WireLimits(
                completion_chars=settings.limits.completion_chars,
                bounds=_OWN_BOUNDS if settings.dialect == "swarmd" else Bounds(),
            ),
        )  # fmt: skip
        self._node: SwarmNode
        self._preparing: asyncio.Task[RoundExchange | None]
        self._exchange: RoundExchange | None = None
        self._admission: Admission | None = None
        self._sharing: asyncio.Task[Exchanged] | None = None
        self._saving: asyncio.Task[None] | None = None
        self._going_on: list[asyncio.Task[None]] = []
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
            namespace=self._dialect.dht_namespace,
        )
        try:
            self._node = await SwarmNode.start(node, self._is_genuine)
        except (P2PDaemonError, TimeoutError) as error:
            raise OSError(f"p2pd does not start: {error}") from error
        self._preparing = asyncio.create_task(self._prepare())
        self._preparing.add_done_callback(_end_the_process)
        self._going_on = [
            asyncio.create_task(_forever(self._look_at_addresses, "the look at peers' addresses")),
            asyncio.create_task(_forever(self._tell_of_peers, "the report on the peers")),
        ]

    def _is_genuine(self, key: str, subkey: str, value: bytes, expires: float) -> bool:
        """Whether the peer in the subkey has signed the record."""
        return self._dialect.is_signed(value, key, subkey, expires)

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
        # A full collection would walk through all that reasoning-gym has loaded, and who floods this node with records
        # brings on one after the other (docs.python.org/3/library/gc.html, freeze).
        gc.collect()
        gc.freeze()
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
        """The IP address from which a peer is connected, None for one that is not, or through a relay only."""
        for address in self._peer_addresses.get(peer_id, ()):
            parts = address.split("/")
            if len(parts) > 2 and parts[1] in ("ip4", "ip6") and not is_circuit(address):
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
            return (await self._share(exchange, arguments)).to_message()
        if name == "verdicts":
            for peer, reasons in arguments["verdicts"].items():
                for reason, count in reasons.items():
                    if reason != USED:  # good news; it was booked when they were admitted
                        self._admission.report(peer, reason, time.time(), count)
            self._save_soon(self._admission)
            return None
        if name == "peers":
            return self._admission.peers(time.time())
        raise ValueError(f"there is no call `{name}`")

    async def _share(self, exchange: RoundExchange, arguments: Mapping[str, Any]) -> Exchanged:
        """One exchange at a time: whoever asks for another one has given up the one before."""
        before = self._sharing
        task = self._sharing = asyncio.create_task(exchange.run(**arguments))
        if before is not None:
            before.cancel()
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
        if task.cancelled():
            raise GivenUp("another exchange was asked for before this one was over")
        if self._admission is not None:
            self._save_soon(self._admission)
        return task.result()

    def _save_soon(self, admission: Admission) -> None:
        """In a thread, and nothing waits for it: a busy disk may take seconds. What changes while it is written, is
        written the next time."""
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(asyncio.to_thread(admission.reputation.save))

    async def close(self) -> None:
        """Leaves the swarm, and writes down what was learned of the peers since the last exchange."""
        for task in (self._preparing, self._sharing, *self._going_on):
            if task is not None:
                task.cancel()
        if self._exchange is not None:
            self._exchange.close()
        if self._admission is not None:
            await asyncio.to_thread(self._admission.reputation.save)
        if self._preparing.done() and not self._preparing.cancelled() and self._preparing.exception() is None:
            await asyncio.to_thread(self._write_peers)
        await self._node.close()


async def _forever(work: Callable[[], Awaitable[None]], name: str) -> None:
    while True:
        try:
            await work()
        # A fault of ours must not freeze for good what others are told: the trace is, and the work begins anew.
        except Exception:
            _log.exception("%s failed; it goes on", name)
            await asyncio.sleep(_AGAIN_SECONDS)


def _end_the_process(preparing: asyncio.Task[RoundExchange | None]) -> None:
    """A member that could not prepare itself would look healthy and answer no call: the process ends, so that the
    main process tells it and starts another one."""
    if not preparing.cancelled() and (error := preparing.exception()) is not None:
        _log.critical("this process cannot take part in the swarm and ends: %s", error, exc_info=error)
        asyncio.get_running_loop().stop()


def _around(round: int) -> range:
    return range(max(0, round - 1), round + 3)


def _mix(datasets: Any) -> TaskMix:
    from swarmd.tasks.mix import DatasetSpec, TaskMix
    from swarmd.tasks.mix_files import preset

    if isinstance(datasets, str):
        return TaskMix(preset(datasets))
    return TaskMix([DatasetSpec(entry["name"], entry["weight"], entry["config"]) for entry in datasets])
