"""Under which addresses others can call this node, as far as the node itself can know."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from swarmd.config.network import Network

Reach = Literal["public", "private", "machine", "nowhere"]
"""From where a node can be called: anywhere, its own network, the same machine only, or nowhere."""

_BEST_FIRST: tuple[Reach, ...] = ("public", "private", "machine", "nowhere")
_MOST = 8
_WILDCARDS = ("0.0.0.0", "::")
# Bridges that containers and virtual machines of this machine hang on: nobody outside can use their addresses.
_INNER_INTERFACES = ("docker", "virbr", "lxcbr", "podman")


@dataclass(frozen=True)
class Reachable:
    """Multiaddresses without a peer id, the widest reach first, and the widest reach of them."""

    addresses: tuple[str, ...]
    reach: Reach

    def with_peer(self, peer_id: str) -> tuple[str, ...]:
        """The addresses as other nodes need them."""
        return tuple(f"{address}/p2p/{peer_id}" for address in self.addresses)


def reachable(network: Network) -> Reachable:
    """What network.announce says, else the machine's own addresses with the ports that it listens on."""
    addresses = network.announce or tuple(_listened_on(network.listen))
    by_reach = sorted(dict.fromkeys(addresses), key=lambda address: _BEST_FIRST.index(_reach(address)))
    reach = _reach(by_reach[0]) if by_reach else "nowhere"
    if reach != "machine":  # where there is a better one, nobody needs a loopback address
        by_reach = [address for address in by_reach if _reach(address) != "machine"]
    return Reachable(tuple(by_reach[:_MOST]), reach)


def is_circuit(address: str) -> bool:
    """Whether a multiaddress leads through a relay (github.com/libp2p/specs, relay/circuit-v2.md)."""
    return "/p2p-circuit" in address


def _listened_on(listen: Iterable[str]) -> Iterator[str]:
    for address in listen:
        _, protocol, host, transport, port, *rest = address.split("/")
        if int(port) == 0:
            continue  # a port that is drawn at each start
        hosts = [host]
        if host in _WILDCARDS:
            hosts = [own for own in _own_addresses() if ipaddress.ip_address(own).version == int(protocol[-1])]
        for own in hosts:
            yield "/".join(("", protocol, own, transport, port, *rest))


def _own_addresses() -> Iterator[str]:
    import psutil

    for name, entries in psutil.net_if_addrs().items():
        if name.startswith(_INNER_INTERFACES):
            continue
        for entry in entries:
            try:
                address = ipaddress.ip_address(entry.address)
            except ValueError:
                continue  # a hardware address, or one of a link, such as fe80::1%eth0
            if not (address.is_loopback or address.is_link_local or address.is_unspecified):
                yield str(address)


def _reach(address: str) -> Reach:
    protocol, host = address.split("/")[1:3]
    if protocol.startswith("dns"):
        return "machine" if host == "localhost" else "public"
    parsed = ipaddress.ip_address(host)
    if parsed.is_loopback:
        return "machine"
    return "public" if parsed.is_global else "private"
