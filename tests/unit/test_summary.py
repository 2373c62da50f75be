"""The status in one line."""

from dataclasses import replace

from swarmd.monitor.status import HeldoutStatus, MemoryStatus, NetworkStatus, PeersStatus, RewardStatus, Status
from swarmd.monitor.summary import summary

MIB = 1 << 20
AT_WORK = Status(
    "training", phase="train", round=7, reward=RewardStatus(0.25, 0.2), heldout=HeldoutStatus(0.1, 0.3, 0.4, 5),
    tokens_per_s=1234.5, memory=MemoryStatus(600 * MIB, 2048 * MIB),
)  # fmt: skip


def test_a_node_at_work_tells_what_a_person_wants_to_know() -> None:
    assert summary(AT_WORK) == (
        "training: round 7, train; reward 0.250 (0.200 over 100), held-out 0.300 (best 0.400); 1234 tokens/s; "
        "memory 600 of 2048 MiB; alone"
    )
    with_peers = replace(AT_WORK, state="degraded", peers=PeersStatus(5, 2))
    assert summary(with_peers).startswith("degraded: round 7")
    assert summary(with_peers).endswith("; 5 peers, 2 used")


def test_what_is_not_known_yet_is_left_out() -> None:
    assert summary(Status("starting")) == "starting; alone"
    assert summary(Status("training", phase="evaluate")) == "training: evaluate; alone"


def test_a_node_that_stops_tells_only_what_it_waits_for() -> None:
    assert summary(replace(AT_WORK, state="stopping")) == "stopping: finishing round 7, train"
    assert summary(Status("stopping")) == "stopping"


def test_a_notice_comes_last() -> None:
    assert summary(AT_WORK, "reload refused: x").endswith("; alone; reload refused: x")


def test_a_bootnode_tells_of_its_peers_and_of_no_training() -> None:
    network = NetworkStatus("trial", "0" * 32, 3)
    serving = Status("training", phase="serve", round=7, role="bootnode", network=network)
    assert summary(serving) == "bootnode, serving: round 7; 3 peers connected"
    alone = replace(serving, state="degraded", network=replace(network, connected=0))
    assert summary(alone, "port 1 is taken") == "bootnode, degraded: round 7; 0 peers connected; port 1 is taken"
