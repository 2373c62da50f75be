"""What the scale bench makes of its measurements: figures with their error, and no ratio of what cannot be compared."""

import dataclasses
import json
import os
import subprocess
import threading
import time
from collections.abc import Sequence

import pytest

from tests.bench import scale_memory
from tests.bench.scale_costs import children, cpu_seconds
from tests.bench.scale_figures import Figure, cpu, of_a_round, ratio, without_idle
from tests.bench.scale_measured import Cost, Measured, Plan, planned, pooled, read
from tests.bench.scale_memory import OutOfMemory, check_memory, needed_gib, sleep_until
from tests.bench.scale_report import report

PLAN = Plan(
    rounds=2, warm_up=1, spread=0.3, patience=1.0, round_seconds=60.0, idle_seconds=120.0, per_process=10, gogc=0
)


def measured(scheme: str, nodes: int, plan: Plan = PLAN, cpus: Sequence[float] = (1.0, 1.2)) -> Measured:
    """cpus: of a node in each round, beside 0.2 CPU-seconds of idling in a minute."""
    result = planned(scheme, nodes, plan)
    result.rounds, result.seconds = len(cpus), 60.0 * len(cpus)
    result.gathers, result.found, result.stored, result.loads = [0.1] * nodes, [16] * nodes, [True] * nodes, [1.0]
    result.publishing = [Cost(cpu * nodes / 4, 1000) for cpu in cpus]
    result.gathering = [Cost(cpu * nodes / 2, 2000) for cpu in cpus]
    result.resting = [Cost(cpu * nodes / 4, 500) for cpu in cpus]
    result.idle_seconds, result.idle = 30.0, [Cost(0.09 * nodes, 100), Cost(0.11 * nodes, 100)]
    result.resident = result.daemons = 100.0
    return result


def test_a_round_costs_all_its_parts_with_an_error_from_how_rounds_differ():
    figure = of_a_round(measured("swarmd", 40), cpu)
    assert (figure.value, figure.error) == pytest.approx((1.1, 0.1))


def test_idle_time_is_taken_off_with_an_error_of_its_own():
    figure = without_idle(measured("swarmd", 40), cpu)
    assert figure is not None
    assert (figure.value, figure.error) == pytest.approx((0.9, (0.1**2 + 0.02**2) ** 0.5))


def test_a_ratio_has_the_relative_errors_of_both_together():
    figure = Figure(2.0, 0.2) / Figure(1.0, 0.1)
    assert (figure.value, figure.error) == pytest.approx((2.0, 2.0 * (2 * 0.1**2) ** 0.5))


def test_there_is_no_ratio_to_what_cannot_be_told_from_nothing():
    many, few = measured("swarmd", 160), measured("swarmd", 40, cpus=(0.1, 0.2))
    assert ratio("CPU without idle", many, few) == ratio("CPU without idle", few, many) == "?"


@pytest.mark.parametrize("change", [{"round_seconds": 90.0}, {"gogc": 40}, {"per_process": 20}, {"spread": 0.2}])
def test_figures_under_different_conditions_are_told_apart_and_not_compared(change):
    few, many = measured("stock", 40), measured("stock", 160, dataclasses.replace(PLAN, **change))
    with pytest.raises(ValueError):
        ratio("CPU", many, few)
    text = report([few, many], "")
    assert "| ratio |" not in text and "under different conditions only" in text
    assert "40 to 160 nodes |" in report([few, many, measured("stock", 160)], "")


def test_gogc_is_told_in_its_row_and_is_none_of_ours():
    plan = dataclasses.replace(PLAN, gogc=40)
    text = report([measured("stock", 40, plan), measured("swarmd", 40, plan)], "")
    assert "| 40 | GenRL's scheme, GOGC=40 |" in text and "| 40 | swarmd |" in text and "÷" not in text


