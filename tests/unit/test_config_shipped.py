"""The files that are shipped under etc/ load, and the example shows every setting as it is."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from swarmd.config import Config, load_config
from swarmd.config.messages import is_section
from swarmd.config.values import Section

ETC = Path(__file__).parents[2] / "etc"
SHIPPED = sorted(ETC.rglob("*.yaml"))


def keys(section: type[Section], before: str = "") -> set[str]:
    found = set()
    for name, field in section.model_fields.items():
        if is_section(field.annotation):
            found |= keys(field.annotation, f"{before}{name}.")  # type: ignore[arg-type]
        else:
            found.add(f"{before}{name}")
    return found


def written_keys(tree: dict[str, Any], before: str = "") -> set[str]:
    found = set()
    for name, value in tree.items():
        found |= written_keys(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}"}
    return found


def test_the_example_shows_every_key() -> None:
    assert written_keys(yaml.safe_load((ETC / "config.yaml").read_text())) == keys(Config)


def test_the_example_shows_the_defaults() -> None:
    assert load_config(ETC / "config.yaml", {}) == Config()


def test_the_example_explains_every_key() -> None:
    """Each key follows a comment, or a sibling that shares one."""
    lines = (ETC / "config.yaml").read_text().splitlines()
    shared = {"clip_high:", "beta1:", "beta2:", "epoch:", "org_id:"}
    for before, line in zip(lines, lines[1:], strict=False):
        key = line.split()[:1]
        if key and key[0].endswith(":") and not before.strip().startswith("#"):
            assert key[0] in shared, line


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ETC)))
def test_every_shipped_file_loads_alone(path: Path) -> None:
    load_config(path, {})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ETC)))
def test_every_shipped_file_loads_over_the_example(path: Path, tmp_path: Path) -> None:
    (tmp_path / "config.d").mkdir()
    (tmp_path / "config.yaml").write_text((ETC / "config.yaml").read_text())
    (tmp_path / "config.d" / path.name).write_text(path.read_text())
    assert (load_config(tmp_path / "config.yaml", {}) == Config()) == (path.name == "config.yaml")


def test_every_field_says_what_it_is_for() -> None:
    def undescribed(section: type[Section]) -> list[str]:
        return [
            name
            for name, field in section.model_fields.items()
            if not field.description or (is_section(field.annotation) and undescribed(field.annotation))  # type: ignore[arg-type]
        ]

    assert undescribed(Config) == []
