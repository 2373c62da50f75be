"""A setting that only turns out to be unusable when it is used is named with file and line, like any other mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmd.commands.plan import make_plan
from swarmd.config import load_config
from swarmd.located import LocatedError, naming_lines
from swarmd.system.exits import SettingProblem, SettingsRefused
from swarmd.system.installation import installation

MIX = """\
model: {name: /nowhere}
tasks:
  datasets:
    - name: gcd
    - name: chain_summ
    - {name: lcm,
       config: {max_valu: 3}}
"""


def refusal(config: Path) -> LocatedError:
    with pytest.raises(LocatedError) as refused, naming_lines(config):
        make_plan(load_config(config, {}), config, config.parent / "state", installation(None))
    return refused.value


def test_all_mistakes_are_named_with_their_lines(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(MIX)
    lines = str(refusal(config)).splitlines()
    assert lines[0] == "the configuration cannot be used:" and len(lines) == 4
    assert lines[1].startswith(f"{config}:1: model.name: model /nowhere: /nowhere is not a folder")
    assert lines[2].startswith(f"{config}:5: tasks.datasets[1].name: reasoning-gym has no dataset 'chain_summ'")
    assert lines[3].startswith(f"{config}:7: tasks.datasets[2].config.max_valu: lcm has no such setting")
    assert lines[2].endswith("did you mean chain_sum? (got chain_summ)")


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("tasks:\n  datasets: nope\n", "tasks.datasets", "there is no preset 'nope'"),
        ("tasks:\n  datasets: [{name: gcd, config: {min_value: 9, max_value: 3}}]\n", "tasks.datasets[0].config",
         "gcd refuses it"),
        ("tasks:\n  environment: no.such:thing\n", "tasks.environment", "there is no module 'no'"),
        ("tasks:\n  environment: json:thing\n", "tasks.environment", "the module json has no 'thing'"),
        ("model:\n  name: /nowhere\n", "model.name", "/nowhere is not a folder"),
    ],
)
def test_other_settings_too_and_in_a_drop_in(tmp_path: Path, text: str, key: str, message: str) -> None:
    config, drop_in = tmp_path / "config.yaml", tmp_path / "config.d" / "60-mine.yaml"
    config.write_text("model: {name: embedded}\ntasks: {environment: reasoning_gym}\n")
    drop_in.parent.mkdir()
    drop_in.write_text(text)
    error = refusal(config)
    (problem,) = error.problems
    assert (problem.file, problem.line, problem.key) == (str(drop_in), 2, key)
    assert message in problem.message and str(error) == f"the configuration cannot be used:\n{problem}"


def test_a_key_that_was_not_written_is_placed_where_the_nearest_above_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("log: {level: info}\ntasks:\n  datasets: [{name: gcd}]\n")

    def places(*keys: str) -> list[tuple[str, int | None]]:
        with pytest.raises(LocatedError) as refused, naming_lines(config):
            raise SettingsRefused([SettingProblem(key, "is no good") for key in keys])
        return [(problem.file, problem.line) for problem in refused.value.problems]

    assert places("tasks.datasets[0].config", "model.name") == [(str(config), 3), ("defaults", None)]
    monkeypatch.setenv("SWARMD_MODEL__NAME", "/nowhere")
    assert places("model.name") == [("environment SWARMD_MODEL__NAME", None)]


def test_other_refusals_go_through_as_they_are(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("coordinator: {kind: wallet, contract: '0x" + "1" * 40 + "', rpc_url_file: /r, key_file: /k}\n")
    with pytest.raises(Exception, match="cannot report to a chain yet") as refused, naming_lines(config):
        make_plan(load_config(config, {}), config, tmp_path / "state", installation(None))
    assert not isinstance(refused.value, LocatedError)
