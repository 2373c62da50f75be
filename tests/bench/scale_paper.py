"""What limits swarms larger than one machine can hold: arithmetic, no measurement (Markdown)."""

from __future__ import annotations

from swarmd.network.dht_search import MOST_ASKED
from swarmd.network.handover import REPLICAS
from swarmd.network.record_store import RecordLimits
from tests.bench.scale_settings import SAMPLE, SHARDS

_MESSAGE = 4 * 2**20
_RECORD, _LARGEST = 6_000, 16_384
_BESIDE = 70  # a subkey of 46 characters, and 24 bytes for headers and expiration
_SOURCES, _PER_KEY = 3, 16  # as in swarmd.network.dht_search and shard_sample
_NODES, _MANY_SHARDS = 10_000, 1024
_ROUND_SECONDS = 300
_MOST_CONNECTIONS = 512


def on_paper() -> str:
    """The section of the report."""
    stock, stock_large = (_MESSAGE // (size + _BESIDE) for size in (_RECORD, _LARGEST))
    ours = RecordLimits().bytes_per_key // (_RECORD + _BESIDE)
    kept = RecordLimits().bytes_per_key / 2**20
    return f"""## On paper: {_NODES:,} nodes

GenRL's scheme ends where a key's dictionary outgrows hivemind's message of 4 MiB:
4 MiB / ({_RECORD:,} + {_BESIDE}) = {stock} peers with records of 6 kB, {stock_large} with 16 KiB;
then every read of the round finds nothing. Up to there a node's bytes grow with the swarm, those of all nodes with its
square, and {REPLICAS} nodes bear all of it.

swarmd's swarms end at shards × {ours} peers: a node keeps {kept:.1f} MiB for a key, so that a reply fits a message.
That is {SHARDS * ours:,} peers with {SHARDS} shards, {_MANY_SHARDS * ours:,} with {_MANY_SHARDS}.
What {_NODES:,} nodes with records of 6 kB mean for one of them, in a round, where a read needs
{SAMPLE} records:

| | {SHARDS} shards | {_MANY_SHARDS} shards |
|---|---|---|
{_rows()}

- A reader takes whole keys, at least one for each {_PER_KEY} records it wants, each from {_SOURCES} of {REPLICAS}
  replicas. So a swarm should be founded with about a shard for every {_PER_KEY} nodes it is to have: {SHARDS} serve
  up to {SHARDS * _PER_KEY} nodes at a constant cost, and beyond them bytes grow with the swarm. Too many cost, too:
  while there are fewer nodes than `peers_per_round` each reads all shards, a message for 16 of them.
- Searches: a node knows up to 1,024 others, so that in {_NODES:,} a key is two or three steps away; {MOST_ASKED} nodes
  are asked for one key at most.
- Connections: p2pd keeps 256 to {_MOST_CONNECTIONS} (its connection manager). A round calls some thirty nodes; with 160
  nodes all are connected already, with {_NODES:,} hardly any, and each then costs a search for its address in libp2p's
  own DHT, two or three round trips and a handshake. Made and closed again a connection takes 6 ms of p2pd's CPU where
  it begins and 5 ms at the other end (`python -m tests.bench.connection`, 2026-11-29; the address is known there): a
  third of a CPU-second a round for the calls of both directions. That is a constant, but one that the figures above
  do not hold.
- What a connection costs p2pd while nothing goes over it (both sides measure the round trip) is most of what a node's
  idle cost grows by, until there are as many as it keeps: 0.4 ms of CPU a minute for each (from 40 and 160 nodes,
  2026-11-29), 0.2 CPU-seconds a minute for {_MOST_CONNECTIONS}, a three-hundredth of a core.
- Pings: one in five seconds for each node that has heard of 16 others in the last 40, whatever the size of the swarm,
  and those who did not answer a search until they do or are forgotten."""


def _rows() -> str:
    few, many = _column(SHARDS), _column(_MANY_SHARDS)
    return "\n".join(f"| {name} | {few[name]} | {many[name]} |" for name in few)


def _column(shards: int) -> dict[str, str]:
    per_key = _NODES / shards
    keys = max(SAMPLE // _PER_KEY, -(-SAMPLE // per_key))
    key_bytes = per_key * (_RECORD + _BESIDE)
    # A key's readers, of whom each asks some of the replicas.
    served = _NODES * keys / shards * key_bytes * _SOURCES / REPLICAS
    kept = REPLICAS * (_RECORD + _BESIDE)
    return {
        "records under a key": f"{per_key:.0f}, {key_bytes / 1e6:.2f} MB",
        "a read takes in": f"{keys * key_bytes * _SOURCES / 1e6:.1f} MB",
        "records kept for others, mean": f"{kept / 1e3:.0f} kB",
        "a replica of a key keeps": f"{key_bytes / 1e6:.2f} MB",
        "and sends": f"{served / 1e6:,.1f} MB, {served * 8 / 1e6 / _ROUND_SECONDS:.2f} Mbit/s in rounds of 300 s",
        "replicas of keys": f"{min(_NODES, shards * REPLICAS):,} of {_NODES:,} nodes",
    }
