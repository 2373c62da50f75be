"""An environment is found by its name, and a name that leads nowhere says where it went wrong."""

from pathlib import Path

import pytest
from genrl.data import DataManager
from genrl.rewards import RewardManager
from reasoning_gym.utils import SYSTEM_PROMPTS

from swarmd.config.tasks import Tasks
from swarmd.system.exits import ConfigurationError
from swarmd.tasks.environment import Environment, EnvironmentContext, load_environment
from swarmd.tasks.reasoning import ReasoningData, resolve_system_prompt
from swarmd.tasks.scorer import Scorer

PLUG_IN = """
from swarmd.tasks.environment import Environment
from swarmd.tasks.mix import DatasetSpec, TaskMix
from swarmd.tasks.reasoning import ReasoningData
from swarmd.tasks.rewards import ReasoningRewards


def make(settings, context):
    mix = TaskMix([DatasetSpec("gcd")])
    data = ReasoningData(mix, context.swarm_id, context.node_id, context.tasks_per_round, None, 4, context.seed)
    return Environment("sums", data, ReasoningRewards(context.scorer), stages=2)


def make_nothing(settings, context):
    return None


def make_wrong_data(settings, context):
    made = make(settings, context)
    return Environment("sums", [], made.rewards)


def make_wrong_rewards(settings, context):
    made = make(settings, context)
    return Environment("sums", made.data, {})


def make_no_stages(settings, context):
    made = make(settings, context)
    return Environment("sums", made.data, made.rewards, stages=0)


def make_and_fail(settings, context):
    raise ZeroDivisionError("of the plug-in")


class Namespace:
    make = staticmethod(make)


NUMBER = 3
"""


def context() -> EnvironmentContext:
    return EnvironmentContext(
        swarm_id="swarm",
        node_id="node",
        tasks_per_round=4,
        group_size=2,
        scorer=Scorer(),  # a child starts with the first score, and none is asked for here
        evaluate_samples=8,
        seed=1,
        system_prompt="Think.",
    )


def load(name: str) -> Environment:
    return load_environment(name, Tasks(), context())


@pytest.fixture
def plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sums_for_swarmd.py").write_text(PLUG_IN)
    (tmp_path / "needs_another.py").write_text("import a_package_nobody_has\n")
    (tmp_path / "broken_syntax.py").write_text("def make(:\n")
    (tmp_path / "broken_import.py").write_text("from json import no_such_name\n")
    info = tmp_path / "sums_for_swarmd-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sums-for-swarmd\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[swarmd.environments]\nsums = sums_for_swarmd:make\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_reasoning_gym_is_the_environment_of_the_default_settings() -> None:
    environment = load(Tasks().environment)
    assert environment.name == "reasoning_gym"
    assert environment.stages == 1
    assert isinstance(environment.data, ReasoningData)
    assert isinstance(environment.data, DataManager)
    assert isinstance(environment.rewards, RewardManager)
    environment.data.begin_round(1)
    assert len(environment.data.get_round_data()) == 4
    assert len(environment.data.get_eval_data()) == 8


def test_settings_written_as_a_list_reach_the_mix() -> None:
    settings = Tasks.model_validate(
        {"datasets": [{"name": "gcd", "weight": 2.0}, {"name": "lcm", "config": {"max_value": 9}}]}
    )
    data = load_environment("reasoning_gym", settings, context()).data
    assert isinstance(data, ReasoningData)
    assert [(part.name, round(part.share, 3)) for part in data.mix.parts] == [("gcd", 0.667), ("lcm", 0.333)]


def test_a_broken_mix_is_refused_when_the_environment_is_loaded() -> None:
    settings = Tasks.model_validate({"datasets": [{"name": "gdc"}]})
    with pytest.raises(ConfigurationError) as refusal:
        load_environment("reasoning_gym", settings, context())
    assert str(refusal.value) == "tasks.datasets[0].name: reasoning-gym has no dataset 'gdc'; did you mean gcd?"


@pytest.mark.parametrize("name", ["sums", "sums_for_swarmd:make", "sums_for_swarmd:Namespace.make"])
def test_a_plug_in_is_found_by_entry_point_and_by_path(plug_ins: Path, name: str) -> None:
    environment = load(name)
    assert environment.name == "sums"
    assert environment.stages == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sum", "there is no environment 'sum' (did you mean sums?); those found here are reasoning_gym, sums"),
        ("nothing_like_it", "there is no environment 'nothing_like_it'; those found here are reasoning_gym, sums"),
        ("no_such_module:make", "'no_such_module:make': there is no module 'no_such_module' on Python's path"),
        ("json.no_such:make", "'json.no_such:make': there is no module 'json.no_such' on Python's path"),
        (
            "needs_another:make",
            "'needs_another:make': its module needs_another needs 'a_package_nobody_has', which is not installed",
        ),
        (
            "sums_for_swarmd:made",
            "'sums_for_swarmd:made': the module sums_for_swarmd has no 'made'",
        ),
        ("sums_for_swarmd:NUMBER", "'sums_for_swarmd:NUMBER': sums_for_swarmd:NUMBER is a int, not a function"),
        (
            "sums_for_swarmd:make_nothing",
            "'sums_for_swarmd:make_nothing': sums_for_swarmd:make_nothing returned a NoneType, not a "
            "swarmd.tasks.environment.Environment",
        ),
        (
            "sums_for_swarmd:make_wrong_data",
            "'sums_for_swarmd:make_wrong_data': its data is a list, not a genrl.data.DataManager",
        ),
        (
            "sums_for_swarmd:make_wrong_rewards",
            "'sums_for_swarmd:make_wrong_rewards': its rewards is a dict, not a genrl.rewards.RewardManager",
        ),
        (
            "sums_for_swarmd:make_no_stages",
            "'sums_for_swarmd:make_no_stages': it has 0 stages, and needs at least one",
        ),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(plug_ins: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        load(name)
    assert str(refusal.value) == f"tasks.environment: {message}"


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("broken_syntax:make", "'broken_syntax:make': its module broken_syntax cannot be imported: invalid syntax"),
        (
            "broken_import:make",
            "'broken_import:make': its module broken_import cannot be imported: cannot import name 'no_such_name'",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_says_why(plug_ins: Path, name: str, beginning: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        load(name)
    assert str(refusal.value).startswith(f"tasks.environment: {beginning}")


def test_what_a_plug_in_raises_itself_goes_through(plug_ins: Path) -> None:
    with pytest.raises(ZeroDivisionError, match="of the plug-in"):
        load("sums_for_swarmd:make_and_fail")


def test_the_system_prompt_is_none_for_the_embedded_model_and_asks_others_for_answer_tags() -> None:
    assert resolve_system_prompt("auto", embedded=True) is None
    assert resolve_system_prompt("auto", embedded=False) == SYSTEM_PROMPTS["default"]
    assert "<answer>" in SYSTEM_PROMPTS["default"]
    assert resolve_system_prompt("Be short.", embedded=True) == "Be short."
    assert resolve_system_prompt("", embedded=False) is None
