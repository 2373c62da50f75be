"""`swarmd check` and `swarmd doctor` foresee the same: one limit, one prediction, the network counted in."""

from __future__ import annotations

import os
import pwd
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swarmd.commands.plan import make_plan
from swarmd.config import Config, load_config
from swarmd.doctor import machine
from swarmd.doctor.look import Look
from swarmd.planned import python_path_of, unit_of, user_of
from swarmd.swarming import network_bytes
from swarmd.system.exits import ConfigurationError
from swarmd.system.installation import Installation, installation
from swarmd.system.memory import memory_limit

SWARM = "swarm: {id: abcdef12}\ncoordinator: {kind: clock}\n"
MIB = 1 << 20


@pytest.fixture
def service(tmp_path: Path) -> Installation:
    """The places of a service under tmp_path, with the default configuration."""
    (tmp_path / "config.yaml").write_text("")
    return replace(installation(None), config=tmp_path / "config.yaml", state=tmp_path / "state")


def says(folder: Path, monkeypatch: pytest.MonkeyPatch, **properties: str) -> None:
    """A service manager that knows these properties of every unit."""
    cases = "\n".join(f"*--property={name}\\ --value*) echo '{value}';;" for name, value in properties.items())
    program = folder / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncase "$*" in\n{cases}\nesac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def plan_of(service: Installation, text: str = "") -> dict[str, Any]:
    service.config.write_text(text)
    plan = make_plan(load_config(service.config, {}), service.config, service.state, service)
    memory: dict[str, Any] = plan["memory"]
    return memory


def found_by_doctor(service: Installation) -> str:
    look = Look(load_config(service.config, {}), service.config, service.state, {}, False, service, {})
    (finding,) = machine.memory(look)
    return finding.message


@pytest.mark.parametrize("text", ["", SWARM, "memory: {limit: 900M}\n"])
@pytest.mark.parametrize("unit_mib", [1000, None])
def test_check_and_doctor_name_the_same_limit_and_the_same_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: Installation, text: str, unit_mib: int | None
) -> None:
    says(tmp_path, monkeypatch, MemoryMax=str(unit_mib * MIB) if unit_mib else "infinity")
    memory = plan_of(service, text)
    told = found_by_doctor(service)
    limit = f"of {memory['limit'] // MIB} MiB ({memory['limit_source']})"
    assert f"will need {memory['predicted'] // MIB} MiB {limit}" in told
    if "limit" in text:
        assert (memory["limit"], memory["limit_source"]) == (900 * MIB, "memory.limit")
    elif unit_mib:
        assert (memory["limit"], memory["limit_source"]) == (1000 * MIB, "MemoryMax of swarmd.service")
    else:
        assert memory["limit"] == memory_limit().bytes


def test_the_limit_of_the_unit_is_that_of_its_own_node_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: Installation
) -> None:
    says(tmp_path, monkeypatch, MemoryMax=str(1000 * MIB))
    mine = tmp_path / "mine.yaml"
    mine.write_text("")
    assert unit_of(mine, None, service) is None and unit_of(service.config, tmp_path, service) is None
    assert unit_of(service.config, None, service) == unit_of(service.config, service.state, service) == service.unit
    memory = make_plan(Config(), mine, tmp_path / "other", service)["memory"]
    assert memory["limit"] == memory_limit().bytes


def test_in_a_swarm_the_network_process_and_p2pd_are_counted(service: Installation) -> None:
    alone, member = plan_of(service)["predicted"], plan_of(service, SWARM)["predicted"]
    counted = network_bytes(load_config(service.config, {}))
    assert member - alone == counted and 180 * MIB < counted < 300 * MIB
    assert network_bytes(Config()) == 0
    other = Config.model_validate({"swarm": {"id": "abcdef12"}, "coordinator": {"kind": "clock"},
                                   "tasks": {"environment": "somebodys.package:factory"}})  # fmt: skip
    assert 0 < network_bytes(other) < counted, "it makes no tasks of peers"


