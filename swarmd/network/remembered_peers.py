"""peers.json in the state directory: peers that answered, so that a node finds its swarm without its bootnodes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarmd.network.hivemind_dht import Multiaddr
from swarmd.network.strict_serializer import is_peer_id

FILE = "peers.json"
MOST_PEERS = 64
MOST_ADDRESSES = 4

_LONGEST_FILE = 256 * 1024
_LONGEST_ADDRESS = 256
_HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6", "dnsaddr")

_log = logging.getLogger("swarmd")


@dataclass(frozen=True)
class KnownPeer:
    """addresses: multiaddresses without the peer id. last_good: seconds since 1970 when it last answered, 0: never."""

    peer_id: str
    addresses: tuple[str, ...]
    last_good: float = 0.0


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
    if len(parts) < 5 or parts[1] not in _HOSTS or parts[3] != "tcp":
        return False
    try:
        Multiaddr(text)
    # py-multiaddr raises whatever its codecs for the parts raise.
    except Exception:
        _log.debug("not an address: %s", ascii(text))
        return False
    return True


class RememberedPeers:
    """At most 64, the last good ones first. A damaged file is as good as none, and a bad entry spoils no other."""

    def __init__(self, state: Path) -> None:
        self._path = state / FILE
        self._peers = {peer.peer_id: peer for peer in self._read()}
        self._changed = False

    def __iter__(self) -> Any:
        return iter(sorted(self._peers.values(), key=lambda peer: -peer.last_good))

    def __len__(self) -> int:
        return len(self._peers)

    def answered(self, peer_id: str, addresses: Iterable[str]) -> None:
        """Notes that a peer answered just now, at these addresses (the newest first), and forgets the oldest peers."""
        known = self._peers.get(peer_id)
        merged = [*filter(is_address, addresses), *(known.addresses if known else ())]
        if not merged or not is_peer_id(peer_id):
            return
        kept = tuple(dict.fromkeys(merged))[:MOST_ADDRESSES]
        self._peers[peer_id] = KnownPeer(peer_id, kept, time.time())
        self._changed = True
        if len(self._peers) > MOST_PEERS:
            del self._peers[min(self._peers.values(), key=lambda peer: peer.last_good).peer_id]

    def save(self) -> None:
        """Writes the file anew if something changed; where that fails it says so, and the node goes on."""
        if not self._changed:
            return
        listed = [
            {"peer_id": peer.peer_id, "addresses": peer.addresses, "last_good": round(peer.last_good)} for peer in self
        ]
        text = json.dumps({"version": 1, "peers": listed}, indent=1)
        try:
            descriptor, temporary = tempfile.mkstemp(prefix=".peers-", dir=self._path.parent)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path, error.strerror)
            return
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
            self._changed = False
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path, error.strerror)
            with contextlib.suppress(OSError):
                os.unlink(temporary)

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
    peer_id, addresses, last_good = (entry.get(name) for name in ("peer_id", "addresses", "last_good"))
    if not isinstance(peer_id, str) or not is_peer_id(peer_id) or not isinstance(addresses, list):
        return None
    usable = tuple(address for address in addresses[: 4 * MOST_ADDRESSES] if is_address(address))[:MOST_ADDRESSES]
    if not usable:
        return None
    if not isinstance(last_good, int | float) or not 0 < last_good <= time.time():
        last_good = 0.0
    return KnownPeer(peer_id, usable, float(last_good))
