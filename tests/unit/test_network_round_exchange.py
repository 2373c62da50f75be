"""A round's exchange: who is waited for, what is asked for again, and what becomes of a record that nobody takes."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmd.network import admission_rules, publication
from swarmd.network.admission_rules import MOST_SLOTS
from swarmd.network.dialects import Dialect, dialect_for
from swarmd.network.publication import outlives
from swarmd.network.refusals import Reason
from swarmd.network.round_exchange import Exchanged, RoundExchange
from swarmd.tasks.provenance import task_seed
from tests.hostile.admitting import attacker, me, others, victim
from tests.hostile.authors import NOW, ROUND, SWARM_ID, authors, mix
from tests.hostile.exchanging import OWN, Space, exchange, own_groups


async def share(one: RoundExchange, round: int = ROUND, seconds: float = 3.0, expires: float = NOW + 100) -> Exchanged:
    return await one.run(round, own_groups(round), expires, time.monotonic() + seconds)


def run(work: Any) -> Any:
    return asyncio.run(work)


def test_names_without_a_signature_are_nobody_seen_and_nobody_waited_for() -> None:
    space, rng = Space(), random.Random(2)
    space.put(victim)
    invented = ["Qm" + "".join(rng.choices("abcdefgh", k=44)) for _ in range(200)]
    for name in invented:
        space.records.setdefault(OWN.key_for(ROUND, name), {})[name] = b"junk", NOW + 9.0
    one = exchange(space)
    exchanged = run(share(one))
    assert {group.peer_id for group in exchanged.groups} == {victim.peer_id}
    assert (exchanged.seen, one.known, exchanged.refused) == (1, 1, {Reason.UNSIGNED: len(invented)})


def test_a_flood_of_names_that_there_is_no_time_for_leaves_time_for_the_peers_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space, rng, worth = Space(), random.Random(3), admission_rules.is_worth_reading

    def slowly(raw: admission_rules.RawRecord, dialect: Dialect) -> None:
        time.sleep(0.001 if raw.value == b"junk" else 0.0)  # all of them take three times the exchange
        worth(raw, dialect)

    monkeypatch.setattr(admission_rules, "is_worth_reading", slowly)
    one = exchange(space)
    space.put(victim, ROUND - 1)
    space.put(victim)

    async def rounds() -> Exchanged:
        await share(one, ROUND - 1)
        for _ in range(3000):
            name = "Qm" + "".join(rng.choices("abcdefgh", k=44))
            space.records[OWN.key_for(ROUND, victim.peer_id)][name] = b"junk", NOW + 9.0
        return await share(one, ROUND, seconds=1.0)

    exchanged = run(rounds())
    assert {group.peer_id for group in exchanged.groups} == {victim.peer_id}
    assert exchanged.refused[Reason.NO_TIME] > 1000


def test_of_whom_is_missing_only_its_key_is_asked_for_and_it_is_waited_for_once() -> None:
    space = Space()
    for author in (attacker, victim, *others):
        space.put(author)
    for author in (victim, *others):
        space.put(author, ROUND + 1)
    one = exchange(space)

    async def rounds() -> list[float]:
        took = []
        for round in (ROUND, ROUND + 1, ROUND + 2):
            begun = time.monotonic()
            await share(one, round, seconds=4.0)
            took.append(time.monotonic() - begun)
            if round == ROUND + 1:
                gone = OWN.key_for(round, attacker.peer_id)
                asked = {key: space.asked[key] for key in OWN.keys(round)}
                assert 3 <= asked.pop(gone) <= 6 and set(asked.values()) == {1}
                for author in (victim, *others):
                    space.put(author, ROUND + 2)
        return took

    took = run(rounds())
    assert took[1] > 2.0, "it was there in the round before"
    assert took[0] < 2.0 and took[2] < 2.0, "and is waited for once"


def test_a_record_of_the_last_round_that_comes_while_it_waits_is_taken() -> None:
    space = Space()
    space.put(attacker, ROUND - 1)
    one = exchange(space)

    async def rounds() -> Exchanged:
        await share(one, ROUND - 1)
        waiting = asyncio.create_task(share(one, ROUND, seconds=2.5))
        await asyncio.sleep(1.0)
        space.put(victim, ROUND - 1)
        return await waiting

    assert {(group.peer_id, group.round) for group in run(rounds()).groups} == {(victim.peer_id, ROUND - 1)}


def test_a_clock_that_was_set_back_is_followed() -> None:
    space = Space()
    one = exchange(space)
    for round in (ROUND, ROUND + 3):
        space.put(attacker, round)

    async def rounds() -> list[set[int]]:
        found = [await share(one, round) for round in (ROUND + 3, ROUND, ROUND + 1)]
        return [{group.round for group in exchanged.groups} for exchanged in found]

    assert run(rounds()) == [{ROUND + 3}, {ROUND}, set()]


def test_a_known_peer_that_is_always_late_is_found_in_each_round_after_though_the_others_are_not_read_again() -> None:
    space, wide = Space(), dialect_for("swarmd", SWARM_ID, shards=32)
    slow, *prompt = authors(40)
    one = exchange(space, dialect=wide)

    async def rounds() -> None:
        for round in range(ROUND, ROUND + 6):
            for author in prompt:
                space.put(author, round, wide)
            if round == ROUND:
                space.put(slow, round, wide)
            space.asked.clear()
            exchanged = await share(one, round)
            asked = {key: space.asked[key] for key in wide.keys(round)}
            waited_for = asked.pop(wide.key_for(round, slow.peer_id)) > 1
            assert waited_for == (round == ROUND + 1), "once"
            assert set(asked.values()) == {1}
            if round > ROUND + 1:
                late = {(group.peer_id, group.round) for group in exchanged.groups if group.round < round}
                assert late == {(slow.peer_id, round - 1)}
                assert sum(space.asked[key] for key in wide.keys(round - 1)) < len(wide.keys(round - 1))
            space.put(slow, round, wide)

    run(rounds())


def test_tasks_that_nobody_would_take_are_not_published() -> None:
    space = Space()
    one = exchange(space)
    groups = own_groups()
    task = mix().draw(task_seed(SWARM_ID, ROUND, me.peer_id, MOST_SLOTS))
    far = {**groups[0], "slot": MOST_SLOTS, "provenance": asdict(task.provenance)}
    assert [group.slot for group in one._outgoing(ROUND, [groups[0], far])] == [groups[0]["slot"]]
    one.close()


def test_where_a_record_has_not_room_for_all_groups_the_first_draws_go() -> None:
    """A record with gaps counts for less with those who read it."""
    one = exchange(Space())
    assert [group.slot for group in one._outgoing(ROUND, own_groups()[::-1])] == [0, 1]
    one.close()


def test_a_record_that_nobody_takes_holds_no_round_up_and_is_offered_again() -> None:
    space = Space(refuses=True)
    space.put(victim)
    one = exchange(space)

    async def rounds() -> Exchanged:
        begun = time.monotonic()
        exchanged = await share(one, seconds=20.0)
        assert time.monotonic() - begun < 10.0
        offered = len(space.published)
        await asyncio.sleep(2.0)
        assert len(space.published) > offered > 0
        one.close()
        return exchanged

    exchanged = run(rounds())
    assert exchanged.published == 0 and len(exchanged.groups) == 2


def test_a_node_that_is_more_than_a_round_late_keeps_what_it_gathers() -> None:
    space = Space()
    space.put(victim)
    exchanged = run(share(exchange(space), expires=NOW - 3.0))
    assert len(exchanged.groups) == 2 and exchanged.published == 0 and not space.published


def test_without_a_group_nothing_is_published() -> None:
    space = Space()
    exchanged = run(exchange(space).run(ROUND, [], NOW + 100, time.monotonic() + 1.0))
    assert (exchanged.published, exchanged.left_out) == (0, 0) and not space.published


def test_in_a_long_round_the_record_is_published_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publication, "_REPEAT_SECONDS", 0.2)
    space, begun = Space(), time.monotonic()
    # 2000 seconds in one: the round is over after 4 s of the test.
    one = exchange(space, lambda: NOW + 2000 * (time.monotonic() - begun))

    async def rounds() -> None:
        assert (await share(one, seconds=1.0, expires=NOW + 8000)).published == 2
        await asyncio.sleep(2.0)
        one.close()

    run(rounds())
    expirations = [expires for _, _, expires in space.published]
    assert len(expirations) >= 3 and expirations == sorted(set(expirations)) and expirations[-1] <= 8001 + NOW


def test_what_a_cancelled_exchange_has_admitted_goes_to_the_next() -> None:
    space = Space()
    space.put(attacker, ROUND - 1)
    one = exchange(space)

    async def rounds() -> Exchanged:
        await share(one, ROUND - 1)
        space.put(victim)
        given_up = asyncio.create_task(share(one, seconds=60.0))
        await asyncio.sleep(1.5)
        given_up.cancel()
        return await share(one, seconds=1.0)

    exchanged = run(rounds())
    assert {group.peer_id for group in exchanged.groups} == {victim.peer_id} and exchanged.published == 2


@given(st.floats(1.0, 1e5), st.floats(0.0, 1e5), st.floats(5.0, 1e5))
def test_a_record_that_is_written_later_expires_later(left: float, age: float, later: float) -> None:
    first, now = NOW - age, NOW - age + later
    expires = max(first, now) + left
    once, again = outlives(expires, first), outlives(expires, now)
    assert round(1000 * again) > round(1000 * once), "in milliseconds, which is what is signed"
    assert again <= now + 850.0 and min(expires, now + 850.0) <= again <= expires + 1.0