def test_a_node_that_fits_alone_and_not_with_the_network_is_refused_before_it_starts(service: Installation) -> None:
    limit = "memory: {limit: 900M}\n"
    plan_of(service, limit)
    beside = network_bytes(load_config(service.config, {})) or network_bytes(Config.model_validate(
        {"swarm": {"id": "abcdef12"}, "coordinator": {"kind": "clock"}}))  # fmt: skip
    kept = f"of which {beside >> 20} MiB are for the network process and p2pd"
    with pytest.raises(ConfigurationError, match="need at least") as refused:
        plan_of(service, limit + SWARM)
    assert kept in str(refused.value)
    with pytest.raises(ConfigurationError, match="model.name is auto") as refused:
        plan_of(service, limit + SWARM + "model: {name: auto}\n")
    assert kept in str(refused.value)
    with pytest.raises(ConfigurationError) as refused:
        plan_of(service, "memory: {limit: 500M}\n")
    assert "p2pd" not in str(refused.value), "it is in no swarm"


def test_python_finds_what_the_units_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says(tmp_path, monkeypatch, Environment='A=1 "PYTHONPATH=/srv/my tasks:/srv/more" B=2')
    assert python_path_of("swarmd.service") == ["/srv/my tasks", "/srv/more"]
    assert python_path_of(None) == []


def test_python_finds_what_the_units_files_of_variables_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, missing = tmp_path / "one", tmp_path / "my variables", tmp_path / "missing"
    says(tmp_path, monkeypatch, Environment="PYTHONPATH=/srv/zero",
         EnvironmentFiles=f"{one} (ignore_errors=no)\n{missing} (ignore_errors=yes)\n{two} (ignore_errors=yes)")
    one.write_text("# of ours\nA=1\n")
    two.write_text("; PYTHONPATH=/srv/never\n")
    assert python_path_of("swarmd.service") == ["/srv/zero"]
    one.write_text('A=1\nPYTHONPATH="/srv/my tasks:/srv/more"\n')
    assert python_path_of("swarmd.service") == ["/srv/my tasks", "/srv/more"], "a file comes before Environment="
    two.write_text("  PYTHONPATH = /srv/a:\\\n/srv/b  \n")
    assert python_path_of("swarmd.service") == ["/srv/a", "/srv/b"], "a later file comes before an earlier one"
    two.write_bytes(b"PYTHONPATH=\xff\n")
    assert python_path_of("swarmd.service") == ["/srv/my tasks", "/srv/more"]


NOBODY = pwd.getpwuid(65534)
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@only_root
def test_a_plug_in_is_looked_at_as_the_user_that_will_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says(tmp_path, monkeypatch, User=NOBODY.pw_name)
    state = tmp_path / "state"
    state.mkdir()
    assert user_of("swarmd.service", state) == NOBODY, "root's folder stands in for one that is not there yet"
    assert user_of("swarmd.service", tmp_path / "missing") == NOBODY
    assert user_of(None, state) is None, "root's own node"
    os.chown(state, 1, 1)
    assert user_of("swarmd.service", state) == user_of(None, state) == pwd.getpwuid(1)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert user_of("swarmd.service", state) is None


@only_root
def test_a_unit_whose_user_is_not_there_is_refused_and_not_looked_at_as_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(tmp_path, monkeypatch, User="no-such-user")
    with pytest.raises(ConfigurationError, match="swarmd.service runs as 'no-such-user', a user that this machine"):
        user_of("swarmd.service", tmp_path)


@only_root
def test_before_the_first_start_check_runs_no_plug_in_as_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: Installation
) -> None:
    tasks = tmp_path / "tasks"
    says(tmp_path, monkeypatch, User=NOBODY.pw_name, Environment=f"PYTHONPATH={tasks}")
    tasks.mkdir()
    (tasks / "theirs.py").write_text(
        "import os\nopen(__file__ + '.ran', 'w').write(str(os.geteuid()))\ndef make(settings, context): pass\n"
    )
    (tasks / "theirs.py").chmod(0o644)
    tasks.chmod(0o777)
    for folder in tasks.parents[:3]:  # pytest's own are closed as well
        folder.chmod(folder.stat().st_mode | 0o011)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "roots"))
    service.config.write_text("tasks: {environment: 'theirs:make'}\n")
    try:
        make_plan(load_config(service.config, {}), service.config, None, service)
    except ConfigurationError as error:
        # This interpreter lies where only root can read.
        assert f"user {NOBODY.pw_name}" in str(error) and not (tasks / "theirs.py.ran").exists()
    else:
        assert (tasks / "theirs.py.ran").read_text() == str(NOBODY.pw_uid)
