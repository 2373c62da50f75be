"""The incumbent's variables become a drop-in that loads, and its token a file that others cannot read."""

import stat
from pathlib import Path

import pytest

from swarmd.config import Config, ConfigErrors, load_config
from swarmd.config.import_env import import_environment

CONTRACT = "0xFaD7C5e93f28257429569B854151A1B8DCD404c2"
TOKEN = "hf_thisIsNoRealTokenAtAll"


def loaded(directory: Path, environ: dict[str, str]) -> Config:
    (directory / "config.d").mkdir(exist_ok=True)
    (directory / "config.d" / "60-imported.yaml").write_text(import_environment(environ, directory).text)
    (directory / "config.yaml").write_text("")
    return load_config(directory / "config.yaml", {})


def test_every_variable_of_the_incumbent_is_understood(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        {
            "HUGGINGFACE_ACCESS_TOKEN": TOKEN,
            "MODEL_NAME": "Gensyn/Qwen2.5-0.5B-Instruct",
            "PRG_GAME": "false",
            "IDENTITY_PATH": "/home/user/rl-swarm/swarm.pem",
            "ORG_ID": "7f0c1c52-6d1c-4d53-9a3a-0d5ad46c7f1b",
            "SWARM_CONTRACT": CONTRACT,
            "CPU_ONLY": "1",
            "PATH": "/bin",
        },
    )
    assert config.model.name == "Gensyn/Qwen2.5-0.5B-Instruct"
    assert config.model.device == "cpu"
    assert config.network.identity_file == "/home/user/rl-swarm/swarm.pem"
    assert config.coordinator.org_id == "7f0c1c52-6d1c-4d53-9a3a-0d5ad46c7f1b"
    assert config.coordinator.contract == CONTRACT
    assert (config.coordinator.kind, config.market.enabled) == ("solo", False)
    assert config.hub.token_file == str(tmp_path / "hub-token")


def test_the_token_goes_into_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    imported = import_environment({"HUGGINGFACE_ACCESS_TOKEN": f" {TOKEN}\n"}, tmp_path)
    path = tmp_path / "hub-token"
    assert path.read_text() == f"{TOKEN}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_uid == tmp_path.stat().st_uid
    assert TOKEN not in imported.text and TOKEN not in repr(imported)
    assert [entry.name for entry in tmp_path.iterdir()] == ["hub-token"]


def test_a_second_import_replaces_the_token_and_a_link_in_its_place(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("untouched")
    (tmp_path / "hub-token").symlink_to(other)
    import_environment({"HUGGINGFACE_ACCESS_TOKEN": TOKEN}, tmp_path)
    assert other.read_text() == "untouched"
    assert not (tmp_path / "hub-token").is_symlink()


@pytest.mark.parametrize("token", ["", "None", "  "])
def test_no_token_writes_no_file(tmp_path: Path, token: str) -> None:
    assert (
        loaded(tmp_path, {"HUGGINGFACE_ACCESS_TOKEN": token, "MODEL_NAME": "", "CPU_ONLY": "0"}) == Config()
    )
    assert not (tmp_path / "hub-token").exists()


def test_a_bad_value_is_named_by_its_variable_and_nothing_is_written(tmp_path: Path) -> None:
    environ = {"MODEL_NAME": "my model", "SWARM_CONTRACT": "0x12", "HUGGINGFACE_ACCESS_TOKEN": "two words"}
    with pytest.raises(ConfigErrors) as caught:
        import_environment(environ, tmp_path)
    assert {problem.file for problem in caught.value.problems} == {f"environment {name}" for name in environ}
    assert "two words" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_state_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match="hub-token cannot be written: No such file or directory"):
        import_environment({"HUGGINGFACE_ACCESS_TOKEN": TOKEN}, tmp_path / "gone")


def test_what_cannot_be_taken_over_is_said(tmp_path: Path) -> None:
    imported = import_environment({"PRG_GAME": "true", "ORG_ID": "abc"}, tmp_path)
    assert "market" not in imported.settings
    assert len(imported.notes) == 2
    assert all(f"# {note}\n" in imported.text for note in imported.notes)
