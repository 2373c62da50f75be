"""Wires between network namespaces, as long and as bad as one likes: a process of its own that carries the frames.

A wire has a TAP device (Linux: Documentation/networking/tuntap.rst) at either end. It does what
`tc qdisc add dev ... root netem delay 100ms loss 5%` does at one end of a veth pair, in kernels that have sch_netem;
those of many virtual machines have not. A TAP device takes no offloads, so each frame here is one packet of the wire.

    python -m tests.integration.slow_wires WIRES

WIRES: JSON, a list of maps of the fields of Wire. "ready" is printed when all devices are there. The process ends with
its standard input, and then prints {"carried": frames, "lost": frames} of the bad direction of all wires.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import json
import os
import random
import select
import struct
import sys
import time
from dataclasses import dataclass

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_CLONE_NEWNET = 0x40000000
_LONGEST_FRAME = 2048


@dataclass(frozen=True)
class Wire:
    """near, far: the devices' (namespace, name). What goes from near to far is late by `delay` seconds, and of it the
    share `loss` gets lost; the other direction is as good as a wire is."""

    near: tuple[str, str]
    far: tuple[str, str]
    delay: float
    loss: float


def _tap(namespace: str, name: str) -> int:
    """A new TAP device in a namespace; it lives as long as its descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}", "rb") as place:
        if libc.setns(place.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns to {namespace}")
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return descriptor


class _Carrier:
    def __init__(self, wires: list[Wire]) -> None:
        self.carried = self.lost = 0
        self._number = itertools.count()
        self._under_way: list[tuple[float, int, int, bytes]] = []  # a heap: when due, a number, whither, the frame
        self._targets: dict[int, tuple[int, Wire | None]] = {}
        for wire in wires:
            near, far = _tap(*wire.near), _tap(*wire.far)
            self._targets[near], self._targets[far] = (far, wire), (near, None)

    def carry_until_end_of_input(self) -> None:
        poll = select.poll()
        for descriptor in (0, *self._targets):
            poll.register(descriptor, select.POLLIN)
        while True:
            wait = None if not self._under_way else max(0.0, self._under_way[0][0] - time.monotonic()) * 1000
            for descriptor, _ in poll.poll(wait):
                if descriptor == 0:
                    return
                self._take(descriptor)
            while self._under_way and self._under_way[0][0] <= time.monotonic():
                _, _, target, frame = heapq.heappop(self._under_way)
                self._give(target, frame)

    def _take(self, descriptor: int) -> None:
        target, wire = self._targets[descriptor]
        try:
            frame = os.read(descriptor, _LONGEST_FRAME)
        except BlockingIOError:
            return
        if wire is None:
            self._give(target, frame)
            return
        self.carried += 1
        if random.random() < wire.loss:
            self.lost += 1
        else:
            heapq.heappush(self._under_way, (time.monotonic() + wire.delay, next(self._number), target, frame))

    @staticmethod
    def _give(target: int, frame: bytes) -> None:
        try:
            os.write(target, frame)
        except OSError:
            return  # the link is down there, or the device's queue is full: the frame is lost, as on any wire


def main() -> None:
    wires = [Wire(tuple(w["near"]), tuple(w["far"]), w["delay"], w["loss"]) for w in json.loads(sys.argv[1])]
    carrier = _Carrier(wires)
    print("ready", flush=True)
    carrier.carry_until_end_of_input()
    print(json.dumps({"carried": carrier.carried, "lost": carrier.lost}), flush=True)


if __name__ == "__main__":
    main()
