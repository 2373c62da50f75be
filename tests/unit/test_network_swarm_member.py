"""A swarm's member in the network process: one exchange at a time, and nothing that ends without anybody noticing."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from swarmd.network import identity, swarm_member
from swarmd.network.process import _answer
from swarmd.network.settings import ExchangeLimits, NetworkSettings
from swarmd.network.swarm_member import GivenUp, SwarmMember
from tests.hostile.admitting import attacker, victim
from tests.hostile.authors import NOW, ROUND
from tests.hostile.exchanging import Space, exchange, own_groups

SECRET = "a secret that nobody else may read"


def settings(folder: Path, **changed: Any) -> NetworkSettings:
    identity.create(folder / "identity.key")
    values: dict[str, Any] = {
        "swarm_id": "5eed" * 8, "dialect": "swarmd", "shards": 4, "secret": SECRET,
        "identity_file": str(folder / "identity.key"), "state": str(folder), "runtime": str(folder), "listen": (),
        "announce": (), "relay": False, "peers": (), "datasets": "easy", "limits": ExchangeLimits(16384, 64, 4, 8192),
        "model": "tests", "trains": True, **changed,
    }  # fmt: skip
    return NetworkSettings(**values)


def test_the_secret_of_a_private_swarm_is_in_no_log_line(tmp_path: Path) -> None:
    made = settings(tmp_path)
    assert SECRET not in repr(made) and SECRET not in f"{made}"
    assert NetworkSettings.from_message(made.to_message()) == made, "but the network process gets it"


def test_a_new_exchange_ends_the_one_before(tmp_path: Path) -> None:
    member, space = SwarmMember(settings(tmp_path)), Space()
    space.put(attacker, ROUND - 1)
    one = exchange(space)

    def arguments(round: int, seconds: float) -> dict[str, Any]:
        until = time.monotonic() + seconds
        return {"round": round, "groups": own_groups(round), "expires": NOW + 100, "until": until}

    async def calls() -> None:
        await member._share(one, arguments(ROUND - 1, 2.0))
        waits = asyncio.create_task(member._share(one, arguments(ROUND, 300.0)))  # for the attacker, who is gone
        await asyncio.sleep(1.0)
        space.put(victim)
        begun = time.monotonic()
        exchanged = await member._share(one, arguments(ROUND, 2.0))
        assert time.monotonic() - begun < 20.0
        assert {group.peer_id for group in exchanged.groups} == {victim.peer_id}
        with pytest.raises(GivenUp, match="another exchange"):
            await waits
        one.close()

    asyncio.run(calls())


def test_an_exchange_that_was_given_up_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    class Ends:
        """Both: a link that keeps what is sent, and a member whose exchange was given up."""

        def __init__(self) -> None:
            self.sent: list[Any] = []

        def send(self, message: Any) -> None:
            self.sent.append(message)

        async def call(self, name: str, arguments: Any) -> None:
            raise GivenUp("nobody waits")

    ends = Ends()
    asyncio.run(_answer(ends, ends, {"call": "share", "id": 7}))  # type: ignore[arg-type]
    assert ends.sent == [{"id": 7, "error": "nobody waits"}] and not caplog.records


def test_who_is_connected_through_a_relay_has_no_address_of_its_own(tmp_path: Path) -> None:
    """The relay's would have all of them share its quota."""
    member = SwarmMember(settings(tmp_path))
    circuit = "/ip4/192.0.2.1/tcp/1/p2p/QmX/p2p-circuit"
    member._peer_addresses = {"relayed": (circuit,), "both": (circuit, "/ip4/192.0.2.2/tcp/1")}
    assert [member._address_of(peer) for peer in ("relayed", "both", "gone")] == [None, "192.0.2.2", None]


def test_a_member_that_cannot_prepare_itself_ends_its_process() -> None:
    async def broken() -> None:
        raise MemoryError("no room for the mix")

    async def lives() -> None:
        asyncio.create_task(broken()).add_done_callback(swarm_member._end_the_process)
        await asyncio.sleep(30)

    with pytest.raises(RuntimeError):
        asyncio.run(lives())


def test_what_is_told_goes_on_after_a_fault(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(swarm_member, "_AGAIN_SECONDS", 0.0)
    attempts: list[int] = []

    async def work() -> None:
        attempts.append(1)
        if len(attempts) < 4:
            raise TypeError("an address that cannot be printed")
        await asyncio.sleep(30)

    async def watched() -> None:
        task = asyncio.create_task(swarm_member._forever(work, "the look at addresses"))
        while len(attempts) < 4:
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(asyncio.wait_for(watched(), 20))
    assert caplog.text.count("the look at addresses failed; it goes on") == 3
