"""Files, drop-ins and environment lie over each other as the handbook says."""

from pathlib import Path

import pytest

from swarmd.config import Config, ConfigErrors, load_config, loading, secret_path

PEER = "/ip4/203.0.113.7/tcp/38751/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"


def written(directory: Path, **files: str) -> Path:
    """`main` goes into config.yaml, the others are drop-ins in name order."""
    for name, text in files.items():
        path = directory / ("config.yaml" if name == "main" else f"config.d/{name}.yaml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return directory / "config.yaml"


def test_maps_merge_by_key_and_lists_are_replaced(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        main="training: {group_size: 4, seed: 1}\nnetwork: {listen: [/ip4/0.0.0.0/tcp/1, /ip6/::/tcp/2]}\n",
        a="training: {group_size: 6}\nnetwork: {listen: [/ip6/::/tcp/3], limits: {record_bytes: 2048}}\n",
    )
    config = load_config(path, {})
    assert (config.training.group_size, config.training.seed) == (6, 1)
    assert config.network.listen == ("/ip6/::/tcp/3",)
    assert (config.network.limits.record_bytes, config.network.limits.peers_per_round) == (2048, 64)


def test_drop_ins_count_in_name_order_and_the_environment_last(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        main="training: {seed: 0, group_size: 2}\n",
        b="training: {seed: 2}\n",
        a="training: {seed: 1, group_size: 3}\n",
    )
    assert load_config(path, {}).training.seed == 2
    assert load_config(path, {}).training.group_size == 3
    assert load_config(path, {"SWARMD_TRAINING__SEED": "3"}).training.seed == 3


def test_a_hidden_or_foreign_file_beside_the_drop_ins_is_left_alone(tmp_path: Path) -> None:
    path = written(tmp_path, main="", a="training: {seed: 1}\n")
    for name in (".a.yaml.swp", ".b.yaml", "a.yaml.dpkg-new", "README"):
        (tmp_path / "config.d" / name).write_text("{{{")
    assert load_config(path, {}).training.seed == 1


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "null\n", "\ufeff", "training:\nnetwork:\n  limits:\n"]
)
def test_an_empty_file_and_an_empty_section_mean_the_defaults(tmp_path: Path, text: str) -> None:
    assert load_config(written(tmp_path, main=text), {}) == Config()


def test_a_file_with_another_name_has_drop_ins_of_its_own_beside_the_common_ones(tmp_path: Path) -> None:
    common, own = tmp_path / "config.d", tmp_path / "second.d"
    common.mkdir()
    own.mkdir()
    (tmp_path / "config.yaml").touch()
    (tmp_path / "second.yaml").write_text("training: {seed: 0, group_size: 2}\n")
    (common / "20-a.yaml").write_text("training: {seed: 1, group_size: 3}\n")
    (own / "10-a.yaml").write_text("training: {seed: 2, warmup_rounds: 5}\n")
    training = load_config(tmp_path / "second.yaml", {}).training
    assert (training.seed, training.group_size, training.warmup_rounds) == (1, 3, 5)  # one order, by name
    (own / "20-a.yaml").write_text("training: {seed: 3}\n")
    training = load_config(tmp_path / "second.yaml", {}).training
    assert (training.seed, training.group_size) == (3, 2)  # in place of the common one
    assert load_config(tmp_path / "config.yaml", {}).training.seed == 1
    (own / "30.yml").touch()
    with pytest.raises(ConfigErrors, match=r"second\.d/30\.yml: is not read"):
        load_config(tmp_path / "second.yaml", {})


def test_an_empty_section_in_a_drop_in_does_not_wipe_what_is_below(tmp_path: Path) -> None:
    path = written(
        tmp_path, main="training: {seed: 7}\n", a="training:\n  # group_size: 4\nnetwork:\n  limits:\n"
    )
    assert load_config(path, {}).training.seed == 7


def test_without_a_default_file_the_defaults_and_the_drop_ins_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "DEFAULT_PATH", tmp_path / "config.yaml")
    assert load_config(None, {}) == Config()
    written(tmp_path, swarm="log: {level: debug}\n")
    assert load_config(None, {}).log.level == "debug"
    written(tmp_path, main="training: {seed: 5}\n")
    assert load_config(None, {}).training.seed == 5


