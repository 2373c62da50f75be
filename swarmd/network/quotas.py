"""How much one address block may send in a round."""

from __future__ import annotations

import ipaddress
from collections import Counter

_IPV4_BLOCK, _IPV6_BLOCK = 24, 48
"""Who owns one address owns, as a rule, its /24 (IPv4) or its /48 (IPv6, what a site is given: RFC 6177)."""


def book(address: str | None, taken: Counter[str], most: int) -> bool:
    """Books a record from this IP address (None: unknown); False where its block has had its share of the round.

    taken: the records of each block in the record's round, to which this one is added.

    Peer ids cost nothing, addresses do: without this one machine with a thousand ids is a thousand peers. Blocks of
    private, loopback and link-local addresses have no limit. There the addresses belong to whoever runs the nodes,
    and a cluster behind one router is the usual case. Unknown addresses have none either: most records come from
    nodes that only keep them, and there is nobody to ask where the author lives.
    """
    block = block_of(address)
    if block is None:
        return True
    if taken[block] >= most:
        return False
    taken[block] += 1
    return True


def block_of(address: str | None) -> str | None:
    """The address block that counts as one sender, None where there is none: unknown, private, or no IP address."""
    if address is None:
        return None
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if not parsed.is_global:
        return None
    prefix = _IPV4_BLOCK if parsed.version == 4 else _IPV6_BLOCK
    return str(ipaddress.ip_network((parsed, prefix), strict=False))
