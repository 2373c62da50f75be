"""Hostile peers among honest ones, for some rounds, with an audit of all that a trainer is given of others."""

from functools import cache

import pytest
import torch

from tests.bench.common import Common, open_common
from tests.bench.hostile_swarm import ARMS, BEHAVIOURS, Swarm
from tests.bench.sapo_swarm import add

FALSE = "violation: "


@cache
def small() -> Common:
    return open_common(seed=0, tasks=4)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def played(arm: str, rounds: int) -> dict[str, float]:
    """What became of others' groups at two honest nodes, which hold nothing against anybody when a round begins."""
    swarm = Swarm(small(), ARMS[arm], seed=1, honest=2)
    total: dict[str, float] = {}
    for round in range(rounds):
        add(total, swarm.play(round))
        for node in swarm.nodes:
            node.forgive()
    return total


def of(counts: dict[str, float], what: str, honest: bool) -> float:
    return sum(
        count for name, count in counts.items()
        if name.partition("/")[2].startswith(what) and name.startswith("honest/") == honest
    )  # fmt: skip


def test_no_false_task_answer_or_reward_is_trained_on_whatever_hostile_peers_do() -> None:
    counts = played("hostile", max(map(len, BEHAVIOURS.values())))
    done = {name.partition("/")[0] for name in counts}
    assert {one.__name__.replace("_", " ") for some in BEHAVIOURS.values() for one in some} <= done
    assert of(counts, FALSE, honest=True) == of(counts, FALSE, honest=False) == 0
    assert of(counts, "trained", honest=True) > 0
    assert of(counts, "trained", honest=False) > 0, "well-formed and true records are trained on, whoever sends them"
    assert of(counts, "refused", honest=False) > 0


def test_the_audit_finds_what_nodes_are_given_that_believe_their_peers() -> None:
    counts = played("believing", 3)
    assert counts.get(f"other tasks/{FALSE}another's task", 0) > 0
    assert of(counts, f"{FALSE}a false reward", honest=False) > 0
    assert of(counts, FALSE, honest=True) == 0
