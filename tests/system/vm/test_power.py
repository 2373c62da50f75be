"""The machine goes down, in order or not, and the node goes on where it was."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import pytest

from swarmd.system.ledger import POWER_LOSS, REBOOT
from tests.system.vm.conftest import Times
from tests.system.vm.kernel import PYTHON
from tests.system.vm.node import CHECKPOINTS, UNIT, Node

# A checkpoint is synced when none was for so long (swarmd.game.checkpoint); a power cut may cost what came after.
SYNC_SECONDS = 30.0
_A_CHECKPOINT_IS_BEING_WRITTEN = f"""\
import os, time
while not any(name.startswith(".writing-") for name in os.listdir("{CHECKPOINTS}")):
    time.sleep(0.002)
"""


@dataclass(frozen=True)
class Saved:
    """At `time` (the host's clock) the checkpoint of `round` was there."""

    time: float
    round: int


def watch(node: Node, seconds: float) -> list[Saved]:
    """The checkpoints that are made in the next seconds, and the last one before."""
    seen: list[Saved] = []
    end = time.monotonic() + seconds
    while not seen or time.monotonic() < end:
        round = int(node.status()["checkpoint"]["round"])
        if not seen or round > seen[-1].round:
            seen.append(Saved(time.monotonic(), round))
        time.sleep(0.2)
    return seen


def test_after_a_reboot_the_node_goes_on_by_itself_where_it_was(node: Node, times: Times) -> None:
    assert node.machine.run("systemctl", "is-enabled", UNIT).output.strip() == "enabled"
    before = node.current()
    times.took("reboot to the next boot's first command", node.machine.reboot())
    with times.of("boot's first command to training"):
        after = node.until_trains()
    assert node.restored(after) == max(node.rounds_finished(before))
    told = node.end_of(before)
    assert told["cause"] == REBOOT
    assert told["round"] == max(node.rounds_finished(before))
    assert node.restarts()["totals"][REBOOT] == 1


@pytest.mark.parametrize("seconds", [75.0, 15.0, 0.0])
def test_a_power_cut_while_a_checkpoint_is_written_costs_only_what_was_not_synced(
    node: Node, times: Times, seconds: float
) -> None:
    """seconds: of training before the cut."""
    before = node.current()
    began_with = node.restored(before)
    cuts = node.restarts()["totals"].get(POWER_LOSS, 0)
    seen = watch(node, seconds)
    slowest = max([later.time - sooner.time for sooner, later in zip(seen, seen[1:], strict=False)], default=0.0)
    node.machine.run(PYTHON, "-c", _A_CHECKPOINT_IS_BEING_WRITTEN)
    time.sleep(random.uniform(0.0, 0.2))
    cut = time.monotonic()
    node.machine.pull_plug()

    times.took("boot after a power cut", node.machine.boot())
    with times.of("boot's first command to training"):
        after = node.until_trains()
    restored = node.restored(after)
    # The first checkpoint of a run is synced at once, later ones when they are made and it is time.
    assert restored > began_with
    due = [saved.round for saved in seen if saved.time < cut - SYNC_SECONDS - 2 * slowest - 5.0]
    assert restored >= max(due, default=0), (restored, seen, cut)
    times.took(f"of training before the cut, of which {seen[-1].round - restored:+d} rounds were lost", seconds)

    assert node.events("history_damaged", after) == []
    assert node.show("NRestarts") == {"NRestarts": "0"}
    assert node.end_of(before)["cause"] == POWER_LOSS
    assert node.restarts()["totals"][POWER_LOSS] == cuts + 1
