"""What `swarmd doctor` looks at of the connection to the others: ports, addresses, p2pd, and, of a running node, who is
connected, whether they can call it, and how far their clocks are off."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swarmd.awaited import STARTING, still_in
from swarmd.doctor.look import Finding, Look
from swarmd.network.addresses import is_circuit, reachable

_SKEW_SHOWN, _SKEW_WARNED = 0.5, 2.0
# Beyond half a round the nodes are in different rounds.
_SKEW_OF_A_ROUND = 0.5
_START_SECONDS = 20.0


def ports(look: Look) -> Iterator[Finding]:
    """The addresses to listen on are this machine's, and free or this node's own."""
    listen = look.config.network.listen
    if not listen:
        yield Finding("ports", "warning", "network.listen is empty: this node only calls others and keeps no records",
                      "set network.listen: [/ip4/0.0.0.0/tcp/38751]")
        return
    if look.running and look.status.get("network"):
        return  # it holds them, or p2pd's problem says why not
    from swarmd.network.p2p_daemon import PortTaken, check_ports

    try:
        check_ports(listen)
    except PortTaken as error:
        yield Finding("ports", "failed", str(error), f"ss -ltnp 'sport = :{_port(listen[0])}'")
    else:
        yield Finding("ports", "ok", f"{', '.join(listen)}: free")


def addresses(look: Look) -> Iterator[Finding]:
    """From where others can call this node, as far as its addresses say."""
    network = look.config.network
    found = reachable(network)
    shown = ", ".join(found.addresses)
    announce = "set network.announce: [/ip4/PUBLIC_ADDRESS/tcp/PORT]"
    if found.reach == "public":
        yield Finding("addresses", "ok", f"others are told {shown}")
    elif found.reach == "private":
        yield Finding("addresses", "warning", f"others are told only addresses of a private network ({shown}); nodes "
                      "outside it cannot call this one", f"forward the port to this machine; {announce}")
    elif found.reach == "machine":
        yield Finding("addresses", "warning", f"only this machine can call this node ({shown})",
                      f"set network.listen: [/ip4/0.0.0.0/tcp/38751]; {announce}")
    elif network.listen:
        yield Finding("addresses", "warning", "no address is known under which others can call this node", announce)


def daemon(look: Look) -> Iterator[Finding]:
    """p2pd runs, or would."""
    network = look.status.get("network") if look.running else None
    if network:
        pid = (look.status.get("children") or {}).get("p2pd", {}).get("pid")
        if network["problem"] or pid is None:
            log = f"journalctl -u {look.named.unit} -n 50" if look.is_the_service else "read what the node wrote"
            yield Finding("p2pd", "failed", f"p2pd does not run: {network['problem'] or 'it is being replaced'}", log)
        else:
            yield Finding("p2pd", "ok", f"p2pd runs (pid {pid})")
        return
    problem = _trial()
    if problem:
        yield Finding("p2pd", "failed", f"p2pd does not start: {problem}", "install swarmd anew")
    else:
        yield Finding("p2pd", "ok", "p2pd starts (tried on the loopback interface, with a key of its own)")


def _trial() -> str:
    """Starts p2pd as the node would, but with a key for this once and on loopback; why it failed, "" if it did not."""
    from swarmd.network.hivemind_dht import P2PDaemonError
    from swarmd.network.identity import create
    from swarmd.network.p2p_daemon import Daemon, PortTaken
    from swarmd.network.p2pd_arguments import DaemonSettings

    folder = Path(tempfile.mkdtemp(prefix="swarmd-doctor-"))

    async def start() -> None:
        create(folder / "key")
        settings = DaemonSettings(folder / "key", folder, ("/ip4/127.0.0.1/tcp/0",))
        async with asyncio.timeout(_START_SECONDS):
            running = await Daemon.launch(settings)
        await running.kill()

    try:
        asyncio.run(start())
    except (PortTaken, P2PDaemonError, OSError) as error:
        return str(error) or type(error).__name__
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ""


def connections(look: Look) -> Iterator[Finding]:
    """Who is there, whether they can call this node, and their clocks: what only a running node knows."""
    network = look.status.get("network") if look.running else None
    if not network or still_in(look.status, look.config):
        starts = look.running and not network and look.status["state"] == STARTING
        takes = ("the node is starting; look again" if starts
                 else "the running node has to be started anew" if look.running
                 else "needs the node to run in its swarm")
        fix = None if starts else look.begin("restart" if look.running else "start")
        for check, what in (("peers", "who is connected"), ("reachable", "whether others can call this node"),
                            ("clock-skew", "how far the clocks of the others are off")):
            yield Finding(check, "skipped", f"{what}: {takes}", fix)
        return
    yield _peers(look, network)
    yield _reached(look, network)
    yield _skew(look, network["clock_skew_s"])


def _peers(look: Look, network: dict[str, Any]) -> Finding:
    count = network["connected"]
    if count:
        return Finding("peers", "ok", "1 peer is connected" if count == 1 else f"{count} peers are connected")
    if not look.config.swarm.peers:
        return Finding("peers", "warning", "no peer is connected, and none is configured: this node waits to be called",
                       f"{look.command('invite')}  # and on another machine: sudo swarmd join INVITE")
    return Finding("peers", "warning", "no peer is connected, and none of swarm.peers answers",
                   f"swarmd invite  # on a node that is up; then here: {look.command('join INVITE')}")


def _reached(look: Look, network: dict[str, Any]) -> Finding:
    reach, listen = network["reachable"], look.config.network.listen
    if not listen:
        return Finding("reachable", "ok", "this node does not listen, so nobody calls it")
    if reach is None:
        return Finding("reachable", "skipped", "no peer has tried to call this node yet")
    if reach:
        return Finding("reachable", "ok", "peers can open a connection to this node")
    return Finding("reachable", "warning", f"peers cannot open a connection to this node; {_relayed(look, network)}",
                   _firewall(_port(listen[0])))


def _relayed(look: Look, network: dict[str, Any]) -> str:
    """What is left to a node that cannot be called."""
    if any(map(is_circuit, network["addresses"])):
        return "those with network.relay call it through a relay, and keep small records here"
    alone = "it calls them, and so trains with them, but keeps no records for others"
    return f"{alone}; no relay among swarm.peers has taken it" if look.config.network.relay else alone


def _firewall(port: str) -> str:
    if shutil.which("ufw"):
        return f"sudo ufw allow {port}/tcp"
    if shutil.which("firewall-cmd"):
        return f"sudo firewall-cmd --permanent --add-port={port}/tcp && sudo firewall-cmd --reload"
    return f"open TCP port {port} in the firewall (sudo nft list ruleset), or forward it at the router"


def _skew(look: Look, skew: float | None) -> Finding:
    if skew is None:
        return Finding("clock-skew", "skipped", "no peer has told its time yet")
    round_seconds = float(look.config.coordinator.round_seconds)
    told = f"the peers' clocks are {abs(skew):.2f} s {'ahead of' if skew > 0 else 'behind'} this one"
    fix = "sudo timedatectl set-ntp true"
    if abs(skew) > _SKEW_OF_A_ROUND * round_seconds and look.config.coordinator.kind == "clock":
        return Finding("clock-skew", "failed", f"{told}, more than half a round of {round_seconds:g} s", fix)
    if abs(skew) > _SKEW_WARNED:
        return Finding("clock-skew", "warning", told, fix)
    agree = "the clocks of the peers agree with this one"
    return Finding("clock-skew", "ok", told if abs(skew) > _SKEW_SHOWN else agree)


def _port(address: str) -> str:
    return address.split("/")[4]
