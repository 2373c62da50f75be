"""The unit as it stands, on a machine with cgroup v2: confined, limited, and the node trains inside."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.system.vm.conftest import Times
from tests.system.vm.kernel import PYTHON
from tests.system.vm.node import UNIT, Node

MOST_EXPOSURE = 1.1
_WRITABLE = ("/var/lib/swarmd", "/var/cache/swarmd", "/run/swarmd", "/tmp", "/var/tmp", "/dev/shm")
# A program is run, and mapped as a library's code is: as it lies in /usr, and its copy in each folder named.
_WHAT_CAN_BE_EXECUTED = """\
import json, mmap, os, shutil, subprocess, sys
from pathlib import Path

def possible(program):
    done = []
    try:
        subprocess.run([program], check=True)
        done.append("run")
    except PermissionError:
        pass
    try:
        with open(program, "rb") as file:
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
        done.append("mapped")
    except PermissionError:
        pass
    return done

told = {"/usr/bin/true": possible("/usr/bin/true")}
for folder in sys.argv[1:]:
    copy = Path(folder, ".copy-of-true")
    shutil.copy("/usr/bin/true", copy)
    told[folder] = possible(copy)
    copy.unlink()
print(json.dumps(told))
"""


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
    for path in _WRITABLE:
        assert {"rw", "noexec"} <= options[path], (path, options[path])
    as_the_node = (
        "nsenter", f"--target={pid}", "--mount", "setpriv", "--reuid=swarmd", "--regid=swarmd", "--clear-groups",
    )  # fmt: skip
    tried = node.machine.run(*as_the_node, PYTHON, "-I", "-", *_WRITABLE, input=_WHAT_CAN_BE_EXECUTED).output
    assert json.loads(tried) == {"/usr/bin/true": ["run", "mapped"], **{path: [] for path in _WRITABLE}}
    # Other mounts are writable, but not for the node; sockets and pipes are, and nobody can execute one. find(1) names
    # what it may not look into, and -xdev would not tell: /run/swarmd is a mount of the file system that /run is.
    search = r"find / \( -path /proc -o -path /sys \) -prune -o \( -type f -o -type d \) -writable -print 2>/dev/null"
    found = node.machine.run(*as_the_node, "sh", "-c", search, check=False).output.splitlines()
    assert set(_WRITABLE) <= set(found)
    for path in found:
        mount = next(str(above) for above in (Path(path), *Path(path).parents) if str(above) in options)
        assert "noexec" in options[mount], (path, mount, options[mount])


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
