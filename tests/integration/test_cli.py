"""The commands as scripts use them: exit codes, messages, JSON."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from swarmd.cli import main
from tests.integration.node import ROOT, Node, Preloaded, environment
from tests.integration.saved import newest
from tests.unit.broken_config import BrokenConfig
from tests.unit.broken_configs import CASES

QUICK = {"training": {"tasks_per_round": 2, "group_size": 4, "evaluate_samples": 20}, "monitor": {"listen": None}}
COMMANDS = (
    ["run"], ["check"], ["status"], ["eval"], ["model"], ["model", "pull"], ["model", "list"], ["model", "export"],
    ["import-env"],
)  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The commands run in this process; they must see neither the user's settings nor leave theirs behind."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}
    loggers = {logger: logger.handlers[:] for logger in (logging.getLogger(), logging.getLogger("swarmd"))}
    for name in [name for name in os.environ if name.startswith("SWARMD_") or name.endswith("_DIRECTORY")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for logger, before in loggers.items():
        logger.handlers[:] = before


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, preloaded: Preloaded) -> Path:
    """A state directory after three rounds, with its configuration beside it (`.yaml`)."""
    state = tmp_path_factory.mktemp("trained") / "state"
    with Node(state, QUICK, "--rounds", "3", preloaded=preloaded) as node:
        assert node.end() == 0, node.text()
    return state


@pytest.fixture
def public(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "etc"
    directory.mkdir()
    yield directory


def runs(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def config_of(state: Path) -> Path:
    return state.with_name(state.name + ".yaml")


@pytest.mark.parametrize("case", [case for case in CASES if not case.unreadable], ids=lambda case: case.name)
def test_a_broken_configuration_ends_with_78_and_every_mistake_named(
    case: BrokenConfig, public: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = case.write(public)
    for name, value in case.environ.items():
        monkeypatch.setenv(name, value)
    assert runs("check", "--config", path) == 78
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err == f"swarmd: the configuration cannot be used:\n{case.expected(public)}\n"


@pytest.mark.parametrize("command", ["run", "eval", "check"])
def test_every_command_refuses_a_broken_configuration_as_a_real_process(command: str, public: Path) -> None:
    (public / "config.yaml").write_text("training:\n  goup_size: 4\n")
    ended = subprocess.run(
        [sys.executable, "-m", "swarmd", command, "--config", str(public / "config.yaml")],
        capture_output=True, text=True, cwd=ROOT, env=environment(), check=False,
    )  # fmt: skip
    assert ended.returncode == 78
    assert f"{public}/config.yaml:2: training.goup_size: " in ended.stderr
    assert "did you mean group_size?" in ended.stderr or "group_size" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("coordinator: {kind: wallet}\n", "coordinator.kind"),
        ("tasks: {datasets: [{name: chain_summ}]}\n", "chain_sum"),
        ("tasks: {datasets: [{name: chain_sum, config: {max_term: 3}}]}\n", "max_term"),
        ("tasks: {datasets: nosuchpreset}\n", "nosuchpreset"),
        ("tasks: {environment: nosuch.module:factory}\n", "nosuch"),
        ("model: {name: /nowhere}\n", "model /nowhere: /nowhere is not a folder"),
        ("memory: {limit: 256M}\n", "the limit is 0.2 GiB"),
        ("model: {device: cuda}\n", "model.device is cuda, but this torch is a build without CUDA"),
    ],
)
def test_what_only_shows_at_the_start_ends_with_78_too(
    text: str, message: str, public: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "cuda" in text and torch.version.cuda is not None:
        pytest.skip("this torch could use a GPU")
    (public / "config.yaml").write_text(text)
    assert runs("run", "--config", public / "config.yaml", "--state", tmp_path / "s", "--rounds", 1) == 78
    told = capsys.readouterr().err
    assert message in told
    if text.startswith(("tasks", "model: {name")):
        assert f"{public}/config.yaml:1: " in told
        assert runs("check", "--json", "--config", public / "config.yaml", "--state", tmp_path / "s") == 78
        (error,) = json.loads(capsys.readouterr().out)["errors"]
        assert (error["file"], error["line"]) == (str(public / "config.yaml"), 1)
        assert error["key"].split(".")[0] == text.split(":")[0] and message in error["message"]


def test_check_prints_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs("check", "--state", tmp_path / "s", "--config", ROOT / "etc/config.yaml") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "the configuration is good"
    assert [line.split()[0] for line in lines[1:]] == [
        "state", "model", "memory", "round", "tasks", "coordinator", "peers",
    ]  # fmt: skip


def test_check_as_json_is_what_the_design_promises(
    tmp_path: Path, public: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runs("check", "--json", "--state", tmp_path / "s") == 0
    good = json.loads(capsys.readouterr().out)
    assert (good["ok"], good["errors"]) == (True, [])
    assert good["plan"]["model"]["name"] == "embedded"
    assert 0 < good["plan"]["memory"]["predicted"] < good["plan"]["memory"]["limit"]
    (public / "config.yaml").write_text("training:\n  group_size: 1\n")
    assert runs("check", "--json", "--config", public / "config.yaml") == 78
    bad = json.loads(capsys.readouterr().out)
    assert bad["ok"] is False
    (error,) = bad["errors"]
    assert error["file"] == str(public / "config.yaml")
    assert (error["line"], error["key"], str(error["value"])) == (2, "training.group_size", "1")


def test_status_before_any_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs("status", "--state", tmp_path) == 1
    assert "no swarmd has run with this state directory" in capsys.readouterr().err


def test_status_of_a_stopped_node(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs("status", "--json", "--state", trained) == 0
    status: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert {
        "state", "phase", "round", "rounds_done", "peer_id", "name", "uptime_s", "model", "reward", "heldout",
        "signal_share", "tokens_per_s", "peers", "admitted", "rejected", "memory", "checkpoint", "restarts", "children",
    } <= status.keys()  # fmt: skip
    assert (status["state"], status["round"], status["rounds_done"]) == ("stopped", 2, 3)
    assert status["checkpoint"]["round"] == 2
    assert status["heldout"]["base"] is not None
    assert runs("status", "--state", trained) == 0
    assert capsys.readouterr().out.startswith("state       stopped")


def test_eval_scores_the_checkpoint_beside_the_base_model(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("eval", "--state", trained, "--config", config_of(trained), "--samples", 30)
    assert runs(*arguments, "--json") == 0
    written = capsys.readouterr()
    result = json.loads(written.out)
    assert {"heldout", "base", "samples", "seed", "datasets"} <= result.keys()
    assert (result["samples"], result["seed"], result["round"]) == (30, 0, 2)
    assert sum(scores["samples"] for scores in result["datasets"].values()) == 30
    assert all({"heldout", "base", "samples"} == scores.keys() for scores in result["datasets"].values())
    assert 0.05 < result["base"] < 0.95, "the embedded model answers some, and not all"
    assert "\r" not in written.err, "no progress bar where there is no terminal"
    assert runs(*arguments) == 0
    assert capsys.readouterr().out.startswith("held-out score over 30 tasks, after round 2\n")


def test_eval_without_a_checkpoint_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs("eval", "--state", tmp_path, "--samples", 8) == 78
    assert "holds no checkpoint yet; train first with `swarmd run`" in capsys.readouterr().err


def test_an_exported_model_is_the_checkpoint_in_the_hubs_format(trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "export"
    assert runs("model", "export", target, "--state", trained, "--config", config_of(trained)) == 0
    exported = AutoModelForCausalLM.from_pretrained(target).state_dict()
    checkpoint = newest(trained)
    assert checkpoint is not None
    for name, weight in load_file(checkpoint.path / "model.safetensors").items():
        assert torch.equal(weight, exported[name]), name
    assert AutoTokenizer.from_pretrained(target).chat_template


def test_an_export_overwrites_nothing(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("precious")
    assert runs("model", "export", tmp_path, "--state", trained) == 78
    assert "exists already and is no empty folder" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "precious"


def test_model_list_begins_with_the_embedded_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert runs("model", "list", "--json") == 0
    (first, *_) = json.loads(capsys.readouterr().out)
    assert first["name"] == "embedded"
    assert 0 < first["bytes"] <= 8_000_000


def test_a_model_that_cannot_be_fetched_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    ended = subprocess.run(
        [sys.executable, "-m", "swarmd", "model", "pull", "Qwen/Qwen3-0.6B"],
        capture_output=True, text=True, cwd=ROOT, env=environment({"HF_ENDPOINT": "http://127.0.0.1:9"}), check=False,
    )  # fmt: skip
    assert ended.returncode == 75, ended.stderr  # the network may come back
    assert "run `swarmd model pull Qwen/Qwen3-0.6B` again, which goes on where it stopped" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_import_env_writes_a_drop_in_that_loads(
    public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (public / "config.yaml").write_text("")
    monkeypatch.setenv("MODEL_NAME", "Qwen/Qwen3-0.6B")
    monkeypatch.setenv("HUGGINGFACE_ACCESS_TOKEN", "hf_" + "a" * 30)
    assert runs("import-env", "--config", public / "config.yaml", "--state", tmp_path / "s") == 0
    assert str(public / "config.d" / "40-imported.yaml") in capsys.readouterr().out
    written = (public / "config.d" / "40-imported.yaml").read_text()
    assert "Qwen/Qwen3-0.6B" in written
    assert "hf_aaa" not in written
    monkeypatch.delenv("MODEL_NAME")
    assert runs("check", "--json", "--config", public / "config.yaml", "--state", tmp_path / "s") == 0
    assert json.loads(capsys.readouterr().out)["plan"]["model"]["name"] == "Qwen/Qwen3-0.6B"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert "usage: swarmd" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [[], ["frobnicate"], ["run", "--rounds", "0"], ["run", "--rounds", "many"], ["eval", "--samples", "-1"]],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: swarmd" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    ended = subprocess.run(
        f"{sys.executable} -m swarmd model list | true", shell=True, capture_output=True, text=True, cwd=ROOT,
        env=environment(), check=False,
    )  # fmt: skip
    assert ended.stderr == ""
