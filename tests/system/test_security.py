"""What the units keep from the node, and that nobody takes it away in passing."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.system.machine import Machine

UNITS = Path(__file__).parents[2] / "systemd"
# In tenths, as systemd-analyze takes them. The best of 66 daemons looked at has 12.
CPU_EXPOSURE = 11
GPU_EXPOSURE = 14

# All in which swarmd@NAME.service may differ from swarmd.service.
OF_AN_INSTANCE = {
    "Description=swarmd, decentralised reinforcement learning node":
        "Description=swarmd, decentralised reinforcement learning node %i",
    "ExecStart=/usr/bin/swarmd run --config /etc/swarmd/config.yaml":
        "ExecStart=/usr/bin/swarmd run --config /etc/swarmd/%i.yaml",
    "ExecReload=/usr/bin/swarmd check --no-plan --config /etc/swarmd/config.yaml":
        "ExecReload=/usr/bin/swarmd check --no-plan --config /etc/swarmd/%i.yaml",
    "WorkingDirectory=/var/lib/swarmd": "WorkingDirectory=/var/lib/swarmd/%i",
    "StateDirectory=swarmd": "StateDirectory=swarmd/%i",
    "RuntimeDirectory=swarmd": "RuntimeDirectory=swarmd/%i",
    "Environment=HOME=/var/lib/swarmd XDG_CACHE_HOME=/var/cache/swarmd HF_HOME=/var/cache/swarmd/huggingface":
        "Environment=HOME=/var/lib/swarmd/%i XDG_CACHE_HOME=/var/cache/swarmd HF_HOME=/var/cache/swarmd/huggingface",
}  # fmt: skip

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (systemd)")


def directives(unit: str) -> list[str]:
    lines = map(str.strip, (UNITS / unit).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def comments(unit: str) -> str:
    return "\n".join(line for line in (UNITS / unit).read_text().splitlines() if line.startswith("#"))


def installed(folder: Path, *drop_ins: str) -> Path:
    """A root directory with nothing but the units."""
    system = folder / "usr/lib/systemd/system"
    system.mkdir(parents=True)
    for unit in ("swarmd.service", "swarmd@.service"):
        shutil.copy(UNITS / unit, system)
        for drop_in in drop_ins:
            (system / f"{unit}.d").mkdir()
            shutil.copy(UNITS / drop_in, system / f"{unit}.d")
    return folder


def analyse(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", "security", *arguments], capture_output=True, text=True)


def test_the_unit_for_instances_differs_in_its_paths_only() -> None:
    shared = directives("swarmd.service")
    assert set(OF_AN_INSTANCE) <= set(shared)
    assert directives("swarmd@.service") == [OF_AN_INSTANCE.get(line, line) for line in shared]


@needs_systemd
@pytest.mark.parametrize("unit", ["swarmd.service", "swarmd@one.service"])
@pytest.mark.parametrize("drop_ins, exposure", [((), CPU_EXPOSURE), (("50-gpu.conf",), GPU_EXPOSURE)])
def test_the_exposure_does_not_grow(unit: str, drop_ins: tuple[str, ...], exposure: int, tmp_path: Path) -> None:
    root = installed(tmp_path, *drop_ins)
    told = analyse("--offline=yes", f"--root={root}", f"--threshold={exposure}", unit)
    assert told.returncode == 0, told.stdout + told.stderr


@needs_systemd
def test_the_gpu_drop_in_is_what_the_higher_exposure_is_for(tmp_path: Path) -> None:
    root = installed(tmp_path, "50-gpu.conf")
    told = analyse("--offline=yes", f"--root={root}", f"--threshold={CPU_EXPOSURE}", "swarmd.service")
    assert told.returncode != 0, "the drop-in was not read"


@needs_systemd
def test_each_protection_that_is_not_on_has_its_reason_in_a_comment(tmp_path: Path) -> None:
    rows = analyse("--offline=yes", f"--root={installed(tmp_path)}", "--json=short", "swarmd.service").stdout
    missing = [row["name"] for row in json.loads(rows) if float(row.get("exposure") or 0) > 0]
    assert missing, "nobody's exposure is 0"
    reasons = comments("swarmd.service")
    # "RestrictAddressFamilies=~AF_(INET|INET6)" is about AF_INET and AF_INET6.
    words = [re.findall(r"AF_[A-Z]+|INET6", name.replace("(", "")) or re.findall(r"\w+=", name) for name in missing]
    told_of = [all(word in reasons for word in some) for some in words]
    assert [name for name, told in zip(missing, told_of, strict=True) if not told] == []


def test_systemd_has_nothing_to_say_against_the_units(machine: Machine) -> None:
    units = ["/usr/lib/systemd/system/swarmd.service", "/usr/lib/systemd/system/swarmd@.service"]
    assert machine.run("systemd-analyze", "verify", "--man=no", *units).output == ""


def test_systemd_has_nothing_to_say_against_the_gpu_drop_in(machine: Machine) -> None:
    for unit in ("swarmd", "swarmd@"):
        machine.write(f"/run/systemd/system/{unit}.service.d/50-gpu.conf", (UNITS / "50-gpu.conf").read_text())
    machine.run("systemctl", "daemon-reload")
    assert machine.run("systemd-analyze", "verify", "--man=no", "swarmd.service", "swarmd@one.service").output == ""
    assert machine.run("systemctl", "show", "-P", "PrivateDevices", "swarmd@one").output.strip() == "no"
