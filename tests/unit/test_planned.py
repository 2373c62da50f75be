"""`swarmd check` and `swarmd doctor` foresee the same: one limit, one prediction, the network counted in."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swarmd import doctor_machine
from swarmd.config import Config, load_config
from swarmd.doctor_look import Look
from swarmd.plan import make_plan
from swarmd.planned import python_path_of, unit_of
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
    (finding,) = doctor_machine.memory(look)
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
    with pytest.raises(ConfigurationError, match="need at least"):
        plan_of(service, limit + SWARM)


def test_python_finds_what_the_units_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says(tmp_path, monkeypatch, Environment='A=1 "PYTHONPATH=/srv/my tasks:/srv/more" B=2')
    assert python_path_of("swarmd.service") == ["/srv/my tasks", "/srv/more"]
    assert python_path_of(None) == []
