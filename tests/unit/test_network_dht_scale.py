"""What a round costs a node as the swarm grows: our DHT nodes, on a wire that hands over every message at once."""

import asyncio
from pathlib import Path

from tests.bench.scale_settings import PEERS_PER_ROUND
from tests.bench.scale_wire import cost_of_a_round


def test_what_a_round_costs_a_node_does_not_grow_with_the_swarm(tmp_path: Path):
    few, many = (asyncio.run(cost_of_a_round(size, 24, tmp_path)) for size in (40, 160))
    assert few.least >= PEERS_PER_ROUND and many.least >= PEERS_PER_ROUND
    assert many.calls <= 1.2 * few.calls and many.bytes <= 1.2 * few.bytes
