"""The table of all questions of a legacy swarm."""

from importlib.resources import files
from typing import Any

import pytest
import yaml

from swarmd.tasks.dataset_settings import MixError
from swarmd.tasks.legacy_table import ENVIRONMENT, FixedDataset, LegacyTable, load_table
from tests.hostile.authors import table

SMALL = [FixedDataset("chain_sum", 7, 20, {"min_terms": 2, "max_terms": 2}), FixedDataset("gcd", 8, 5)]


def genrls_own_datasets() -> list[dict[str, Any]]:
    text = (files("genrl") / "examples" / "rgym" / "datasets.yaml").read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = yaml.safe_load(text)["datasets"]
    return entries


def test_the_incumbents_nodes_ask_4454_different_questions() -> None:
    assert len(table()) == 4454


def test_every_task_that_genrls_own_settings_make_is_in_the_table_with_its_answer() -> None:
    """GenRL's settings stand in its package; reasoning-gym makes the tasks of them without our help."""
    from reasoning_gym import create_dataset

    for entry in genrls_own_datasets():
        for index, item in enumerate(create_dataset(entry["name"], **entry["config"])):
            if index % 25 == 0:
                task = table().find(item["question"])
                assert task is not None and task.answer == item["answer"]
                assert task.provenance.dataset == entry["name"]


def test_an_unknown_question_leads_to_no_task() -> None:
    assert LegacyTable(SMALL).find("What is 2 + 2?") is None
    assert LegacyTable(SMALL).find("\ud800") is None


def test_a_task_is_the_same_each_time_and_says_where_it_is_from() -> None:
    small = LegacyTable(SMALL)
    for question in small.questions():
        task = small.find(question)
        assert task is not None and task == LegacyTable(SMALL).find(question)
        assert task.question == question and task.provenance.environment == ENVIRONMENT


def test_changing_a_found_task_does_not_change_the_table() -> None:
    small = LegacyTable(SMALL)
    question = small.questions()[0]
    first = small.find(question)
    assert first is not None
    first.metadata.clear()
    second = small.find(question)
    assert second is not None and second.metadata


@pytest.mark.parametrize(
    "entry",
    [FixedDataset("nonsense", 1, 5), FixedDataset("composite", 1, 5), FixedDataset("gcd", 1, 5, {"min_nubers": 1}),
     FixedDataset("gcd", 1, 10**9)],
)  # fmt: skip
def test_a_table_that_cannot_be_made_is_refused_when_it_is_named(entry: FixedDataset) -> None:
    with pytest.raises(MixError):
        LegacyTable([entry])


def test_there_is_no_table_of_another_name() -> None:
    with pytest.raises(FileNotFoundError):
        load_table("nobodys")
