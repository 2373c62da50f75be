"""Hostile peers among honest ones, for some rounds, with an audit of all that a trainer is given of others."""

from functools import cache

import pytest
import torch

from tests.bench.common import Common, open_common
from tests.bench.hostile_swarm import ARMS, Swarm

ROUNDS = 3


@cache
def small() -> Common:
    return open_common(seed=0, tasks=6)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def played(arm: str) -> dict[str, float]:
    """What became of others' groups at three honest nodes."""
    swarm = Swarm(small(), ARMS[arm], seed=1, honest=3)
    total: dict[str, float] = {}
    for round in range(ROUNDS):
        for name, count in swarm.play(round).items():
            total[name] = total.get(name, 0) + count
    return total


def of(counts: dict[str, float], what: str, honest: bool) -> float:
    return sum(
        count for name, count in counts.items()
        if name.partition("/")[2].startswith(what) and name.startswith("honest/") == honest
    )  # fmt: skip


def test_no_false_task_answer_or_reward_reaches_the_trainer_of_a_node_with_hostile_peers() -> None:
    counts = played("hostile")
    assert of(counts, "violation", honest=True) == of(counts, "violation", honest=False) == 0
    assert of(counts, "given", honest=True) > 0
    assert of(counts, "given", honest=False) > 0
    assert of(counts, "refused", honest=False) > 0


def test_the_audit_finds_what_a_node_is_given_that_believes_its_peers() -> None:
    counts = played("believing")
    assert counts.get("other tasks/violation: another's task", 0) > 0
    assert of(counts, "violation: a false reward", honest=False) > 0
    assert of(counts, "violation", honest=True) == 0
