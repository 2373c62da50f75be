"""A small internet of network namespaces: hosts on a bridge by long and bad wires, and others behind routers with NAT.

    [bridge in a namespace of its own] --- wire --- host 0
                                       --- wire --- host 1
                                       --- wire --- router (masquerade, no port open) --- veth --- host 2
                                       --- ...

The machine's own interfaces, routes and rules are not touched. Root only.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from types import TracebackType

from tests.integration.node import ROOT, environment
from tests.integration.slow_wires import Wire

DELAY, LOSS = 0.100, 0.05
"""Of each wire, for what its host sends: between two hosts there and back take 200 ms, and a packet is lost once in
twenty each way."""

_NET = "10.88.0"
_HOME = "192.168"
PUBLIC = "192.175.48"
"""An address block that libp2p and Python hold for a public one, and that is no provider's (AS112, RFC 7535)."""

_ROUTER = """
table ip nat {
  chain out {
    type nat hook postrouting priority srcnat
    oifname "eth0" masquerade
  }
}
table ip gate {
  chain through {
    type filter hook forward priority filter; policy drop
    ct state established,related accept
    iifname "home" accept
  }
}
"""
_numbers = itertools.count()


def missing() -> str:
    """Why there can be no such internet here; "" where there can."""
    if os.geteuid() != 0:
        return "network namespaces and their routes are made by root only"
    absent = [name for name, package in (("ip", "iproute2"), ("nft", "nftables")) if shutil.which(name) is None]
    if absent:
        return f"{' and '.join(absent)} missing: apt-get install iproute2 nftables"
    return "" if os.path.exists("/dev/net/tun") else "/dev/net/tun is missing: the kernel has no TAP devices"


@dataclass(frozen=True)
class Host:
    """namespace: its name, as `ip netns` knows it. address: of the host. seen_at: the address others see it at."""

    namespace: str
    address: str
    seen_at: str

    @property
    def before(self) -> tuple[str, ...]:
        """In front of a command line, it runs the command on this host."""
        return ("ip", "netns", "exec", self.namespace)

    def can_connect(self, address: str, port: int, seconds: float = 10.0) -> float | None:
        """Seconds that a TCP connection from here took; None where there was none in time."""
        script = (
            "import socket, sys, time; begun = time.monotonic();"
            "socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])).close();"
            "print(time.monotonic() - begun)"
        )
        command = [*self.before, sys.executable, "-S", "-c", script, address, str(port), str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True)
        return float(done.stdout) if done.returncode == 0 else None


class Internet:
    """hosts: two of their own address, then one behind each of the routers. A context manager, which removes it all.

    net: the first three numbers of the addresses. delay, loss: of each wire, see slow_wires.
    """

    def __init__(self, routers: int = 1, net: str = _NET, delay: float = DELAY, loss: float = LOSS) -> None:
        self._routers, self._net, self._delay, self._loss = routers, net, delay, loss
        self._name = f"swarmd-{os.getpid()}-{next(_numbers)}"
        self._made: list[str] = []
        self._wires: subprocess.Popen[str] | None = None
        self.hosts: list[Host] = []
        self.frames: dict[str, int] = {}

    def __enter__(self) -> Internet:
        try:
            self._build()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.remove()

    def _build(self) -> None:
        bridge = self._namespace("bridge")
        _ip("-n", bridge, "link", "add", "br0", "type", "bridge", "stp_state", "0")
        _ip("-n", bridge, "link", "set", "br0", "up")
        routers = [f"router{number}" for number in range(self._routers)]
        ends = [self._namespace(name) for name in ("host0", "host1", *routers)]
        self._lay_wires(
            [Wire((end, "eth0"), (bridge, f"port{n}"), self._delay, self._loss) for n, end in enumerate(ends)]
        )
        for number, end in enumerate(ends):
            _ip("-n", bridge, "link", "set", f"port{number}", "master", "br0", "up")
            _ip("-n", end, "address", "add", f"{self._net}.{number + 1}/24", "dev", "eth0")
            _ip("-n", end, "link", "set", "eth0", "up")
        seen = [f"{self._net}.{number + 1}" for number in range(len(ends))]
        self.hosts = [Host(end, address, address) for end, address in zip(ends[:2], seen, strict=False)]
        for number, router in enumerate(ends[2:], start=2):
            self.hosts.append(self._behind(router, number, seen[number]))

    def _behind(self, router: str, number: int, seen_at: str) -> Host:
        home, hidden = f"{_HOME}.{86 + number}", self._namespace(f"host{number}")
        _ip("-n", router, "link", "add", "home", "type", "veth", "peer", "name", "eth0", "netns", hidden)
        for namespace, device, address in ((router, "home", f"{home}.1"), (hidden, "eth0", f"{home}.2")):
            _ip("-n", namespace, "address", "add", f"{address}/24", "dev", device)
            _ip("-n", namespace, "link", "set", device, "up")
        _ip("-n", hidden, "route", "add", "default", "via", f"{home}.1")
        _ip("netns", "exec", router, "nft", "-f", "-", text=_ROUTER)
        _ip("netns", "exec", router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        return Host(hidden, f"{home}.2", seen_at)

    def _namespace(self, name: str) -> str:
        full = f"{self._name}-{name}"
        _ip("netns", "add", full)
        self._made.append(full)
        _ip("-n", full, "link", "set", "lo", "up")
        return full

    def _lay_wires(self, wires: list[Wire]) -> None:
        self._wires = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.slow_wires", json.dumps([asdict(wire) for wire in wires])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment(),
        )  # fmt: skip
        assert self._wires.stdout is not None
        assert self._wires.stdout.readline() == "ready\n", "the wires are laid"

    def add_addresses(self, number: int, *addresses: str) -> None:
        """Gives a host with its own address more of them, each as ADDRESS/PREFIX."""
        for address in addresses:
            # Nobody else has an IPv6 address of these: without the flag it cannot be listened on for a second or two.
            flags = ("nodad",) if ":" in address else ()
            _ip("-n", self.hosts[number].namespace, "address", "add", address, "dev", "eth0", *flags)

    def forward(self, number: int, port: int, to: int | None = None) -> None:
        """The router of a hidden host from now on passes TCP connections to this port on to the host, there to the same
        port or another one."""
        router, host = f"{self._name}-router{number - 2}", self.hosts[number].address
        inner = port if to is None else to
        _ip("netns", "exec", router, "nft", "-f", "-", text=f"""
            add chain ip nat in {{ type nat hook prerouting priority dstnat; }}
            add rule ip nat in iifname "eth0" tcp dport {port} dnat to {host}:{inner}
            add rule ip gate through iifname "eth0" tcp dport {inner} accept
        """)

    def cut(self, number: int) -> None:
        """The bridge no longer hears this host, nor the host anybody; its own link stays up."""
        _ip("-n", self._made[0], "link", "set", f"port{number}", "down")

    def mend(self, number: int) -> None:
        _ip("-n", self._made[0], "link", "set", f"port{number}", "up")

    def remove(self) -> None:
        """Takes it all away; `frames` then tells what the wires carried and lost."""
        if self._wires is not None:
            told, _ = self._wires.communicate(timeout=30)
            self.frames, self._wires = json.loads(told), None
        while self._made:
            _ip("netns", "delete", self._made.pop())


def _ip(*arguments: str, text: str | None = None) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, input=text)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"
