"""The service as it is installed: started, watched, reloaded, robbed of its processes, and stopped."""

import json
import re
from collections.abc import Callable, Iterator

import pytest

from tests.system.machine import Machine
from tests.system.service import Service, unexplained

START_SECONDS = 60
STOP_SECONDS = 15
USER = "swarmd"
AS_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
DROP_IN = "/etc/swarmd/config.d/80-test.yaml"


@pytest.fixture(scope="module")
def service(machine: Machine) -> Service:
    return Service(machine)


@pytest.fixture
def running(service: Service) -> Iterator[Service]:
    """Started, if it is not, with what was wrong in the configuration removed."""
    service.machine.path(DROP_IN).unlink(missing_ok=True)
    service.systemctl("start", seconds=START_SECONDS)
    yield service


def main_process(service: Service) -> int:
    return service.main_pid


def scorer(service: Service) -> int:
    return int(service.status().get("children", {}).get("scorer", {}).get("pid") or 0)


# Each process of the node, what finds its id, and whether its death is also the main process's.
PROCESSES: dict[str, tuple[Callable[[Service], int], bool]] = {
    "main": (main_process, True),
    "scorer": (scorer, False),
}


def test_it_starts_with_the_machine(service: Service) -> None:
    assert service.systemctl("is-enabled").output.strip() == "enabled"


def test_the_first_start_is_ready_within_a_minute(service: Service) -> None:
    started = service.systemctl("start", seconds=START_SECONDS)
    print(f"active after {started.seconds:.1f} s")
    assert service.running()
    [ready] = service.events("ready")
    assert ready["MESSAGE_ID"] and ready["_TRANSPORT"] == "journal"


def test_its_status_is_a_line_that_lives(running: Service) -> None:
    def line() -> str | None:
        told = running.systemctl("status", "--no-pager").output
        found = re.search(r'^ *Status: "(.*round \d+.*reward.*memory.*)"$', told, re.MULTILINE)
        return found[1] if found else None

    first = running.machine.until(line, 60, "systemctl status tells of a round, its reward, and the memory")
    running.machine.until(lambda: line() not in (None, first), 60, "the line changes")


def test_everybody_on_the_machine_may_see_the_status(running: Service) -> None:
    running.machine.until(lambda: running.rounds_done() > 0, 60, "a round is done")
    told = running.machine.run(*AS_NOBODY, "swarmd", "status", "--json")
    assert json.loads(told.output)["state"] == "training"


def test_a_good_configuration_is_taken_over_without_a_restart(running: Service) -> None:
    pid = running.main_pid
    running.machine.write(DROP_IN, "training: {temperature: 0.9}\n")
    running.systemctl("reload")
    [reloaded] = running.machine.until(lambda: running.events("reloaded"), 60, "the node has read it")
    assert "training.temperature" in reloaded["MESSAGE"]
    assert running.main_pid == pid and running.running()


def test_a_bad_configuration_fails_the_reload_and_the_node_goes_on(running: Service) -> None:
    pid = running.main_pid
    running.machine.write(DROP_IN, "training: {temprature: 0.9}\n")
    done = running.systemctl("reload", check=False)
    assert done.code != 0
    assert any("training.temprature" in record["MESSAGE"] for record in running.journal())
    assert running.main_pid == pid and running.running()

    # And where somebody signals without asking `swarmd check` first.
    running.systemctl("kill", "--signal=HUP", "--kill-whom=main")
    [refused] = running.machine.until(lambda: running.events("reload_refused"), 60, "the node has refused it")
    assert "training.temprature" in refused["MESSAGE"] and DROP_IN in refused["MESSAGE"]
    assert running.main_pid == pid and running.running()
    rounds = running.rounds_done()
    running.machine.until(lambda: running.rounds_done() > rounds, 60, "it trains on")


