"""p2pd's command line: what hivemind's libp2p daemon is told to do, and what not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swarmd.network.hivemind_dht import DEFAULT_MAX_MSG_SIZE, Multiaddr, p2pd_path

CONFIGURATION = b'{"Relay": {"Enabled": false}}'
"""What p2pd reads from its standard input: its own settings, which the command line changes, have relaying on.

-relay=0 does not turn it off. p2pd would relay for all who ask, and hold a table of the internet's networks for that:
half of its memory, and most of what its garbage collector goes through every two minutes.
"""


@dataclass(frozen=True)
class DaemonSettings:
    """identity: an existing libp2p key file. listen empty: nothing is listened on, others are only called.

    relay: call others through relays, and relay for them. relays: where, if nobody can call this node, to be called
    through (multiaddresses with peer ids, one a peer); those that relay, and have public addresses, are used.
    sockets: a directory of ours, on a path of less than 80 characters, for the control sockets.
    """

    identity: Path
    sockets: Path
    listen: tuple[str, ...] = ()
    announce: tuple[str, ...] = ()
    relay: bool = False
    relays: tuple[str, ...] = ()


def arguments(settings: DaemonSettings, control: Multiaddr) -> list[str]:
    """p2pd's command line (p2pd -help); it waits for CONFIGURATION then.

    No -bootstrapPeers: with one that is away it does not start at all.
    """
    relays = settings.relays if settings.relay else ()
    given = {
        "i": 1,
        "id": settings.identity,
        "listen": control,
        "hostAddrs": ",".join(settings.listen) or None,
        "noListenAddrs": None if settings.listen else 1,
        "announceAddrs": ",".join(settings.announce) or None,
        # libp2p's own DHT: it finds the addresses of peers that hivemind's names by their ids alone.
        "dhtServer" if settings.listen else "dhtClient": 1,
        "b": 0,
        "connManager": 1,
        "natPortMap": 0,
        # With it peers with public addresses try whether this node can be called. Where not, it looks for a relay.
        "autonat": int(settings.relay),
        # Nothing else asks it whether it can be called, and it would look through all its connections several times a
        # minute for somebody who could tell it: told that it can, it does not look.
        "forceReachabilityPublic": None if settings.relay else 1,
        # This alone makes a relay of it, with libp2p's limits: 128 KiB each way and 2 minutes a circuit. relayService
        # would start a second one with limits of its own in its place, as soon as the node is known as public: who has
        # booked a place at the first is then refused.
        "relay": int(settings.relay),
        "relayService": 0,
        "autoRelay": int(bool(relays)),
        "trustedRelays": ",".join(relays) or None,
        # With discovery three minutes pass before the first relay is asked.
        "relayDiscovery": 0,
        "quic": 0,
        # With Noise, which p2pd prefers, both sides make an RSA signature for each connection; with TLS (libp2p specs,
        # tls/tls.md) one is made when p2pd starts, and connections cost less CPU. Whatever hivemind starts
        # understands both.
        "tls": 1,
        "noise": 0,
        "idleTimeout": "30s",
        "persistentConnMaxMsgSize": DEFAULT_MAX_MSG_SIZE,
    }
    return [str(p2pd_path()), *(f"-{name}={value}" for name, value in given.items() if value is not None)]
