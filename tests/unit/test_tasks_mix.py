"""A mix draws by weight, never trains on what it evaluates, and gives back any task from its provenance."""

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from swarmd.tasks.dataset_settings import MixError
from swarmd.tasks.mix import DatasetSpec, TaskMix
from swarmd.tasks.mix_files import mix_of, preset_names
from swarmd.tasks.provenance import SEEDS, CannotRegenerate, is_heldout, task_seed

SMALL = [
    DatasetSpec("chain_sum", 3.0, {"min_digits": 1, "max_digits": 1}),
    DatasetSpec("gcd", 1.0, {"max_value": 50}),
]

QUESTIONS_IN_ANOTHER_PROCESS = """
import json
from swarmd.tasks.mix_files import mix_of
from swarmd.tasks.provenance import task_seed
mix = mix_of("rl-swarm")
tasks = [mix.draw(task_seed("swarm", round, "node", slot)) for round in range(5) for slot in range(8)]
print(json.dumps([repr(task) for task in tasks + mix.heldout(18, 1)]))
"""


@pytest.fixture(scope="module", params=["embedded", "rl-swarm"])
def mix(request: pytest.FixtureRequest) -> TaskMix:
    return mix_of(request.param)


def test_the_presets_are_those_that_are_documented() -> None:
    assert preset_names() == ["embedded", "rl-swarm"]


def test_two_processes_with_different_hash_seeds_draw_the_same_tasks() -> None:
    drawn = [
        subprocess.run(
            [sys.executable, "-c", QUESTIONS_IN_ANOTHER_PROCESS],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert drawn[0] == drawn[1]
    assert len(json.loads(drawn[0])) == 5 * 8 + 18


def test_training_and_held_out_questions_are_disjoint(mix: TaskMix) -> None:
    training = {mix.draw(task_seed("swarm", round, "node", 0)).question for round in range(3000)}
    heldout = {task.question for task in mix.heldout(500, 1)}
    assert len(training) > 1000
    assert len(heldout) > 300
    assert not training & heldout
    assert not any(is_heldout(question) for question in training)
    assert all(is_heldout(question) for question in heldout)


def test_a_drawn_task_is_regenerated_from_its_provenance(mix: TaskMix) -> None:
    for seed in range(200):
        task = mix.draw(seed)
        assert task.provenance.seed == seed
        assert mix.regenerate(task.provenance) == task


def test_a_peer_with_the_same_datasets_in_another_mix_regenerates_a_task() -> None:
    task = TaskMix(SMALL).draw(17)
    theirs = TaskMix([DatasetSpec("lcm"), *(dataclasses.replace(spec, weight=0.1) for spec in reversed(SMALL))])
    assert theirs.regenerate(task.provenance) == task


def test_datasets_are_drawn_by_their_weight() -> None:
    mix = TaskMix(SMALL)
    drawn = Counter(mix.draw(task_seed("swarm", round, "node", 0)).provenance.dataset for round in range(4000))
    # Expected 3000; the bounds are four standard deviations (27.4).
    assert abs(drawn["chain_sum"] - 3000) < 110


def test_the_choice_of_a_dataset_does_not_tell_which_task_it_gives() -> None:
    # Random(seed) both for the choice and for the task would make every first term a low one.
    mix = TaskMix([DatasetSpec("count_bits", 1.0, {"max_n": 2**20}), DatasetSpec("lcm", 1.0)])
    drawn = [mix.draw(seed * 7919) for seed in range(1500)]
    numbers = [task.metadata["number"] for task in drawn if task.provenance.dataset == "count_bits"]
    low = sum(number < 2**19 for number in numbers) / len(numbers)
    assert 0.44 < low < 0.56


def test_held_out_tasks_are_stratified_by_weight() -> None:
    tasks = TaskMix(SMALL).heldout(40, 1)
    assert Counter(task.provenance.dataset for task in tasks) == {"chain_sum": 30, "gcd": 10}
    tasks = TaskMix([DatasetSpec("lcm"), DatasetSpec("gcd"), DatasetSpec("count_bits")]).heldout(10, 1)
    assert [count for _, count in sorted(Counter(t.provenance.dataset for t in tasks).items())] == [3, 3, 4]


def test_held_out_tasks_are_the_same_each_time_and_others_for_another_seed() -> None:
    mix = TaskMix(SMALL)
    assert mix.heldout(20, 1) == TaskMix(SMALL).heldout(20, 1)
    assert mix.heldout(20, 1) != mix.heldout(20, 2)
    assert mix.heldout(0, 1) == []


def test_no_held_out_question_comes_twice_where_there_are_enough() -> None:
    tasks = mix_of("rl-swarm").heldout(300, 1)
    assert len({task.question for task in tasks}) == 300


def test_held_out_questions_repeat_where_a_dataset_has_too_few() -> None:
    mix = TaskMix([DatasetSpec("count_bits", 1.0, {"min_n": 1, "max_n": 64})])
    tasks = mix.heldout(100, 1)
    assert len(tasks) == 100
    questions = [task.question for task in tasks]
    distinct = len(set(questions))
    assert 3 <= distinct <= 20
    assert len(set(questions[:distinct])) == distinct, "repeats come last"


def test_a_task_of_either_class_is_regenerated() -> None:
    mix = TaskMix(SMALL)
    for task in mix.heldout(50, 3):
        assert mix.regenerate(task.provenance) == task


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"environment": "other"}, "the task is of environment 'other', not reasoning_gym"),
        ({"dataset": "lcm"}, "lcm with these settings is not in this node's mix"),
        ({"config_hash": "0" * 32}, "chain_sum with these settings is not in this node's mix"),
        ({"seed": -1}, f"the seed -1 is not in 0..{SEEDS - 1}"),
        ({"seed": SEEDS}, f"the seed {SEEDS} is not in 0..{SEEDS - 1}"),
        ({"seed": "1"}, f"the seed '1' is not in 0..{SEEDS - 1}"),
        ({"seed": 1.0}, f"the seed 1.0 is not in 0..{SEEDS - 1}"),
        ({"index": 0}, "the index 0 is not in 1..31"),
        ({"index": 32}, "the index 32 is not in 1..31"),
        ({"index": True}, "the index True is not in 1..31"),
        ({"index": None}, "the index None is not in 1..31"),
    ],
)
def test_a_provenance_from_a_stranger_is_refused_with_its_reason(change: dict, message: str) -> None:
    mix = TaskMix(SMALL)
    provenance = next(task.provenance for task in map(mix.draw, range(50)) if task.provenance.dataset == "chain_sum")
    with pytest.raises(CannotRegenerate) as refusal:
        mix.regenerate(dataclasses.replace(provenance, **change))
    assert str(refusal.value) == message


@pytest.mark.parametrize("seed", [-1, SEEDS])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"^the seed {seed} is not in 0\\.\\.{SEEDS - 1}$"):
        TaskMix(SMALL).draw(seed)


def test_a_dataset_with_questions_of_one_class_alone_is_refused() -> None:
    with pytest.raises(MixError):
        TaskMix([DatasetSpec("count_bits", 1.0, {"min_n": 5, "max_n": 5})])