def test_a_default_file_that_points_nowhere_is_a_mistake_and_not_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "DEFAULT_PATH", tmp_path / "config.yaml")
    (tmp_path / "config.yaml").symlink_to("gone.yaml")
    with pytest.raises(ConfigErrors, match="there is no such file"):
        load_config(None, {})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("SWARMD_TRAINING__LEARNING_RATE", "1e-5", 1e-5),
        ("SWARMD_TRAINING__LEARNING_RATE", "auto", "auto"),
        ("SWARMD_TRAINING__OWN_SAMPLES", "null", None),
        ("SWARMD_NETWORK__RELAY", "true", True),
        ("SWARMD_NETWORK__LIMITS__RECORD_BYTES", "4096", 4096),
        ("SWARMD_SWARM__ID", "00112233", "00112233"),
        ("SWARMD_SWARM__ID", "12345e67", "12345e67"),
        ("SWARMD_SWARM__NAME", "no", "no"),
        ("SWARMD_NETWORK__LISTEN", "[]", ()),
        ("SWARMD_NETWORK__LISTEN", "[/ip4/127.0.0.1/tcp/0]", ("/ip4/127.0.0.1/tcp/0",)),
        (
            "SWARMD_TASKS__SYSTEM_PROMPT",
            "Answer briefly: use <answer> tags",
            "Answer briefly: use <answer> tags",
        ),
        ("SWARMD_TASKS__SYSTEM_PROMPT", "Say: a: b", "Say: a: b"),
        ("SWARMD_TASKS__SYSTEM_PROMPT", "[x] is a task", "[x] is a task"),
        ("SWARMD_MEMORY__LIMIT", "1.5G", 1536 * 1024**2),
        ("SWARMD_MEMORY__LIMIT", "536870912", 512 * 1024**2),
        ("SWARMD_MONITOR__LISTEN", "null", None),
        ("SWARMD_MONITOR__LISTEN", "[::1]:9470", "[::1]:9470"),
    ],
)
def test_a_variable_sets_what_the_same_text_in_a_file_would(name: str, text: str, value: object) -> None:
    found: object = _loaded({name: text})
    for part in name.removeprefix("SWARMD_").lower().split("__"):
        found = getattr(found, part)
    assert found == value


def _loaded(environ: dict[str, str]) -> Config:
    return load_config(Path(__file__).parents[2] / "etc" / "config.yaml", environ)


@pytest.mark.parametrize(
    "name", ["SWARMD_MONITOR_PORT", "SWARMD_MONITOR_PORT_9470_TCP", "SWARMD_ROUND", "SWARMD"]
)
def test_variables_that_others_set_are_left_alone(name: str) -> None:
    assert _loaded({name: "tcp://10.0.0.1:9470", "PATH": "/bin"}) == Config()


def test_words_mean_what_yaml_1_2_says(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        main="swarm: {id: 00112233, name: on}\ntraining: {learning_rate: 1e-5, seed: 0x10, temperature: 1}\n",
    )
    config = load_config(path, {})
    assert (config.swarm.id, config.swarm.name) == ("00112233", "on")
    assert (config.training.learning_rate, config.training.seed, config.training.temperature) == (
        1e-5,
        16,
        1.0,
    )


def test_anchors_may_be_used_within_reason(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        main="tasks:\n  datasets:\n  - {name: a, config: &c {n: [1, 2]}}\n  - {name: b, config: *c}\n",
    )
    datasets = load_config(path, {}).tasks.datasets
    assert not isinstance(datasets, str)
    assert [dataset.config for dataset in datasets] == [{"n": [1, 2]}] * 2


def test_a_swarm_with_everything_loads(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        main=f"""
swarm: {{name: a-b.c, id: abcdef0123456789, peers: [{PEER}, {PEER}/p2p-circuit/p2p/{PEER[-46:]}],
        role: bootnode, secret_file: "credential:swarm"}}
network: {{listen: [/ip6/::/tcp/1, /ip4/0.0.0.0/tcp/2], announce: [/dns4/node.example.org/tcp/1]}}
model: {{name: ./models/mine}}
coordinator: {{kind: wallet, contract: 0xFaD7C5e93f28257429569B854151A1B8DCD404c2, rpc_url_file: /etc/rpc,
              key_file: /etc/key}}
market: {{enabled: true, contract: 0xFaD7C5e93f28257429569B854151A1B8DCD404c2}}
judge: {{url: "https://judge.example.org:8080/v1/questions"}}
hub: {{push_every: 10, repo: me/mine, token_file: /run/credentials/swarmd.service/hub}}
""",
    )
    config = load_config(path, {})
    assert config.swarm.role == "bootnode"
    assert config.coordinator.kind == "wallet"


def test_a_credential_is_found_where_systemd_puts_it(tmp_path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": "/run/credentials/swarmd.service"}
    assert secret_path("credential:hub", environ) == Path("/run/credentials/swarmd.service/hub")
    assert secret_path("/etc/swarmd/token", {}) == Path("/etc/swarmd/token")
    with pytest.raises(ConfigErrors, match="LoadCredential=hub:PATH"):
        secret_path("credential:hub", {})
