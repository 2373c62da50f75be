"""Two installed nodes that form a swarm, made with the commands of the manual, under systemd: what talks to the swarm
may die or hang, and the unit goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.system.machine import Machine
from tests.system.service import Service

# Five are promised, on a machine that has time for it; this one may have much else to do. What it took is printed.
MENDED_SECONDS = 20.0
START_SECONDS = 120.0
USER = "swarmd"
NAMES = ("one", "two")
SMALL = {"tasks_per_round": 4, "group_size": 4, "evaluate_every": 1000, "evaluate_samples": 20}


@pytest.fixture(scope="module")
def swarm(machine: Machine) -> Iterator[list[Service]]:
    """A founder and one that joined with the founder's invite, both running."""
    services = [Service(machine, name) for name in NAMES]
    for number, service in enumerate(services):
        listen = f"/ip4/127.0.0.1/tcp/{38751 + number}"
        machine.write(service.config, json.dumps({"training": SMALL, "network": {"listen": [listen]}}))
    told = machine.run("swarmd", "found", "trial", "--round-seconds", "4", "--json", "--instance", "one").output
    invite = json.loads(told[told.index("{") : told.rindex("}") + 1])["invite"]
    machine.run("swarmd", "join", invite, "--instance", "two")
    for service in services:
        service.systemctl("start", seconds=START_SECONDS)
    yield services
    for service in services:
        service.systemctl("stop", check=False)


def child(service: Service, name: str) -> int:
    return int((service.status().get("children") or {}).get(name, {}).get("pid") or 0)


def trains_on_the_other(service: Service) -> bool:
    return int(service.status().get("peers", {}).get("used") or 0) >= 1


def test_two_commands_make_a_swarm_of_two_services(swarm: list[Service]) -> None:
    for service in swarm:
        service.machine.until(lambda s=service: trains_on_the_other(s), START_SECONDS, f"{service.unit} has a peer")
    assert len({service.status()["peer_id"] for service in swarm}) == 2


def test_the_key_and_the_drop_in_belong_to_the_right_user(swarm: list[Service]) -> None:
    machine = swarm[0].machine
    key = machine.run("stat", "-c", "%U %a", "/var/lib/swarmd/one/identity.key").output.split()
    drop_in = machine.run("stat", "-c", "%U:%G %a", "/etc/swarmd/one.d/50-swarm.yaml").output.split()
    assert (key, drop_in) == ([USER, "600"], ["root:swarmd", "640"])


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
@pytest.mark.parametrize("name", ["network", "p2pd"])
def test_what_talks_to_the_swarm_may_die_or_hang(name: str, signal: str, swarm: list[Service]) -> None:
    service = swarm[0]
    machine, main, peer_id = service.machine, service.main_pid, service.status()["peer_id"]
    machine.until(lambda: child(service, name), 60, f"there is a {name}")
    victim = child(service, name)
    before = time.monotonic()
    machine.signal(signal, victim)
    machine.until(lambda: child(service, name) not in (0, victim), 60, f"there is another {name}", every=0.1)
    took = time.monotonic() - before
    print(f"{name}, SIG{signal}: another one after {took:.1f} s")
    assert took <= MENDED_SECONDS
    done = service.rounds_done()
    machine.until(
        lambda: service.rounds_done() > done and trains_on_the_other(service), START_SECONDS, "it has its peer again"
    )
    assert service.main_pid == main and service.status()["peer_id"] == peer_id
    assert not any(line.startswith(f"{victim} ") for line in machine.processes(USER))


def test_none_of_it_was_a_restart_and_nothing_is_left(swarm: list[Service]) -> None:
    assert swarm[0].restarts()["events"] == []
    assert swarm[0].show("NRestarts") == "0"
    for service in swarm:
        service.systemctl("stop")
        assert service.show("Result") == "success"
    assert swarm[0].machine.processes(USER) == []
