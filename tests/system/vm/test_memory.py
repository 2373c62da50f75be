"""The node near the end of its memory: first it makes do with less, and only then does the kernel act."""

from __future__ import annotations

from swarmd.system.ledger import OOM_KILL
from tests.system.vm.conftest import Times
from tests.system.vm.node import Node


def test_slow_growth_towards_the_limit_costs_no_restart(node: Node, times: Times) -> None:
    run = node.current()
    with times.of("leak of 25 MiB/s until the node steps down"):
        node.fault("leak 25")
        node.until(lambda: node.events("memory_stepped_down", run), "an event memory_stepped_down")
    # The leak stops where it is: the node has to live with that.
    node.fault("leak 0")
    before = len(node.rounds_finished(run))
    with times.of("five rounds near the limit"):
        node.until(lambda: len(node.rounds_finished(run)) >= before + 5, "five more rounds")
    assert node.current() == run, "the service or its scorer was restarted"
    assert node.show("NRestarts") == {"NRestarts": "0"}
    assert node.out_of_memory() == []


def test_a_leak_takes_the_whole_node_which_comes_back_where_it_was(node: Node, times: Times) -> None:
    run = node.until_trains()
    pids = node.processes()
    assert {run.pid, *run.children.values()} <= set(pids)
    kills = node.restarts()["totals"].get(OOM_KILL, 0)
    with times.of("leak of 200 MiB/s until the service is killed"):
        node.fault("leak 200")
        node.until(lambda: node.show("InvocationID")["InvocationID"] != run.invocation, "another run of the service")
    # The next run loads its libraries, for minutes here, before it writes a status of its own.
    last = node.status()
    assert last["process"]["pid"] == run.pid
    with times.of("kill for want of memory to training"):
        after = node.until_trains()
    # Nothing of the old run has survived the kill of one of its processes.
    assert not set(pids) & set(node.processes())
    # The kernel killed once and the whole group; systemd may tell of that once for each process that it saw die.
    assert {record["INVOCATION_ID"] for record in node.out_of_memory()} == {run.invocation}
    assert len(node.group_kills()) == 1
    # A round is told after its checkpoint: killed between the two, one more is saved than was told.
    told = max(node.rounds_finished(run))
    assert node.restored(after) in (told, told + 1)
    # What it had to give up before is remembered: it does not climb up again to where it fell.
    if node.events("memory_stepped_down", run):
        assert "resumed" in [record["SWARMD_WHAT"] for record in node.events("memory_stepped_down", after)]
    end = node.end_of(run)
    assert (end["cause"], end["phase"] or "", end["round"]) == (OOM_KILL, last["phase"], last["round"])
    assert end["round"] in (told, told + 1), end
    assert node.restarts()["totals"][OOM_KILL] == kills + 1
    assert node.show("Result", "ActiveState") == {"Result": "success", "ActiveState": "active"}