def test_rounds_that_last_as_long_as_they_take_are_not_compared_between_sizes():
    plan = dataclasses.replace(PLAN, round_seconds=0.0)
    few, many = measured("swarmd", 40, plan), measured("swarmd", 160, plan)
    assert ratio("CPU", many, few) == ratio("bytes", many, few) == "-"
    assert ratio("CPU without idle", many, few).startswith("1.00 ±")
    assert ratio("CPU", measured("stock", 40, plan), few).startswith("1.00 ±")


def test_rounds_that_took_longer_than_planned_are_named_and_their_cpu_is_not_compared():
    few, many = measured("swarmd", 40), measured("swarmd", 160)
    many.late = 1
    assert ratio("CPU", many, few) == ratio("CPU without idle", many, few) == "-"
    assert "1 of them took longer than that" in report([few, many], "")


def test_swarms_of_one_size_measured_alike_are_one_result_and_no_others():
    swarms = [measured("swarmd", 40), measured("swarmd", 40, cpus=(2.0, 2.2)), measured("swarmd", 40, cpus=(3.0, 3.2))]
    for swarm, connections in zip(swarms, (38.0, 39.0, 40.0), strict=True):
        swarm.connections = [connections, connections + 1]
    other = [
        measured("swarmd", 160),
        measured("stock", 40),
        measured("swarmd", 40, dataclasses.replace(PLAN, spread=0.2)),
    ]
    failed = planned("swarmd", 40, PLAN)
    failed.error = "it did not start"
    together, *rest = pooled([*swarms, *other, failed])
    assert rest == [*other, failed]
    assert (together.swarms, together.rounds, together.seconds) == (3, 6, 360.0)
    assert len(together.gathers) == len(together.stored) == 120 and len(together.idle) == 6
    assert of_a_round(together, cpu).value == pytest.approx(2.1) and together.resident == 100.0
    assert together.connections == [39.0, 40.0]
    assert "| 40 | swarmd, 3 swarms |" in report([together], "")


def test_results_are_read_back_also_those_of_before_rounds_had_a_length():
    result = measured("stock", 40)
    entry = json.loads(json.dumps(dataclasses.asdict(result)))
    assert read(entry) == result
    for name in ("round_seconds", "late", "resting", "connections", "per_process", "gogc"):
        del entry[name]
    old = read({**entry, "idle": entry["idle"][:1]})
    assert old.conditions.round_seconds == 0.0 and old.resting == [] and "any, 60" in report([old], "")


def test_nothing_measured_is_a_report_too():
    assert "was not measured with 160 real nodes" in report([], "")


def test_a_round_has_time_for_all_nodes_of_the_largest_swarm():
    assert PLAN.least_round(160) == pytest.approx(120.0) and PLAN.least_round(1) == pytest.approx(2.5)


def test_cpu_is_counted_to_less_than_a_tick_with_threads_that_ended():
    thread = threading.Thread(target=lambda: sum(range(200_000)))
    thread.start()
    thread.join()
    before = time.process_time()
    counted = cpu_seconds([os.getpid()])
    assert before <= counted <= time.process_time()


def test_who_has_ended_has_no_cpu_time():
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(ProcessLookupError, match=str(child.pid)):
        cpu_seconds([child.pid])


def test_children_of_a_process_are_found_and_none_of_one_that_ended():
    with subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        sleeper = int(shell.stdout.readline())
        assert children(shell.pid) == [sleeper]
        subprocess.run(["kill", str(sleeper)], check=True)
        shell.wait()
        assert children(shell.pid) == []


def test_a_swarm_ends_with_a_sentence_where_memory_is_short(monkeypatch):
    check_memory()
    monkeypatch.setattr(scale_memory, "KEPT_GIB", 1e6)
    with pytest.raises(OutOfMemory, match="--gogc 40"):
        sleep_until(time.monotonic() + 60)


def test_more_nodes_in_a_process_and_an_eager_collector_take_less_memory():
    plain = needed_gib("stock", 160, 10, 0)
    assert needed_gib("stock", 160, 40, 0) < plain and needed_gib("stock", 160, 10, 40) < plain
