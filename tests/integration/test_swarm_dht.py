"""The node in the DHT: with stock hivemind nodes, without anybody, and with a p2pd that dies."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from hivemind.dht import protocol as stock_protocol

from swarmd.network import bootstrap
from swarmd.network.p2p_daemon import PortTaken, check_ports
from swarmd.system.exits import ConfigurationError
from tests.integration.dht_nodes import Swarm, address_of, free_port, swarm, until, within

KEY = "7"
# Half of the longest ping is the error of a skew, which the pauses of a busy machine come on top of.
TOLERANCE = 5.0


def ipv6_address() -> str:
    """To listen on, at a port of the IPv6 loopback that nobody listens on; skips the test where there is none."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as probe:
            return f"/ip6/::1/tcp/{probe.getsockname()[1]}"
    except OSError as error:
        pytest.skip(f"this machine has no ::1 to listen on: {error.strerror}")


def listening_inodes(pid: int, kind: str) -> set[int]:
    """Inodes of the process's listening (TCP) or bound (UDP) sockets; proc(5), net/tcp: state 0A is LISTEN."""
    own = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            own.add(int(target[8:-1]))
    return own & set(bound(pid, kind))


def bound(pid: int, kind: str) -> dict[int, tuple[str, int]]:
    """inode -> (address, port) of the sockets that wait for others."""
    found = {}
    for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]:
        fields = line.split()
        address, port = fields[1].split(":")
        if fields[3] == "0A" or kind.startswith("udp"):
            found[int(fields[9])] = (address, int(port, 16))
    return found


async def stock_and_ours(s: Swarm):
    """A stock node, and one of ours that is connected to it and keeps records under KEY."""
    stock = await s.stock()
    ours = await s.ours(peers=(await address_of(stock),))
    ours.allow([KEY])
    await until(lambda: ours.connected_peers == 1)
    return stock, ours


def test_a_stock_node_and_ours_read_each_others_records():
    async def run() -> None:
        async with swarm() as s:
            stock, ours = await stock_and_ours(s)
            expires = time.time() + 600
            assert await ours.publish(KEY, ours.peer_id, b"from ours", expires, 10)
            assert await within(10, stock.store(KEY, b"from stock", expires, subkey=str(stock.peer_id)))

            found = await ours.gather([KEY, "8"], 10)
            read = await within(10, stock.get(KEY, latest=True))

            expected = {ours.peer_id: b"from ours", str(stock.peer_id): b"from stock"}
            assert {subkey: value for subkey, (value, _) in found[KEY].items()} == expected
            assert found[KEY][ours.peer_id][1] == pytest.approx(expires)
            assert found["8"] == {}
            assert {subkey: item.value for subkey, item in read.value.items()} == expected
            # Asked for in the background, as are the connections.
            await until(lambda: ours.clock_skew() is not None and ours.reachable())
            assert abs(ours.clock_skew()) < 1
            assert ours.traffic.bytes_in > 0 and ours.traffic.bytes_out > 0
            while not (seen := await ours.peers()) or not (seen[0].heard and seen[0].addresses):
                await asyncio.sleep(0.1)
            assert [peer.peer_id for peer in seen] == [str(stock.peer_id)]

    asyncio.run(run())


def test_a_record_that_its_keeper_has_already_counts_as_published():
    """As it does after it was handed over to a node that was just met."""

    async def run() -> None:
        async with swarm() as s:
            stock, ours = await stock_and_ours(s)
            expires = time.time() + 600
            for _ in range(2):  # a stock node says of the second one that it has not taken it
                assert await ours.publish(KEY, ours.peer_id, b"from ours", expires, 10)
            assert await ours.publish(KEY, ours.peer_id, b"another", expires + 1, 10)

    asyncio.run(run())


