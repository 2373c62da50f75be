"""p2pd's control socket: what is asked of it, and that whatever it answers does no harm."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarmd.network import p2p_daemon
from swarmd.network.hivemind_dht import Multiaddr, P2PDaemonError, PeerID, p2pd_pb2, quiet_hivemind
from swarmd.network.identity import load_or_create
from swarmd.network.p2p_daemon import Daemon
from swarmd.network.p2pd_arguments import DaemonSettings
from swarmd.network.p2pd_control import ConnectedPeer, Pulse, address_text, ask

PEER = b"\x12\x20" + bytes(32)


@asynccontextmanager
async def answering(path: Path, answer: bytes, *, then_end: bool = True) -> AsyncIterator[str]:
    """Stands for p2pd: answers whatever is asked with these bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(64):
            writer.write(answer)
            if then_end:
                break
        writer.close()

    async with await asyncio.start_unix_server(serve, path / "control"):
        yield str(path / "control")


def framed(response: p2pd_pb2.Response) -> bytes:
    raw = response.SerializeToString()
    assert len(raw) < 2**14
    return bytes([len(raw) & 0x7F | 0x80, len(raw) >> 7]) + raw


def test_the_connected_are_read_and_an_address_of_an_unknown_kind_hides_no_other(tmp_path: Path) -> None:
    known = Multiaddr("/ip4/192.0.2.1/tcp/5").to_bytes()
    response = p2pd_pb2.Response(type="OK", peers=[{"id": PEER, "addrs": [known, b"\xff\xff\x03odd", known * 99, b""]}])

    async def run() -> None:
        async with answering(tmp_path, framed(response)) as path:
            (peer,) = (await ask(path, "LIST_PEERS")).peers
        read = ConnectedPeer(peer.id, peer.addrs)
        assert read.peer_id == PeerID(PEER) and read.addrs == ["/ip4/192.0.2.1/tcp/5"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (framed(p2pd_pb2.Response(type="ERROR", error={"msg": "no"})), P2PDaemonError),
        (b"\xff\xff\xff\x7f", P2PDaemonError),  # 256 MiB are announced
        (b"\xff\xff\xff\xff\xff\xff", P2PDaemonError),
        (b"\x00", P2PDaemonError),
        (b"\x03\xff\xff\xff", P2PDaemonError),
        (b"\x05\x08", EOFError),
    ],
)
def test_an_answer_that_is_none_is_a_named_error(tmp_path: Path, answer: bytes, error: type[Exception]) -> None:
    async def run() -> None:
        async with answering(tmp_path, answer) as path:
            with pytest.raises(error):
                await ask(path, "IDENTIFY")

    asyncio.run(run())


def test_an_address_that_cannot_be_read_is_no_address() -> None:
    assert address_text(Multiaddr("/ip6/::1/tcp/5").to_bytes()) == "/ip6/::1/tcp/5"
    assert address_text(b"\xff" * 300) == "" and address_text(b"") == ""


def test_a_pulse_is_felt_on_one_connection_until_that_is_gone(tmp_path: Path) -> None:
    async def run() -> None:
        async with answering(tmp_path, b"\x01?", then_end=False) as path:
            pulse = await Pulse.take(path)
            for _ in range(3):
                await asyncio.wait_for(pulse.beat(), 5)
            pulse.close()
            await asyncio.sleep(0)
            with pytest.raises(ConnectionResetError):
                await pulse.beat()
        (tmp_path / "control").unlink(missing_ok=True)
        async with answering(tmp_path, b"") as path:
            pulse = await Pulse.take(path)
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(pulse.beat(), 5)

    asyncio.run(run())


async def silence(self: Daemon) -> None:
    raise TimeoutError


def test_p2pd_lives_by_its_pulse_alone_and_not_while_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_hivemind()
    load_or_create(tmp_path / "key")
    usual = p2p_daemon._PULSE_SECONDS, p2p_daemon._IDENTIFY_SECONDS

    def wait_for(pulse: float, identify: float) -> None:
        monkeypatch.setattr(p2p_daemon, "_PULSE_SECONDS", pulse)
        monkeypatch.setattr(p2p_daemon, "_IDENTIFY_SECONDS", identify)

    async def run() -> None:
        daemon = await Daemon.launch(DaemonSettings(tmp_path / "key", tmp_path))
        try:
            wait_for(30.0, 30.0)  # whatever else this machine does
            with monkeypatch.context() as patched:
                patched.setattr(Daemon, "answers", lambda self: pytest.fail("it was asked for its addresses"))
                assert [await daemon.lives() for _ in range(3)] == [True] * 3
            # What it says of its addresses grows old, and a pulse tells only that it takes connections.
            with monkeypatch.context() as patched:
                patched.setattr(p2p_daemon, "_ADDRESSES_SECONDS", 0.0)
                patched.setattr(Daemon, "_identify", silence)
                assert not await daemon.lives()
            with monkeypatch.context() as patched:
                patched.setattr(Daemon, "_identify", silence)
                assert not await daemon.lives(), "who did not answer is asked again, not only felt"
            daemon._end_pulse()
            assert await daemon.lives() and await daemon.list_peers() == []
            os.kill(daemon.pid, signal.SIGSTOP)
            while Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
                await asyncio.sleep(0.01)
            wait_for(*usual)
            assert not await daemon.lives()
            os.kill(daemon.pid, signal.SIGCONT)
            wait_for(30.0, 30.0)
            assert await daemon.answers() and await daemon.lives()
        finally:
            await daemon.kill()
        wait_for(*usual)
        assert not await daemon.lives()

    asyncio.run(run())
