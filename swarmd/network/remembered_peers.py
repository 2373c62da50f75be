"""peers.json in the state directory: peers that answered, so that a node finds its swarm without its bootnodes."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from swarmd.network.hivemind_dht import Multiaddr
from swarmd.network.strict_serializer import is_peer_id

FILE = "peers.json"
MOST_PEERS = 64
MOST_ADDRESSES = 4
_MOST_IN_A_NETWORK = 4

_LONGEST_FILE = 256 * 1024
_LONGEST_ADDRESS = 256
_HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6", "dnsaddr")

_log = logging.getLogger("swarmd")


@dataclass(frozen=True)
class KnownPeer:
    """addresses: multiaddresses without the peer id, the newest first.

    first_good, last_good: seconds since 1970 when it first and last answered, 0: never.
    """

    peer_id: str
    addresses: tuple[str, ...]
    last_good: float = 0.0
    first_good: float = 0.0

    @property
    def network(self) -> str | None:
        """The /24 or /48 of its newest address, which is as much as one owner has; None for a name or a local one."""
        _, protocol, host, *_ = self.addresses[0].split("/")
        if protocol not in ("ip4", "ip6"):
            return None
        try:
            address = ipaddress.ip_address(host)
        except ValueError:  # py-multiaddr takes a few forms more
            return None
        if not address.is_global:
            return None
        return str(ipaddress.ip_network((address, 24 if protocol == "ip4" else 48), strict=False))


def parse_address(text: str) -> tuple[str, str] | None:
    """(peer id, address without it) of a multiaddress such as /ip4/192.0.2.1/tcp/38751/p2p/Qm...; None if it is none.

    Addresses through a relay (.../p2p/RELAY/p2p-circuit/p2p/PEER) keep all but the last part.
    """
    if len(text) > _LONGEST_ADDRESS:
        return None
    address, separator, peer_id = text.rpartition("/p2p/")
    if not separator or not is_peer_id(peer_id) or not is_address(address):
        return None
    return peer_id, address


def is_address(text: object) -> bool:
    """Whether p2pd could be told to connect there over TCP."""
    if not isinstance(text, str) or len(text) > _LONGEST_ADDRESS:
        return False
    parts = text.split("/")
    return len(parts) >= 5 and parts[1] in _HOSTS and parts[3] == "tcp" and _is_multiaddress(text)


@lru_cache(maxsize=1024)  # the same few peers answer all the time
def _is_multiaddress(text: str) -> bool:
    try:
        Multiaddr(text)
    # py-multiaddr raises whatever its codecs for the parts raise.
    except Exception:
        _log.debug("not an address: %s", ascii(text))
        return False
    return True


class RememberedPeers:
    """At most 64, the last good ones first. A damaged file is as good as none, and a bad entry spoils no other.

    Half of the places are those of the longest known peers, so that many new names of one owner push out no more than
    the other half; that half is for who answered last, so that not all are of peers that have long been gone. A network
    has four places, shared out in the same way.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / FILE
        # A fixed name: what a process leaves that is killed while it writes is used again, and not one of many.
        self._new = state / f".{FILE}.new"
        with contextlib.suppress(OSError):
            self._new.unlink()
        self._peers = {peer.peer_id: peer for peer in self._read()}
        self._changed = False
        self._writing = threading.Lock()

    def __iter__(self) -> Any:
        return iter(sorted(self._peers.values(), key=lambda peer: -peer.last_good))

    def __len__(self) -> int:
        return len(self._peers)

    def answered(self, peer_id: str, addresses: Iterable[str]) -> None:
        """Notes that a peer answered just now, at these addresses (the newest first), and forgets one for it."""
        known = self._peers.get(peer_id)
        merged = [*filter(is_address, addresses), *(known.addresses if known else ())]
        if not merged or not is_peer_id(peer_id):
            return
        kept = tuple(dict.fromkeys(merged))[:MOST_ADDRESSES]
        now = time.time()
        noted = KnownPeer(peer_id, kept, now, known.first_good or now if known else now)
        self._peers[peer_id] = noted
        self._changed = True
        network = noted.network
        if network is not None:
            self._forget([peer for peer in self._peers.values() if peer.network == network], _MOST_IN_A_NETWORK)
        self._forget(list(self._peers.values()), MOST_PEERS)

    def _forget(self, peers: Sequence[KnownPeer], most: int) -> None:
        """Forgets those that are too many: neither among the half that is longest known, nor the last to answer."""
        longest = sorted(peers, key=lambda peer: peer.first_good - peer.last_good)
        recent = sorted(longest[most // 2 :], key=lambda peer: -peer.last_good)
        for peer in recent[most - most // 2 :]:
            del self._peers[peer.peer_id]

    def save(self) -> None:
        """Writes the file anew, in any thread, if something changed; where that fails it says so, and goes on."""
        if not self._changed:
            return
        self._changed = False
        with self._writing:
            # Sorting copies them first, in one step that no other thread comes between.
            self._write(list(self))

    def _write(self, peers: Sequence[KnownPeer]) -> None:
        listed = [
            {
                "peer_id": peer.peer_id,
                "addresses": peer.addresses,
                "first_good": round(peer.first_good),
                "last_good": round(peer.last_good),
            }
            for peer in peers
        ]
        text = json.dumps({"version": 1, "peers": listed}, indent=1)
        try:
            self._new.unlink(missing_ok=True)
            with os.fdopen(os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(self._new, self._path)
        except OSError as error:
            self._changed = True
            _log.warning("%s cannot be written: %s", self._path, error.strerror)
            with contextlib.suppress(OSError):
                self._new.unlink()

    def _read(self) -> list[KnownPeer]:
        try:
            with open(self._path, "rb") as file:
                text = file.read(_LONGEST_FILE + 1)
            document = json.loads(text) if len(text) <= _LONGEST_FILE else None
            entries = document["peers"] if isinstance(document, dict) else None
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, RecursionError) as error:
            _log.warning("%s is damaged and not used: %s", self._path, type(error).__name__)
            return []
        if not isinstance(entries, list):
            _log.warning("%s is damaged and not used", self._path)
            return []
        peers = [peer for entry in entries[: 4 * MOST_PEERS] if (peer := _known_peer(entry)) is not None]
        return sorted(peers, key=lambda peer: -peer.last_good)[:MOST_PEERS]


def _known_peer(entry: Any) -> KnownPeer | None:
    """An entry of the file; None if anything about it is wrong. Times to come count as none: they would stay first."""
    if not isinstance(entry, dict):
        return None
    peer_id, addresses, last_good, first_good = map(entry.get, ("peer_id", "addresses", "last_good", "first_good"))
    if not isinstance(peer_id, str) or not is_peer_id(peer_id) or not isinstance(addresses, list):
        return None
    usable = tuple(address for address in addresses[: 4 * MOST_ADDRESSES] if is_address(address))[:MOST_ADDRESSES]
    if not usable:
        return None
    if not isinstance(last_good, int | float) or not 0 < last_good <= time.time():
        last_good = 0.0
    if not isinstance(first_good, int | float) or not 0 < first_good <= last_good:
        first_good = last_good
    return KnownPeer(peer_id, usable, float(last_good), float(first_good))