def test_a_credential_reaches_the_node_and_nobody_else(running: Service) -> None:
    running.machine.write("/etc/swarmd/credentials/hub-token", "not a real one", 0o600)
    running.systemctl("restart")
    folder = "/run/credentials/swarmd.service"
    assert running.machine.path(f"{folder}/swarmd_hub-token").read_text() == "not a real one"
    as_the_node = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    assert running.machine.run(*as_the_node, "cat", f"{folder}/swarmd_hub-token").output == "not a real one"
    assert running.machine.run(*AS_NOBODY, "cat", f"{folder}/swarmd_hub-token", check=False).code != 0


def test_nothing_that_the_node_can_write_can_be_run(running: Service) -> None:
    places = "/tmp /var/tmp /dev/shm /var/lib/swarmd /var/cache/swarmd /run/swarmd"
    script = f"for place in {places}; do cp /bin/true $place/test && $place/test; echo $place $?; rm $place/test; done"
    # Where the node sees the world, with more rights than it has.
    inside = ["nsenter", f"--target={running.main_pid}", "--mount", "sh", "-c", script]
    told = running.machine.run(*inside, check=False).output.splitlines()
    assert [line for line in told if line.startswith("/")] == [f"{place} 126" for place in places.split()], told


def test_the_kernel_holds_what_the_unit_promises(running: Service) -> None:
    told = running.machine.path(f"/proc/{running.main_pid}/status").read_text()
    for line in ("CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in told, told


@pytest.mark.parametrize("name", PROCESSES)
def test_kill_9_of_a_process_brings_it_back(name: str, running: Service) -> None:
    find, is_main = PROCESSES[name]
    machine = running.machine
    machine.until(lambda: running.rounds_done() > 1 and find(running), 60, "rounds are done")
    victim, main, before = find(running), running.main_pid, running.status()
    machine.signal("KILL", victim)
    machine.until(lambda: find(running) not in (0, victim), 60, f"there is another {name}")
    machine.until(running.running, 60, "the service is active")
    if is_main:
        machine.until(lambda: running.rounds_done() > 0, 60, "it trains on")
        assert running.status()["round"] >= before["round"]
        last = running.restarts()["events"][-1]
        assert (last["cause"], last["signal"]) == ("crash", "KILL")
        assert last["round"] >= before["round"] and last["phase"]
    else:
        assert running.main_pid == main
        assert any(record["SWARMD_CHILD"] == name for record in running.events("child_replaced"))
        done = running.rounds_done()
        machine.until(lambda: running.rounds_done() > done, 60, "it trains on")


def test_a_scorer_that_hangs_is_replaced(running: Service) -> None:
    running.machine.until(lambda: scorer(running), 60, "there is a scorer")
    stopped, main = scorer(running), running.main_pid
    running.machine.signal("STOP", stopped)
    running.machine.until(lambda: scorer(running) not in (0, stopped), 120, "there is another scorer")
    assert running.main_pid == main
    assert not any(line.startswith(f"{stopped} ") for line in running.machine.processes(USER))


def test_it_stops_in_time_and_leaves_nothing_behind(running: Service) -> None:
    machine = running.machine
    machine.until(lambda: running.rounds_done() > 0, 60, "a round is done")
    stopped = running.systemctl("stop")
    print(f"stopped after {stopped.seconds:.1f} s")
    assert stopped.seconds <= STOP_SECONDS
    assert running.show("Result") == "success"
    assert machine.processes(USER) == []
    assert running.status()["state"] == "stopped"
    last = running.restarts()["events"][-1]
    assert (last["cause"], last["exit_code"]) == ("clean", 0)


def test_the_journal_explains_every_event(running: Service) -> None:
    seen = {record.get("SWARMD_EVENT") for record in running.journal()}
    assert {"started", "ready", "round_finished", "stopped", "service_stopped", "reloaded"} <= seen
    assert {"reload_refused", "child_replaced", "evaluated", "checkpoint_restored"} <= seen
    assert unexplained(running.machine) == {}
