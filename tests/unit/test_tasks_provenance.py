"""Seeds follow from who asks and when, and from nothing else."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from swarmd.tasks.provenance import SEEDS, digest, heldout_seed, is_heldout, seed_of, task_seed

PARTS = st.lists(st.one_of(st.text(max_size=20), st.integers()), max_size=4)


@given(PARTS, PARTS)
def test_two_lists_of_parts_have_the_same_digest_only_if_they_are_equal(one: list, other: list) -> None:
    same = [(type(part), part) for part in one] == [(type(part), part) for part in other]
    assert (digest("domain", *one) == digest("domain", *other)) == same


def test_parts_that_read_alike_when_joined_have_different_seeds() -> None:
    seeds = [task_seed("ab", 1, "c", 0), task_seed("a", 1, "bc", 0), task_seed("ab", 11, "c", 0)]
    seeds += [task_seed("ab", 1, "1c", 0), task_seed("ab", 1, "c", 10), seed_of("d", "1"), seed_of("d", 1)]
    assert len(set(seeds)) == len(seeds)


def test_a_task_seed_is_the_same_for_ever() -> None:
    # Typed in, not computed: peers of another version must come to the same tasks.
    assert task_seed("swarm", 7, "node", 3) == 2007738627
    assert heldout_seed(1, "chain_sum", "00", 2) == 2117787789


def test_seeds_fill_their_range_evenly() -> None:
    seeds = [task_seed("swarm", round, "node", slot) for round in range(500) for slot in range(8)]
    assert all(0 <= seed < SEEDS for seed in seeds)
    eighths = Counter(seed * 8 // SEEDS for seed in seeds)
    assert sorted(eighths) == list(range(8))
    assert all(400 < count < 600 for count in eighths.values())


def test_no_two_nodes_and_no_two_rounds_see_the_same_order() -> None:
    orders = {
        tuple(task_seed("swarm", round, f"node {node}", slot) for slot in range(8))
        for node in range(30)
        for round in range(100)
    }
    assert len(orders) == 30 * 100
    assert len({seed for order in orders for seed in order}) == 30 * 100 * 8


def test_another_swarm_has_other_tasks() -> None:
    assert task_seed("one", 1, "node", 0) != task_seed("other", 1, "node", 0)


def test_training_and_held_out_seeds_come_from_different_domains() -> None:
    training = {task_seed("s", round, "n", slot) for round in range(200) for slot in range(8)}
    heldout = {heldout_seed(seed, "s", "n", number) for seed in range(200) for number in range(8)}
    assert not training & heldout


def test_one_question_in_eight_is_held_out() -> None:
    heldout = sum(is_heldout(f"What is {number} + 1?") for number in range(8000))
    assert 900 < heldout < 1100
    assert is_heldout("What is 1 + 1?") == is_heldout("What is 1 + 1?")