@pytest.mark.parametrize("ahead", [30.0, -30.0])
def test_a_peer_whose_clock_is_off_is_told_with_how_far_and_which_way(ahead: float, monkeypatch: pytest.MonkeyPatch):
    # What stock nodes go by. This one is the first of its swarm: none joins where clocks are so far from its own.
    monkeypatch.setattr(stock_protocol, "get_dht_time", lambda: time.time() + ahead)

    async def run() -> None:
        async with swarm() as s:
            stock = await s.stock()
            ours = await s.ours(peers=(await address_of(stock),))
            await until(lambda: ours.clock_skew() is not None)
            assert ours.clock_skew() == pytest.approx(ahead, abs=TOLERANCE)
            (seen,) = await ours.peers()
            assert seen.peer_id == str(stock.peer_id) and seen.skew_s == pytest.approx(ahead, abs=TOLERANCE)

            # The clocks of all the others count, and those of most of them agree.
            right = [await s.ours(peers=(await address_of(ours),)) for _ in range(2)]
            await until(lambda: abs(ours.clock_skew()) < TOLERANCE)
            skews = {peer.peer_id: peer.skew_s for peer in await ours.peers()}
            assert skews[str(stock.peer_id)] == pytest.approx(ahead, abs=TOLERANCE)
            assert [skews[node.peer_id] for node in right] == [pytest.approx(0.0, abs=TOLERANCE)] * 2

    asyncio.run(run())


def test_nodes_that_listen_on_ipv6_find_each_other_and_can_be_called():
    async def run() -> None:
        async with swarm() as s:
            first = await s.ours(listen=(ipv6_address(),))
            second = await s.ours(listen=(ipv6_address(),), peers=(await address_of(first),))
            nodes = (first, second)
            for node in nodes:
                node.allow([KEY])
            await until(lambda: all(node.connected_peers == 1 for node in nodes))
            for node in nodes:
                assert await node.publish(KEY, node.peer_id, node.peer_id.encode(), time.time() + 600, 10)
            for node in nodes:
                found = (await node.gather([KEY], 10))[KEY]
                assert {subkey: value for subkey, (value, _) in found.items()} == {
                    other.peer_id: other.peer_id.encode() for other in nodes
                }
            # `reachable` alone would be content with a call back over the connection that is there.
            await until(lambda: all(node._reach.verdict() for node in nodes))
            for node, other in (nodes, nodes[::-1]):
                assert node.reachable()
                while not (seen := await node.peers()) or not seen[0].addresses:
                    await asyncio.sleep(0.1)
                assert [peer.peer_id for peer in seen] == [other.peer_id]
                assert all(address.startswith("/ip6/::1/tcp/") for address in seen[0].addresses)
                assert not listening_inodes(node.daemon_pid, "tcp") and listening_inodes(node.daemon_pid, "tcp6")

    asyncio.run(run())


def test_a_stock_node_that_comes_later_is_handed_the_records_of_its_keys():
    async def run() -> None:
        async with swarm() as s:
            ours = await s.ours()
            ours.allow([KEY])
            assert await ours.publish(KEY, ours.peer_id, b"kept", time.time() + 600, 3)
            stock = await s.stock(await address_of(ours))
            await until(lambda: len(stock.protocol.storage) == 1)

    asyncio.run(run())


def test_a_node_behind_a_closed_port_reads_and_publishes_and_listens_nowhere():
    async def run() -> None:
        async with swarm() as s:
            stock = await s.stock()
            ours = await s.ours(listen=(), peers=(await address_of(stock),))
            await until(lambda: ours.connected_peers == 1)
            assert await ours.publish(KEY, ours.peer_id, b"called out", time.time() + 600, 10)
            read = await within(10, stock.get(KEY, latest=True))
            assert read.value[ours.peer_id].value == b"called out"
            assert (await ours.gather([KEY], 10))[KEY][ours.peer_id][0] == b"called out"
            assert not listening_inodes(ours.daemon_pid, "tcp") and not listening_inodes(ours.daemon_pid, "tcp6")
            assert ours.reachable() is None

    asyncio.run(run())


