"""What the scale bench fixes. No imports: both schemes' processes read it."""

SWARM_ID = "5ca1e" + "0" * 27
SHARDS = 32
"""swarm.shards, its default."""

SAMPLE, DEFAULT_SAMPLE = 16, 64
"""Records that a node of ours reads until it has enough: for "swarmd", as few as the smaller swarms can give, so that
it is the same for all sizes; for "default", what network.limits.peers_per_round is unless somebody sets it."""

BEAM_SIZE = 30
"""Nodes that GenRL lets hivemind keep in view when it looks for a key."""

READ_SECONDS = 75.0
"""For a round's reading: network.gather_seconds, a quarter of a round of 300 s."""

GROUPS = 15
"""Tasks in a record, four completions each: about 6 kB."""

NODES_PER_PROCESS = 10
"""Unless another number is asked for."""
