"""Many nodes on one machine, each of which fails in its own way: systemd brings them back, and the account is right.

The nodes of all tests play at the same time, each its part in a thread, because most of it is waiting. Whose part is
over is stopped, because it would train on and take the cores from the others; two are left for the last test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.system.faults import SLOW_SECONDS
from tests.system.machine import Machine
from tests.system.service import FAULTY, SLOW, SMALL, Service, unexplained

PHASES = ("generate", "share", "admit", "train", "checkpoint", "evaluate")
CRASHES = 20
STOP_SECONDS = 15
LONGEST_BACKOFF = 300.0
START_TIMEOUT = 60  # for the interpreter and its libraries on a busy machine, and less than SLOW_SECONDS
SOON = "RestartSec=100ms"
AT_ONCE = 4  # parts that play together on two cores
# Seconds for a step, on a machine that is busy with the other nodes.
HANGING = {**FAULTY, "watchdog": dict.fromkeys((*PHASES, "coordinate"), 5)}
HANGING_IN_START = {**SLOW, "watchdog": {"start": 30}}


@dataclass(frozen=True)
class Crashed:
    """What systemd and the ledger said after the last crash, and how long a hand-made start then took."""

    restarts: int
    active_state: str
    status: str
    backoff: float
    seconds: float


@dataclass(frozen=True)
class Refused:
    """What systemd said about a node whose configuration is wrong, some seconds after its start."""

    active_state: str
    exit_status: str
    restarts: str
    status: str


@dataclass(frozen=True)
class Side:
    """One of two nodes beside each other: what it had at a moment when both were at work."""

    main_pid: int
    scorer: int
    rounds: int
    state: dict[str, Any]


def node(machine: Machine, name: str, settings: dict[str, dict[str, Any]], unit: str = "") -> Service:
    """A node of this name, configured and not started."""
    service = Service(machine, name)
    service.configure(settings, unit)
    return service


def started(service: Service) -> Service:
    """The node, when it has played a round."""
    service.systemctl("start")
    service.machine.until(lambda: service.rounds_done() > 0, 120, f"{service.name} has played a round")
    return service


def end(service: Service) -> None:
    """Stops a node whose part is over."""
    service.systemctl("stop")
    assert service.show("Result") == "success", f"{service.name} did not stop by itself"


def fail(service: Service, *commands: str) -> Service:
    """Gives one command after the other, after each of which the node comes back and plays; then it is stopped."""
    for command in commands:
        pid = service.main_pid
        service.command_fault(command)
        service.wait_for_restart(pid)
        service.machine.until(lambda: service.rounds_done() > 0, 120, f"{service.name} plays again after {command}")
    end(service)
    return service


def troubles(service: Service) -> list[dict[str, Any]]:
    """What `swarmd restarts` has of it, without the stop at the end of its part."""
    events: list[dict[str, Any]] = service.restarts()["events"]
    return events[:-1] if events and events[-1]["cause"] == "clean" else events


def crash(service: Service) -> Crashed:
    """Kills each process of the node as soon as it has noted its start."""
    machine = service.machine
    ledger = machine.path(f"{service.state}/restarts.json")

    def begun(count: int) -> int:
        # Its own file, not `systemctl show`: systemd knows a process before the node has begun.
        def pid() -> int | None:
            known = json.loads(ledger.read_text())["starts"] if ledger.exists() else 0
            return service.main_pid if known == count else None

        return machine.until(pid, 120, f"start {count} of {service.name}")

    service.systemctl("start", "--no-block")
    for number in range(1, CRASHES + 1):
        machine.signal("KILL", begun(number))
    begun(CRASHES + 1)
    status = machine.until(lambda: service.show("StatusText"), 60, "it says what it does")
    seen = (int(service.show("NRestarts")), service.show("ActiveState"), status)
    backoff = float(json.loads(ledger.read_text())["run"]["backoff_s"])
    # A person who starts it anew need not wait.
    return Crashed(*seen, backoff, service.systemctl("restart").seconds)


def misconfigure(service: Service) -> Refused:
    machine = service.machine
    assert service.systemctl("start", check=False).code != 0
    # Longer than RestartSec=, so that a loop would show.
    machine.run("sleep", "8")
    return Refused(*map(service.show, ("ActiveState", "ExecMainStatus", "NRestarts", "StatusText")))


def beside(one: Service, two: Service) -> tuple[Side, Side]:
    """Both at work at the same time, and then one stopped while the other goes on."""
    machine = one.machine
    before = [service.rounds_done() for service in (one, two)]

    def both_go_on() -> bool:
        return all(service.rounds_done() > rounds for service, rounds in zip((one, two), before, strict=True))

    machine.until(both_go_on, 120, "both nodes play")
    sides = (side(one), side(two))
    one.systemctl("stop")
    rounds = two.rounds_done()
    machine.until(lambda: two.rounds_done() > rounds, 120, "the other node plays on")
    assert two.main_pid == sides[1].main_pid
    return sides


def side(service: Service) -> Side:
    status = service.status()
    return Side(service.main_pid, status["children"]["scorer"]["pid"], status["rounds_done"], status)


def hang_in_start(service: Service) -> Service:
    """Lets it hang until it has come back once."""
    service.systemctl("start", "--no-block")
    service.machine.until(lambda: len(service.events("hung")) > 1, 240, f"{service.name} hangs, returns, and hangs")
    service.systemctl("stop")
    return service


def start_seconds(service: Service) -> float:
    """Waits until a start is over, and ends the node; how long the start has taken from its very beginning."""
    service.systemctl("start")
    began, active = (int(service.show(f"{event}TimestampMonotonic")) for event in ("InactiveExit", "ActiveEnter"))
    end(service)
    return (active - began) / 1e6


def stop_when_stuck(service: Service) -> float:
    """The seconds that it takes to stop a node that can react to nothing."""
    service.command_fault("seize train")
    service.machine.until(lambda: service.silence() > 5, 120, "it writes its status no more")
    return service.systemctl("stop").seconds


Played = dict[str, "Future[Any]"]


def hang_twice(service: Service, one: str, other: str) -> Service:
    """Not more often: after three quick failures in a row a node waits before it starts."""
    return fail(started(service), f"hang {one}", f"hang {other}")


@pytest.fixture(scope="module")
def played(machine: Machine) -> Iterator[Played]:
    """All parts, by name, the longest first; each ends with what its test looks at."""
    made = {
        name: node(machine, name, settings, unit)
        for name, settings, unit in (
            ("slow", SLOW, f"TimeoutStartSec={START_TIMEOUT}"),
            ("hanging-start", HANGING_IN_START, SOON),
            ("crashing", SMALL, SOON),
            *((f"hanging-{phase}", HANGING, SOON) for phase in PHASES[::2]),
            ("seized", FAULTY, f"{SOON}\nWatchdogSec=10s"),
            ("failing", FAULTY, SOON),
            ("stuck", FAULTY, SOON),
            ("misconfigured", {"training": {"group_size": 1}}, ""),
            ("one", SMALL, ""),
            ("two", SMALL, ""),
        )
    }
    # Alone, because the time that the interpreter needs for its libraries is not extended; and with all drop-ins
    # written, because systemd 252 forgets at every daemon-reload how far it has extended a start.
    made["slow"].systemctl("start", "--no-block")
    machine.until(lambda: made["slow"].show("StatusText"), START_TIMEOUT, "the slow node has begun")
    parts: dict[str, Callable[[], Any]] = {
        "slow": lambda: start_seconds(made["slow"]),
        "start": lambda: hang_in_start(made["hanging-start"]),
        "crashes": lambda: crash(made["crashing"]),
        "generate+share": lambda: hang_twice(made["hanging-generate"], "generate", "share"),
        "admit+train": lambda: hang_twice(made["hanging-admit"], "admit", "train"),
        "checkpoint+evaluate": lambda: hang_twice(made["hanging-checkpoint"], "checkpoint", "evaluate"),
        "seized": lambda: fail(started(made["seized"]), "seize train"),
        "failing": lambda: fail(started(made["failing"]), "raise train", "kill SEGV"),
        "stuck": lambda: stop_when_stuck(started(made["stuck"])),
        "refused": lambda: misconfigure(made["misconfigured"]),
        "beside": lambda: beside(started(made["one"]), started(made["two"])),
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(part) for name, part in parts.items()}


@pytest.mark.parametrize("phase", PHASES)
def test_a_hang_is_ended_by_the_watchdog_and_booked_with_its_phase(phase: str, played: Played) -> None:
    service: Service = next(future for name, future in played.items() if phase in name.split("+")).result()
    [stop] = [event for event in troubles(service) if event["phase"] == phase]
    assert stop["cause"] == "watchdog"
    assert stop["round"] is not None
    [hung] = [record for record in service.events("hung") if record["SWARMD_PHASE"] == phase]
    assert int(hung["SWARMD_ROUND"]) == stop["round"]
    assert_stacks(service, "in _hang")


def assert_stacks(service: Service, innermost: str) -> None:
    """The journal has the stack of the main thread, down to `innermost`, and of the threads beside it."""
    lines = [str(record.get("MESSAGE")) for record in service.journal()]
    assert "Fatal Python error: Aborted" in lines
    assert any(line.endswith(innermost) for line in lines), [line for line in lines if line.startswith("  File")]
    assert any(line.startswith("Thread 0x") or line.startswith("Current thread 0x") for line in lines)


def test_a_hang_that_keeps_the_interpreter_is_ended_by_systemd(played: Played) -> None:
    service: Service = played["seized"].result()
    [stop] = troubles(service)
    assert (stop["cause"], stop["phase"]) == ("watchdog", "train")
    # Nobody in the process could say a word: systemd noticed that there were none.
    assert service.events("hung") == []
    assert_stacks(service, "in _seize")


def test_a_hang_in_the_start_is_ended_by_the_watchdog(played: Played) -> None:
    service: Service = played["start"].result()
    assert {record["SWARMD_PHASE"] for record in service.events("hung")} == {"start"}
    causes = [event["cause"] for event in troubles(service)]
    assert causes[:1] == ["watchdog"] and service.events("ready") == []
    assert_stacks(service, "in slow_factory")


def test_a_start_that_gets_on_may_take_longer_than_its_timeout(played: Played, machine: Machine) -> None:
    seconds = played["slow"].result()
    print(f"active after {seconds:.1f} s, with TimeoutStartSec={START_TIMEOUT}")
    assert seconds > SLOW_SECONDS > START_TIMEOUT
    assert troubles(Service(machine, "slow")) == []


def test_a_fault_of_the_program_and_a_crash_are_told_apart(played: Played) -> None:
    service: Service = played["failing"].result()
    fault, crash = troubles(service)
    assert (fault["cause"], fault["exit_code"], fault["signal"], fault["phase"]) == ("crash", 75, None, "train")
    assert (crash["cause"], crash["exit_code"], crash["signal"]) == ("crash", None, "SEGV")
    assert any("a fault in phase train" in str(record["MESSAGE"]) for record in service.journal())


def test_a_node_that_reacts_to_nothing_is_stopped_in_time(played: Played, machine: Machine) -> None:
    seconds = played["stuck"].result()
    print(f"stopped after {seconds:.1f} s")
    assert seconds <= STOP_SECONDS
    [stop] = troubles(Service(machine, "stuck"))
    assert (stop["cause"], stop["phase"]) == ("timeout", "train")


def test_a_configuration_that_only_a_person_can_mend_stops_the_unit(played: Played, machine: Machine) -> None:
    refused: Refused = played["refused"].result()
    assert (refused.active_state, refused.exit_status, refused.restarts) == ("failed", "78", "0")
    assert "group_size" in refused.status
    [stop] = troubles(Service(machine, "misconfigured"))
    assert (stop["cause"], stop["exit_code"]) == ("config", 78)


def test_two_nodes_work_beside_each_other(played: Played) -> None:
    one, two = played["beside"].result()
    assert len({one.main_pid, two.main_pid, one.scorer, two.scorer}) == 4
    assert one.rounds > 0 and two.rounds > 0
    assert one.state["checkpoint"]["path"].startswith("/var/lib/swarmd/one/")
    assert two.state["checkpoint"]["path"].startswith("/var/lib/swarmd/two/")


def test_a_node_that_crashes_on_and_on_is_restarted_on_and_on_with_pauses(played: Played, machine: Machine) -> None:
    crashed: Crashed = played["crashes"].result()
    assert crashed.restarts >= CRASHES
    assert crashed.active_state == "activating"
    assert crashed.backoff == LONGEST_BACKOFF
    assert "wait" in crashed.status
    assert crashed.seconds < LONGEST_BACKOFF / 2
    told = Service(machine, "crashing").restarts()
    assert told["totals"]["crash"] == CRASHES
    assert {event["signal"] for event in told["events"] if event["cause"] == "crash"} == {"KILL"}


def test_the_journal_explains_what_went_wrong(played: Played, machine: Machine) -> None:
    for future in played.values():
        future.exception()  # waits
    assert unexplained(machine) == {}


def test_nothing_of_any_node_is_left_when_all_are_stopped(played: Played, machine: Machine) -> None:
    for future in played.values():
        future.exception()  # waits
    assert all(Service(machine, name).running() for name in ("crashing", "two")), "there is something to stop"
    stopped = machine.run("systemctl", "stop", "swarmd@*.service")
    print(f"stopped after {stopped.seconds:.1f} s")
    assert stopped.seconds <= STOP_SECONDS
    assert machine.processes("swarmd") == []
