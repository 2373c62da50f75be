"""Whatever stands in a file or a variable, the answer is a Config or ConfigErrors, and it comes soon."""

import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.config import Config, ConfigErrors, load_config
from swarmd.config.messages import allowed_at
from swarmd.config.secret_values import is_secret_name, secret_kind

KEYS = st.sampled_from(
    [*Config.model_fields, *Config.model_fields["training"].annotation.model_fields]  # type: ignore[union-attr]
    + ["listen", "limits", "record_bytes", "datasets", "name", "weight", "config", "peers", "token", "<<", ""]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["auto", "12G", "embedded", "solo", "/ip4/0.0.0.0/tcp/1", "/etc/x", "1e5", ".nan", "0x1"]
    ),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)
# Pieces that mean something in YAML, in any order.
PIECES = st.lists(
    st.sampled_from(
        [
            "training",
            "seed",
            ": ",
            ":",
            "- ",
            "\n",
            "\n  ",
            "\t",
            "[",
            "]",
            "{",
            "}",
            ",",
            "&a ",
            "*a",
            "!x ",
            "!!str ",
        ]
        + [
            "'",
            '"',
            "\\",
            "\\U0011ffff",
            "\\ud800",
            "#",
            "|\n",
            ">-\n",
            "? ",
            "---\n",
            "...\n",
            "%YAML 1.2\n",
            "%TAG ! x\n",
        ]
        + ["<<: ", "1", "~", "\x85", "\ufeff", "\u2028", "é", "\U0001f600", "0x", "1e999", "@", "`", "%"]
    ),
    max_size=30,
).map("".join)


def outcome(content: bytes) -> Config | ConfigErrors:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "config.yaml")
        path.write_bytes(content)
        try:
            return load_config(path, {})
        except ConfigErrors as errors:
            assert errors.problems
            return errors


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_load_or_are_refused(content: bytes) -> None:
    outcome(content)


@given(PIECES)
@settings(deadline=None, max_examples=300)
def test_any_pieces_of_yaml_load_or_are_refused(text: str) -> None:
    outcome(text.encode())


@given(st.dictionaries(KEYS, TREES, max_size=5))
@settings(deadline=None, max_examples=100)
def test_any_tree_loads_or_is_refused_with_a_place_for_each_problem(tree: dict[str, object]) -> None:
    found = outcome(yaml.safe_dump(tree, allow_unicode=True).encode(errors="replace"))
    if isinstance(found, ConfigErrors):
        for problem in found.problems:
            assert problem.line is not None and problem.file.endswith("config.yaml")
            assert "\n" not in str(problem)


@given(
    st.sampled_from(
        ["SWARMD_TRAINING__SEED", "SWARMD_SWARM__PEERS", "SWARMD_TASKS__DATASETS", "SWARMD_A__B__C"]
    ),
    PIECES,
)
@settings(deadline=None)
def test_any_variable_loads_or_is_refused_by_its_name(name: str, text: str) -> None:
    try:
        load_config(Path(__file__).parents[2] / "etc" / "presets" / "small-machine.yaml", {name: text})
    except ConfigErrors as errors:
        assert all(problem.file == f"environment {name}" for problem in errors.problems)


@given(st.text(alphabet=st.characters(codec=None, exclude_characters="\0"), max_size=40))
@settings(deadline=None)
def test_a_system_prompt_from_the_environment_is_any_text(text: str) -> None:
    config = load_config(
        Path(__file__).parents[2] / "etc" / "presets" / "gpu.yaml", {"SWARMD_TASKS__SYSTEM_PROMPT": text}
    )
    assert isinstance(config.tasks.system_prompt, str)


@pytest.mark.parametrize(
    "text",
    [
        "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
        "token is hf_FAKE_TOKEN_FOR_TEST.",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "sk-proj-abcdefghijklmnop",
        "0x" + "aB" * 32,
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blb",
        "https://user:word@host/",
        "https://token@host/",
        "https://x/v2/SECRETKEY",
        "https://x/v3/0123456789abcdef0123456789abcdef",
        "wss://x.quiknode.pro/0123456789abcdef0123456789abcdef01234567/",
        "https://x/rpc?apikey=abc",
        "swarmd:AAECAwQFBgcICQ",
    ],
)
def test_what_looks_like_a_secret_is_known(text: str) -> None:
    assert secret_kind(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "Qwen/Qwen2.5-0.5B-Instruct",
        "hf-internal-testing/tiny-random-gpt2",
        "0xFaD7C5e93f28257429569B854151A1B8DCD404c2",
        "ab" * 32,
        "https://gensyn-testnet.g.alchemy.com/public",
        "https://judge.example.org:8080/api/v1/questions",
        "http://localhost:3000/api/",
        "https://judge.example.org/v2/round2",
        "/ip4/203.0.113.7/tcp/38751/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        "Write me@example.org: answer in <answer> tags.",
        "/run/credentials/swarmd.service/hub",
        "http://[",
    ],
)
def test_what_is_no_secret_is_let_through(text: str) -> None:
    assert secret_kind(text) is None


def test_no_key_of_ours_is_taken_for_a_secret_unless_it_names_a_file() -> None:
    for section, field in Config.model_fields.items():
        for key in field.annotation.model_fields:  # type: ignore[union-attr]
            assert allowed_at((section, key))
            assert not is_secret_name(key) or key in ("max_new_tokens", "micro_batch_tokens")
