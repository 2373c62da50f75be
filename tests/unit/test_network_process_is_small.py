"""The network process and a bootnode load no torch and no transformers: they would cost each of them 300 MB."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "hivemind", "web3", "pandas", "scipy")
PROBE = """
import importlib, json, sys
for name in {modules!r}:
    importlib.import_module(name)
rss = int(open("/proc/self/statm").read().split()[1]) * {page}
print(json.dumps([sorted(set({heavy!r}) & set(sys.modules)), rss]))
"""


@pytest.mark.parametrize(
    ("modules", "most_mib"),
    [
        (["swarmd.network.process"], 100),
        (["swarmd.network.swarm_member"], 100),
        (["swarmd.bootnode"], 100),
        # What a node that trains loads besides: reasoning-gym, to make the tasks of its peers anew.
        (["swarmd.network.process", "swarmd.network.admission", "swarmd.network.round_exchange"], 250),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_strangers_talk_to_is_small(modules: list[str], most_mib: int) -> None:
    script = PROBE.format(modules=modules, heavy=HEAVY, page=resource.getpagesize())
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded, rss = json.loads(done.stdout)
    assert loaded == []
    assert rss < most_mib << 20, f"{rss >> 20} MiB"