def test_nobody_there_is_a_state_and_a_late_bootnode_is_found():
    async def run() -> None:
        async with swarm() as s:
            late = s.root / "late"
            port = free_port()
            first = await s.ours(state=late, listen=(f"/ip4/127.0.0.1/tcp/{port}",))
            address = await address_of(first)
            await first.close()

            ours = await s.ours(peers=(address, "/ip4/127.0.0.1/tcp/1/p2p/" + first.peer_id, "nonsense"))
            ours.allow([KEY])
            assert ours.connected_peers == 0 and await ours.peers() == []
            assert await ours.gather([KEY], 2) == {KEY: {}}
            assert await ours.publish(KEY, ours.peer_id, b"alone", time.time() + 600, 2)
            assert (await ours.gather([KEY], 2))[KEY][ours.peer_id][0] == b"alone"
            assert ours.clock_skew() is None and ours.reachable() is None

            await s.ours(state=late, listen=(f"/ip4/127.0.0.1/tcp/{port}",))
            await until(lambda: ours.connected_peers == 1, 60)

    asyncio.run(run())


def test_nodes_of_another_swarm_are_not_heard_though_their_addresses_are_known():
    async def run() -> None:
        async with swarm() as s:
            first = await s.ours(namespace="swarmd/1/one")
            second = await s.ours(namespace="swarmd/1/one", peers=(await address_of(first),))
            await until(lambda: second.connected_peers == first.connected_peers == 1)
            # As somebody who has left the first swarm, and whom it remembers.
            other = await s.ours(namespace="swarmd/1/two")
            assert await other.connect([await address_of(first), await address_of(second)]) == 0
            assert await first.connect([await address_of(other)]) == 0
            assert other.connected_peers == 0
            assert [node.connected_peers for node in (first, second)] == [1, 1]
            assert not await other.peers()
            assert {peer.peer_id for peer in await first.peers()} == {second.peer_id}

    asyncio.run(run())


def test_remembered_peers_stand_in_for_a_bootnode_that_is_gone():
    async def run() -> None:
        async with swarm() as s:
            bootnode = await s.ours()
            other = await s.ours(peers=(await address_of(bootnode),))
            mine = s.root / "mine"
            ours = await s.ours(state=mine, peers=(await address_of(bootnode),))
            await until(lambda: ours.connected_peers >= 1 and other.connected_peers >= 1)
            assert await ours.connect([await address_of(other)]) == 1
            await ours.close()
            await bootnode.close()

            again = await s.ours(state=mine)
            await until(lambda: again.connected_peers >= 1, 60)
            assert {peer.peer_id for peer in await again.peers() if peer.heard} == {other.peer_id}

    asyncio.run(run())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_hung_p2pd_is_replaced_in_seconds_by_one_with_the_same_identity(number: int):
    async def run() -> None:
        async with swarm() as s:
            ours = await s.ours()
            peer = await s.ours(peers=(await address_of(ours),))
            for node in (ours, peer):
                node.allow([KEY])
            await until(lambda: ours.connected_peers == 1 and peer.connected_peers == 1)
            assert await peer.publish(KEY, peer.peer_id, b"kept through it", time.time() + 600, 60)
            old, address = ours.daemon_pid, await address_of(ours)
            await until(lambda: ours.stored["bytes"] > 0)

            os.kill(old, number)
            took = await until(lambda: ours.daemon_pid not in (None, old), 60)

            print(f"another p2pd after {took:.1f} s")  # five are promised, on a machine that has time for it
            assert ours.daemon_restarts == 1
            assert not Path(f"/proc/{old}").exists()
            assert await address_of(ours) == address
            assert (await ours.gather([KEY], 5))[KEY][peer.peer_id][0] == b"kept through it"
            # The peers meet again by themselves, whoever calls whom.
            reader = await s.ours(peers=(address,))
            await until(lambda: reader.connected_peers >= 1, 60)
            assert (await reader.gather([KEY], 10))[KEY][peer.peer_id][0] == b"kept through it"

    asyncio.run(run())


