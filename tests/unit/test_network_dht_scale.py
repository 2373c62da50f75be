"""What a round costs a node as the swarm grows: our DHT nodes, on a wire that hands over every message at once."""

import asyncio
import time
from pathlib import Path

from tests.bench.scale_settings import SAMPLE
from tests.bench.scale_wire import Wire, cost_of_a_round


def test_what_a_round_costs_a_node_does_not_grow_with_the_swarm(tmp_path: Path):
    few, many = (asyncio.run(cost_of_a_round(size, 24, [SAMPLE], tmp_path)) for size in (40, 160))
    assert few.least >= SAMPLE and many.least >= SAMPLE
    assert many.calls <= 1.2 * few.calls and many.bytes <= 1.2 * few.bytes


def test_who_publishes_is_not_sent_what_others_have_published_under_the_key(tmp_path: Path):
    async def publish() -> int:
        wire = Wire({})
        nodes = [wire.join(tmp_path) for _ in range(12)]
        for node in nodes:
            node.allow(["key"])
            for other in nodes:
                assert other._calls.node_id is not None
                node._calls.contacts.met(other._calls.node_id, other.peer_id)
        for node in nodes:
            before = node.traffic.bytes_in
            assert await node.publish("key", node.peer_id, b"x" * 6000, time.time() + 600, 60)
        return node.traffic.bytes_in - before

    # Names of neighbours and whether it was kept; eleven records lie with five others by then.
    assert asyncio.run(publish()) < 40_000
