"""Every dataset that is allowed in a mix gives the same task for the same provenance: anywhere, and at any time."""

import hashlib
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import reasoning_gym
from reasoning_gym.factory import DATASETS

from swarmd.tasks.dataset_settings import IRREPRODUCIBLE
from swarmd.tasks.generator import POSITIONS, GenerationFailed, Generator, plain
from swarmd.tasks.mix import DatasetSpec, TaskMix
from swarmd.tasks.ordered_datasets import ORDERED
from swarmd.tasks.provenance import Provenance, Task
from swarmd.tasks.scorable import SCORABLE

ALLOWED = sorted(SCORABLE - set(IRREPRODUCIBLE))

# With their defaults these take up to half a second for a task.
QUICKER = {
    "futoshiki": {"min_board_size": 4, "max_board_size": 4},
    "puzzle24": {"max_value": 6},
    "sokoban": {"max_w": 7, "max_h": 7, "max_boxes": 4},
    "sudoku": {"min_empty": 30, "max_empty": 32},
    "zebra_puzzles": {"num_people": 3, "num_characteristics": 3},
}
PLACES = [(5, 1), (2**31 - 1, POSITIONS - 1)]

DIGESTS_IN_ANOTHER_PROCESS = """
import json, random, sys
sys.path.insert(0, {folder!r})
from test_tasks_generators import allowed_mix, digest_of
from swarmd.tasks.provenance import Provenance
random.seed(1)
mix = allowed_mix()
print(json.dumps([digest_of(mix.regenerate(Provenance(*parts))) for parts in json.load(sys.stdin)]))
"""


def allowed_mix() -> TaskMix:
    return TaskMix([DatasetSpec(name, 1.0, QUICKER.get(name, {})) for name in ALLOWED])


def digest_of(task: Task) -> str:
    return hashlib.sha256(repr((task.question, task.answer, task.metadata)).encode()).hexdigest()


def parts_of(provenance: Provenance) -> list[object]:
    return [provenance.environment, provenance.dataset, provenance.config_hash, provenance.seed, provenance.index]


@pytest.fixture(scope="module")
def mix() -> TaskMix:
    return allowed_mix()


def test_every_dataset_of_reasoning_gym_is_either_allowed_or_refused_with_a_reason() -> None:
    assert set(ALLOWED) | set(IRREPRODUCIBLE) | {"composite"} == set(DATASETS)
    assert len(ALLOWED) == 102


def test_every_allowed_dataset_gives_its_tasks_again_in_another_process(mix: TaskMix) -> None:
    tasks = mix.heldout(len(mix.parts), 1) + [mix.draw(seed) for seed in range(100)]
    assert {task.provenance.dataset for task in tasks} == set(ALLOWED)
    script = DIGESTS_IN_ANOTHER_PROCESS.format(folder=os.path.dirname(__file__))
    result = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps([parts_of(task.provenance) for task in reversed(tasks)]),
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = dict(zip([task.provenance for task in reversed(tasks)], json.loads(result.stdout), strict=True))
    ours = {task.provenance: digest_of(task) for task in tasks}
    assert theirs == ours


def test_every_allowed_dataset_gives_its_tasks_again_after_other_tasks(mix: TaskMix) -> None:
    tasks = mix.heldout(len(mix.parts), 2)
    random.seed(99)
    np.random.seed(99)
    # By digest: not a number (in some metadata) does not equal itself.
    assert [digest_of(mix.regenerate(task.provenance)) for task in reversed(tasks)] == [
        digest_of(task) for task in reversed(tasks)
    ]


@pytest.mark.parametrize("name", [name for name in ALLOWED if name not in ORDERED and name != "list_functions"])
def test_a_task_is_the_one_that_reasoning_gym_makes_itself(name: str, mix: TaskMix) -> None:
    generator = next(part.generator for part in mix.parts if part.name == name)
    for seed, index in PLACES:
        dataset = reasoning_gym.create_dataset(name, seed=seed, size=POSITIONS, **QUICKER.get(name, {}))
        try:
            item = dataset[index]
        except (ValueError, RuntimeError, IndexError):
            with pytest.raises(GenerationFailed):
                generator.make(seed, index)
        else:
            expected = (item["question"], item["answer"], plain(item["metadata"]))
            assert repr(generator.make(seed, index)) == repr(expected)


@pytest.mark.parametrize("name", ["list_functions", "pool_matrix", "chain_sum"])
def test_making_a_task_leaves_the_global_random_numbers_alone(name: str) -> None:
    generator = Generator(name, {}, "tasks.datasets[0]")
    random.seed(3)
    np.random.seed(3)
    expected = random.random(), np.random.random()
    random.seed(3)
    np.random.seed(3)
    for index in range(1, 20):
        generator.make(11, index)
    assert (random.random(), np.random.random()) == expected


def test_a_dataset_that_prints_stays_silent(capfd: pytest.CaptureFixture[str]) -> None:
    Generator("bf", {}, "tasks.datasets[0]").make(1, 1)
    assert capfd.readouterr().out == ""


def test_the_hash_of_a_config_names_its_settings_however_they_are_written() -> None:
    def config_hash(**settings: object) -> str:
        return Generator("basic_arithmetic", settings, "tasks.datasets[0]").config_hash

    assert config_hash() == config_hash(min_terms=2) == config_hash(operators=["+", "-", "*", "/"])
    assert config_hash() != config_hash(min_terms=3)
    assert config_hash() != Generator("chain_sum", {}, "tasks.datasets[0]").config_hash


def test_metadata_are_plain_data() -> None:
    from fractions import Fraction

    assert plain({"a": (Fraction(3, 4), {2, 1}), "b": [np.float64(0.5), np.str_("x")], 3: None}) == {
        "a": ("3/4", [1, 2]),
        "b": [0.5, "x"],
        3: None,
    }
    with pytest.raises(TypeError, match=r"^a builtins\.object is no plain data$"):
        plain([object()])


def test_settings_of_any_kind_are_taken_as_yaml_writes_them() -> None:
    for name, settings in {
        "word_sorting": {"transformation": "uppercase"},
        "time_intervals": {"min_date": "2000-01-01"},
        "polynomial_multiplication": {"variables": ["x", "y", "z", "w"]},
        "aiw": {"task_types": ["siblings"], "task_type_weights": [1]},
        "binary_matrix": {"p_zero": 1},
        "figlet_font": {"static_word": None},
        "rearc": {"board_format_opts": {"row_delimiter": ";"}},
    }.items():
        Generator(name, settings, "tasks.datasets[0]").make(1, 1)