def test_a_port_that_is_taken_while_p2pd_restarts_is_told_and_waited_for():
    async def run() -> None:
        async with swarm() as s:
            port = free_port()
            ours = await s.ours(listen=(f"/ip4/127.0.0.1/tcp/{port}",))
            with socket.socket() as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                other.bind(("127.0.0.1", port))
                other.listen()
                os.kill(ours.daemon_pid, signal.SIGKILL)
                await until(lambda: f"port {port} is in use" in ours.problem, 60)
                assert ours.daemon_pid is None and await ours.gather([KEY], 1) == {KEY: {}}
            await until(lambda: ours.daemon_pid is not None and not ours.problem, 60)

    asyncio.run(run())


def test_a_peer_that_goes_and_comes_back_is_noticed_both_times(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bootstrap, "HEARD_SECONDS", 4.0)
    monkeypatch.setattr(bootstrap, "_SILENT_SECONDS", 1.0)
    monkeypatch.setattr(bootstrap, "_LONGEST_DELAY", 4.0)
    monkeypatch.setattr(bootstrap, "_CONNECTED_TICK", 0.5)

    async def run() -> None:
        async with swarm() as s:
            state, listen = s.root / "back", (f"/ip4/127.0.0.1/tcp/{free_port()}",)
            peer = await s.ours(state=state, listen=listen)
            ours = await s.ours(peers=(await address_of(peer),))
            await until(lambda: ours.connected_peers == 1)
            await asyncio.sleep(6)
            assert ours.connected_peers == 1
            await peer.close()
            await until(lambda: ours.connected_peers == 0, 60)
            await s.ours(state=state, listen=listen)
            await until(lambda: ours.connected_peers == 1, 60)

    asyncio.run(run())


def test_a_loop_that_stands_still_is_not_taken_for_a_hung_p2pd():
    async def run() -> None:
        async with swarm() as s:
            ours = await s.ours()
            for pause in (0.1, 0.4, 0.7, 1.0):
                await asyncio.sleep(pause)
                time.sleep(2.5)
            await asyncio.sleep(3)
            assert ours.daemon_restarts == 0

    asyncio.run(run())


def test_a_taken_port_is_named_with_the_fix():
    async def run() -> None:
        async with swarm() as s:
            listen = (f"/ip4/127.0.0.1/tcp/{free_port()}",)
            await s.ours(listen=listen)
            with pytest.raises(ConfigurationError) as refused:
                await s.ours(listen=listen)
            port = listen[0].rpartition("/")[2]
            assert f"port {port} is in use" in str(refused.value) and "network.listen" in str(refused.value)
            with pytest.raises(PortTaken, match="name an address of this machine"):
                check_ports(("/ip4/192.0.2.1/tcp/38751",))

    asyncio.run(run())


def test_p2pd_listens_on_what_was_asked_only_and_knows_no_secrets(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("SWARMD_SECRET", "secret")

    async def run() -> None:
        async with swarm() as s:
            port = free_port()
            ours = await s.ours(listen=(f"/ip4/127.0.0.1/tcp/{port}",))
            peer = await s.ours(peers=(await address_of(ours),))
            await until(lambda: peer.connected_peers == 1)
            pid = ours.daemon_pid
            sockets = [bound(pid, kind)[i] for kind in ("tcp", "tcp6") for i in listening_inodes(pid, kind)]
            assert sockets == [("0100007F", port)]
            assert not listening_inodes(pid, "udp") and not listening_inodes(pid, "udp6")
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            assert {entry.partition(b"=")[0] for entry in environment if entry} <= {
                b"PATH",
                b"GOLOG_LOG_LEVEL",
                b"GOLOG_LOG_FMT",
                b"GOMEMLIMIT",
                b"GOMAXPROCS",
            }

    asyncio.run(run())
