"""The unit as it stands, on a machine with cgroup v2: confined, limited, and the node trains inside."""

from __future__ import annotations

import json
import re

from tests.system.vm.conftest import Times
from tests.system.vm.node import UNIT, Node

MOST_EXPOSURE = 1.1


def test_the_running_unit_is_hardly_exposed(node: Node) -> None:
    told = node.machine.run("systemd-analyze", "security", "--no-pager", UNIT).output
    level = re.search(rf"Overall exposure level for {re.escape(UNIT)}: (\d+\.\d)", told)
    assert level is not None, told
    assert float(level[1]) <= MOST_EXPOSURE, told


def test_the_node_learns_in_its_sandbox(node: Node, times: Times) -> None:
    run = node.current()
    before = len(node.rounds_finished(run))
    with times.of("ten rounds"):
        node.until(lambda: len(node.rounds_finished(run)) >= before + 10, "ten more rounds")
    status = node.status()
    assert status["model"]["name"] == "embedded"
    assert "scorer" in status["children"]
    assert node.current().pid == run.pid
    assert node.events("crashed", run) == []


def test_every_process_of_the_node_is_confined(node: Node) -> None:
    group = node.show("ControlGroup")["ControlGroup"]
    pids = (node.machine.read(f"/sys/fs/cgroup{group}/cgroup.procs") or b"").decode().split()
    run = node.current()
    assert {str(run.pid), *map(str, run.children.values())} <= set(pids)
    user = node.machine.run("id", "--user", "swarmd").output.strip()
    for pid in pids:
        content = (node.machine.read(f"/proc/{pid}/status") or b"").decode()
        fields = dict(re.findall(r"^(\w+):\s*(.*)$", content, re.MULTILINE))
        assert fields["Uid"].split() == [user] * 4
        assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2"), fields
        assert {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}, fields


def test_what_the_node_can_write_it_cannot_execute(node: Node) -> None:
    pid = node.current().pid
    mounts = (node.machine.read(f"/proc/{pid}/mountinfo") or b"").decode().splitlines()
    options = {line.split()[4]: set(line.split()[5].split(",")) for line in mounts}
    assert {"ro", "noexec"} <= options["/"]
    for path in ("/var/lib/swarmd", "/var/cache/swarmd", "/run/swarmd", "/tmp", "/var/tmp", "/dev/shm"):
        assert {"rw", "noexec"} <= options[path], (path, options[path])
    # Other mounts may be writable for root, but not for the node.
    as_the_node = (
        "nsenter", f"--target={pid}", "--mount", "setpriv", "--reuid=swarmd", "--regid=swarmd", "--clear-groups",
    )  # fmt: skip
    executable = {path for path, found in options.items() if "rw" in found and "noexec" not in found}
    # find(1) names what it may not look into, and mount points, which are judged above for themselves.
    search = ("sh", "-c", 'find "$@" -xdev ! -type l -writable 2>/dev/null', "sh", *sorted(executable))
    found = node.machine.run(*as_the_node, *search, check=False).output.splitlines()
    assert set(found) <= options.keys(), found


def test_the_memory_limit_is_a_share_of_the_machine_and_the_node_plans_inside_it(node: Node) -> None:
    unit = node.machine.run("systemctl", "cat", UNIT).output
    share = re.search(r"^MemoryMax=(\d+)%$", unit, re.MULTILINE)
    assert share is not None, unit
    memory = re.search(r"MemTotal:\s*(\d+) kB", (node.machine.read("/proc/meminfo") or b"").decode())
    assert memory is not None
    properties = node.show("MemoryMax", "MemoryHigh", "MemorySwapMax", "OOMPolicy", "ControlGroup")
    limit = int(properties["MemoryMax"])
    assert abs(limit - int(memory[1]) * 1024 * int(share[1]) // 100) < 2**20
    assert (properties["MemoryHigh"], properties["OOMPolicy"]) == ("infinity", "kill")
    group = f"/sys/fs/cgroup{properties['ControlGroup']}"
    for name, value in (("memory.max", limit), ("memory.swap.max", 0), ("memory.oom.group", 1)):
        assert int(node.machine.read(f"{group}/{name}") or b"-1") == value, name
    assert node.status()["memory"]["limit"] == limit


def test_the_status_is_for_everybody_and_the_state_for_nobody(node: Node) -> None:
    as_nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    told = node.machine.run(*as_nobody, "cat", "/run/swarmd/status.json").output
    assert json.loads(told)["state"] == "training"
    for path in ("/var/lib/swarmd", "/var/cache/swarmd", "/etc/swarmd/config.yaml"):
        refused = node.machine.run(*as_nobody, "head", "-c1", path, check=False)
        assert refused.code != 0 and "Permission denied" in refused.output, (path, refused)
