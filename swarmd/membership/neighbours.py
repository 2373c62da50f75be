"""The other nodes of this machine, as the configurations beside this node's own tell of them (NAME.yaml)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from swarmd.config import Config, ConfigErrors, load_config
from swarmd.config.files import own_folder
from swarmd.swarming import in_a_swarm

_MAIN = "config"
_MOST = 64
_LARGEST_PORT = 65_535
_WILDCARDS = ("0.0.0.0", "::")


def port_notes(main: Path, config: Config) -> list[str]:
    """A sentence, with its fix, for each other node that is to listen on a port of this one's.

    main: this node's configuration file, config: what is in force with it. A node in no swarm opens no port.
    """
    others = [(file, other) for file, other in _neighbours(main) if in_a_swarm(other)]
    taken = {_port(address) for _, node in [(main, config), *others] for address in node.network.listen}
    notes = []
    for file, other in others:
        shared = next((mine for mine in config.network.listen for theirs in other.network.listen
                       if _clash(mine, theirs)), None)
        if shared is None:
            continue
        free = next(port for port in itertools.count(_port(shared) + 1) if port not in taken)
        taken.add(free)
        instance = file if main.stem == _MAIN else main
        which, anew = "that one", ""
        if instance == main:
            which, anew = "this node", "; `swarmd invite` then prints the new address"
        fix = (f"put `network: {{listen: [{_with_port(shared, free)}]}}` into {own_folder(instance)}/60-port.yaml and "
               "start it anew") if free <= _LARGEST_PORT else "set network.listen"
        notes.append(
            f"{file} says to listen on port {_port(shared)} too, and only one of the two nodes can; give {which} a "
            f"port of its own: {fix}{anew}"
        )
    return notes


def _neighbours(main: Path) -> Iterator[tuple[Path, Config]]:
    for file in sorted(main.absolute().parent.glob("[!.]*.yaml"))[:_MOST]:
        if file == main.absolute():
            continue
        try:
            yield file, load_config(file, {})  # a service does not have the variables of this shell
        except ConfigErrors:
            continue  # something else, not for this user to read, or broken: what its own start says


def _clash(one: str, other: str) -> bool:
    """Whether two nodes cannot both listen on these addresses (multiaddresses such as /ip4/HOST/tcp/PORT)."""
    _, family, host, transport, port, *_ = one.split("/")
    _, other_family, other_host, other_transport, other_port, *_ = other.split("/")
    if (transport, port) != (other_transport, other_port) or port == "0":
        return False
    if family[-1:] != other_family[-1:] and {family, other_family} <= {"ip4", "ip6"}:
        return False
    return host == other_host or host in _WILDCARDS or other_host in _WILDCARDS


def _port(address: str) -> int:
    return int(address.split("/")[4])


def _with_port(address: str, port: int) -> str:
    parts = address.split("/")
    return "/".join([*parts[:4], str(port), *parts[5:]])
