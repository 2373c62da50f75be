"""The package changed under nodes that run: upgraded, robbed of its credentials' folder, and removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from swarmd import __version__
from tests.system.machine import Machine
from tests.system.repacked import keep_bundle, repacked
from tests.system.service import SMALL, Service

NEWER = "99"
USER = "swarmd"
CREDENTIALS = "/etc/swarmd/credentials"
# While it is there, no start of the instance gets on.
HOLD = "/run/hold"
HELD = f"ExecStartPre=/bin/sh -c 'while [ -e {HOLD} ]; do sleep 0.2; done'"


@dataclass(frozen=True)
class Upgraded:
    """The nodes of a machine that has been upgraded under them, and how they were before and when apt was done."""

    main: Service
    held: Service
    stopped: Service
    broken: Service
    pid: int
    rounds: int
    held_pid: int
    held_state: str
    said: str


def playing(service: Service) -> Service:
    service.machine.until(lambda: service.rounds_done() > 1, 120, f"{service.unit} has played two rounds")
    return service


@pytest.fixture(scope="module")
def upgraded(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    """Before the upgrade all but one node run; while apt is at work, one cannot start, and another has a mistake in
    its configuration."""
    package = repacked(NEWER, tmp_path_factory.mktemp("newer"), runs=True)
    main, held, stopped, broken = (Service(machine, name) for name in (None, "held", "stopped", "broken"))
    for service in (main, held, stopped, broken):
        service.configure(SMALL, HELD if service is held else "")
    for service in (main, held, stopped, broken):
        service.systemctl("start", "--no-block")
    stopped = playing(stopped)
    stopped.systemctl("stop")
    for service in (main, held, broken):
        playing(service)
    machine.write(broken.config, '{"training": {"group_size": 1}}')
    machine.write(HOLD, "")
    pid, rounds, held_pid = main.main_pid, main.rounds_done(), held.main_pid

    said = upgrade(machine, package)

    state = held.show("ActiveState")
    machine.path(HOLD).unlink()
    yield Upgraded(main, held, stopped, broken, pid, rounds, held_pid, state, said)


def upgrade(machine: Machine, package: Path) -> str:
    """`apt install` of another version, as unattended-upgrades would do it; what it said."""
    keep_bundle(machine)
    inside = "/tmp/newer.deb"
    shutil.copyfile(package, machine.path(inside))
    machine.path(inside).chmod(0o644)
    options = ["-o", "Dpkg::Options::=--force-confold"]
    done = machine.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", *options, inside)
    print(f"upgraded after {done.seconds:.1f} s")
    return done.output


def test_the_running_node_goes_on_with_the_new_version(upgraded: Upgraded) -> None:
    main = upgraded.main
    main.wait_for_restart(upgraded.pid)
    playing(main)
    started = main.events("started")
    assert [record["SWARMD_VERSION"] for record in started] == [__version__, NEWER], upgraded.said
    assert started[-1]["SWARMD_PREVIOUS_CAUSE"] == "upgrade"


def test_the_training_goes_on_where_it_was(upgraded: Upgraded) -> None:
    upgraded.main.wait_for_restart(upgraded.pid)
    [restored] = upgraded.main.events("checkpoint_restored")
    [finished, *_] = (
        record for record in upgraded.main.events("round_finished") if int(record["_PID"]) != upgraded.pid
    )
    before = [r for r in upgraded.main.events("round_finished") if int(r["_PID"]) == upgraded.pid]
    assert len(before) >= upgraded.rounds
    assert int(restored["SWARMD_ROUND"]) == int(before[-1]["SWARMD_ROUND"]) < int(finished["SWARMD_ROUND"])


def test_the_account_calls_the_stop_an_upgrade(upgraded: Upgraded) -> None:
    upgraded.main.wait_for_restart(upgraded.pid)
    told = upgraded.main.restarts()
    [stop] = told["events"]
    assert (stop["cause"], stop["exit_code"]) == ("upgrade", 0)
    assert told["totals"] == {"upgrade": 1}


def test_apt_does_not_wait_for_a_node_that_starts(upgraded: Upgraded) -> None:
    assert upgraded.held_state in ("deactivating", "activating")
    upgraded.held.wait_for_restart(upgraded.held_pid)
    assert [stop["cause"] for stop in upgraded.held.restarts()["events"]] == ["upgrade"]


def test_what_the_administrator_stopped_stays_stopped(upgraded: Upgraded) -> None:
    assert upgraded.stopped.show("ActiveState") == "inactive"
    assert [record["SWARMD_VERSION"] for record in upgraded.stopped.events("started")] == [__version__]


def test_a_node_that_cannot_start_any_more_does_not_fail_the_upgrade(upgraded: Upgraded) -> None:
    broken = upgraded.broken
    broken.machine.until(lambda: broken.show("ActiveState") == "failed", 120, "it has refused its configuration")
    assert "group_size" in broken.show("StatusText")
    state = broken.machine.run("dpkg-query", "--show", "--showformat=${Status} ${Version}", "swarmd").output
    assert state == f"install ok installed {NEWER}"


def test_a_policy_that_forbids_restarts_is_obeyed(upgraded: Upgraded, machine: Machine) -> None:
    pid = upgraded.main.wait_for_restart(upgraded.pid)
    machine.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
    said = machine.run("/var/lib/dpkg/info/swarmd.postinst", "configure", NEWER).output
    machine.path("/usr/sbin/policy-rc.d").unlink()
    assert "policy-rc.d forbids to restart swarmd.service" in said
    assert "policy-rc.d forbids to restart swarmd@held.service" in said
    assert upgraded.main.main_pid == pid and upgraded.main.running()


def test_a_start_without_the_folder_of_credentials_fails_once_and_says_why(
    upgraded: Upgraded, machine: Machine
) -> None:
    machine.run("mv", CREDENTIALS, f"{CREDENTIALS}.away")
    try:
        assert upgraded.stopped.systemctl("start", check=False).code != 0
        machine.run("sleep", "8")  # longer than RestartSec=, so that a loop would show
        assert [upgraded.stopped.show(name) for name in ("ActiveState", "NRestarts")] == ["failed", "0"]
        status = upgraded.stopped.systemctl("status", "--no-pager", check=False).output
        assert "status=243/CREDENTIALS" in status
    finally:
        machine.run("mv", f"{CREDENTIALS}.away", CREDENTIALS)
    last = upgraded.stopped.restarts()["events"][-1]
    assert last["exit_code"] == 243


def test_removing_the_package_stops_every_node_and_keeps_the_state(upgraded: Upgraded, machine: Machine) -> None:
    for service in (upgraded.main, upgraded.held):
        playing(service)
    checkpoints = [machine.path(service.state) / "checkpoints" for service in (upgraded.main, upgraded.held)]
    machine.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "remove", "--yes", "swarmd")
    assert machine.processes(USER) == []
    listed = machine.run("systemctl", "list-units", "--plain", "--no-legend", "--state=active", "swarmd*").output
    assert [line for line in listed.splitlines() if ".service" in line] == []
    for folder in checkpoints:
        assert list(folder.iterdir()), f"{folder} is empty"
