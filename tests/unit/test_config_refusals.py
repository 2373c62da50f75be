"""Every broken configuration of the table is refused with exactly the lines that stand there."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmd.config import ConfigErrors, load_config
from tests.unit.broken_config import BrokenConfig
from tests.unit.broken_configs import CASES

NOBODY = 65534


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that other users may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def refusal(case: BrokenConfig, path: Path) -> ConfigErrors:
    as_nobody = bool(case.unreadable) and os.geteuid() == 0
    if as_nobody:
        os.seteuid(NOBODY)
    try:
        with pytest.raises(ConfigErrors) as caught:
            load_config(path, case.environ)
    finally:
        if as_nobody:
            os.seteuid(0)
    return caught.value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_broken_configuration_is_refused_with_these_words(case: BrokenConfig, directory: Path) -> None:
    path = case.write(directory)
    assert str(refusal(case, path)) == case.expected(directory)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_refusal_never_repeats_a_secret(case: BrokenConfig, directory: Path) -> None:
    text = str(refusal(case, case.write(directory)))
    for secret in (
        "NoRealToken",
        "hunter2",
        "horse",
        "5e5e5e5e",
        "N0tARealKey",
        "NoRealInvite",
        "bm90IGEga2V5",
    ):
        assert secret not in text


def test_the_table_has_no_case_twice() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    assert len({(tuple(case.files.items()), *case.environ.items()) for case in CASES if case.files}) > 100


def test_a_problem_has_its_parts_for_programs(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("training:\n  group_size: 1\n")
    with pytest.raises(ConfigErrors) as caught:
        load_config(path, {})
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.key, problem.value) == (
        str(path),
        2,
        "training.group_size",
        "1",
    )
    assert problem.message.startswith("must be a whole number from 2 to 256")
