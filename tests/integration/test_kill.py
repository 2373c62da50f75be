"""kill -9 at any moment loses the round in work and nothing else.

Two nodes with the same seed live through as many kills as it takes; a third one is never killed. Since a round's
tasks, noise and step all follow from the seed and the round, the survivors' weights must be the third's bit by bit.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from swarmd.system.ledger_file import LEDGER_FILE
from tests.integration import saved
from tests.integration.node import Node, Preloaded, alive, until

KILLS = int(os.environ.get("SWARMD_TEST_KILLS", "20"))
MOMENTS = ("in a round", "in a checkpoint", "at the start", "as a checkpoint takes its name", "in a round")
SETTINGS = {"training": {"seed": 7, "evaluate_samples": 16, "evaluate_every": 3}}
# The kernel ends the children with their parent; this is for a machine that has much else to do.
REAPED_SECONDS = 10.0


@dataclass
class Chain:
    """What became of a node that was killed again and again."""

    state: Path
    landed: list[str] = field(default_factory=list)
    half_written: int = 0
    seen: dict[int, dict[str, str]] = field(default_factory=dict)
    restored: list[int] = field(default_factory=list)

    def look(self) -> None:
        """Notes the checkpoints that are there: one that is written twice must be the same both times."""
        for round, sums in saved.checksums_of_all(self.state).items():
            assert self.seen.setdefault(round, sums) == sums, f"round {round} was played again and came out different"


def stop_in_a_checkpoint(node: Node, chance: random.Random) -> None:
    """Freezes the process while it writes a checkpoint, which may take a try or two."""
    while True:
        until(lambda: saved.half_written(node.state) or node.code() is not None, every=0.0005)
        assert node.code() is None, node.text()
        time.sleep(chance.uniform(0.0, 0.03))
        node.freeze()
        if saved.half_written(node.state):
            return
        node.send(signal.SIGCONT)


def wait_for(moment: str, node: Node, chance: random.Random) -> None:
    if moment == "at the start":
        time.sleep(chance.uniform(0.0, 3.0))
        return
    done = saved.newest_round(node.state)
    first = 0 if done is None else done + 1
    if moment == "in a checkpoint":
        stop_in_a_checkpoint(node, chance)
    elif moment == "as a checkpoint takes its name":
        until(lambda: first in saved.rounds_on_disk(node.state), every=0.0005)
    else:
        node.after_round(first)
        time.sleep(chance.uniform(0.0, 0.8))


def kill_again_and_again(state: Path, kills: int, preloaded: Preloaded, seed: int) -> Chain:
    chain, chance = Chain(state), random.Random(seed)
    for number, moment in zip(range(kills), itertools.cycle(MOMENTS), strict=False):
        before = saved.newest_round(state)
        # The first one comes as a user starts it; the others have their imports behind them.
        with Node(state, SETTINGS, preloaded=preloaded if number else None) as node:
            wait_for(moment, node, chance)
            children = node.descendants()
            node.kill()
        chain.landed.append(moment)
        chain.half_written += bool(saved.half_written(state))
        until(lambda: not alive(children), REAPED_SECONDS, why=f"children outlive the node: {children}")  # noqa: B023
        text = node.text()
        if before is not None and node.rounds():
            assert f"going on after round {before}, from " in text
            chain.restored.append(before)
        first = 0 if before is None else before + 1
        told = node.rounds()
        assert told == list(range(first, first + len(told))), "rounds follow each other without a gap"
        after = saved.newest_round(state)
        if told:
            assert after in (told[-1], told[-1] + 1), "every round that was told is kept"
        else:
            assert after in (before, first), "a finished round is never lost"
        # A node that ended quickly again and again waits at its next start; here the rounds are looked at.
        (state / LEDGER_FILE).unlink(missing_ok=True)
        chain.look()
    return chain


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory, preloaded: Preloaded) -> list[Chain]:
    folder = tmp_path_factory.mktemp("kill")
    shares = [KILLS - KILLS // 2, KILLS // 2]
    with ThreadPoolExecutor(len(shares)) as pool:
        running = [
            pool.submit(kill_again_and_again, folder / f"killed-{number}", share, preloaded, number)
            for number, share in enumerate(shares)
        ]
        return [chain.result() for chain in running]


@pytest.fixture(scope="module")
def finished(chains: list[Chain], preloaded: Preloaded) -> tuple[list[Chain], Chain, int]:
    """The killed ones, brought to a common last round, and the one that was never killed; that round."""
    last = max(saved.newest_round(chain.state) or 0 for chain in chains) + 2
    for chain in chains:
        done = saved.newest_round(chain.state)
        rounds = last - (-1 if done is None else done)
        with Node(chain.state, SETTINGS, "--rounds", str(rounds), preloaded=preloaded) as node:
            assert node.end() == 0, node.text()
        chain.look()
    twin = Chain(chains[0].state.with_name("never-killed"))
    # A new interpreter, so that the order of its sets differs too.
    with Node(twin.state, SETTINGS, "--rounds", str(last + 1)) as node:
        while node.code() is None:
            twin.look()
            time.sleep(0.05)
        assert node.end() == 0, node.text()
    twin.look()
    return chains, twin, last


def test_the_kills_land_at_every_moment_and_inside_checkpoints(chains: list[Chain]) -> None:
    landed = [moment for chain in chains for moment in chain.landed]
    assert len(landed) == KILLS
    assert set(landed) == set(MOMENTS)
    assert sum(chain.half_written for chain in chains) >= 4, "kills that left a half-written checkpoint behind"
    assert sum(len(chain.restored) for chain in chains) >= KILLS // 3


def test_weights_and_optimizer_end_as_if_nothing_had_happened(finished: tuple[list[Chain], Chain, int]) -> None:
    chains, twin, last = finished
    for chain in chains:
        newest = saved.newest(chain.state)
        assert newest is not None and newest.round == last
        assert saved.checksums(newest.path) == twin.seen[last]


def test_each_checkpoint_that_was_gone_on_from_is_that_of_the_undisturbed_run(
    finished: tuple[list[Chain], Chain, int],
) -> None:
    chains, twin, _ = finished
    compared = 0
    for chain in chains:
        for round in chain.restored:
            assert chain.seen[round] == twin.seen[round], f"round {round}"
            compared += 1
    assert compared >= KILLS // 3


def test_the_curves_show_each_round_once_and_the_same_numbers(finished: tuple[list[Chain], Chain, int]) -> None:
    chains, twin, last = finished
    columns = "round, reward, signal_share, loss, grad_norm, tokens"
    expected = saved.rows(twin.state, columns)
    assert [row[0] for row in expected] == list(range(last + 1))
    for chain in chains:
        assert saved.rows(chain.state, columns) == expected


def test_the_held_out_scores_are_those_of_the_undisturbed_run(finished: tuple[list[Chain], Chain, int]) -> None:
    chains, twin, _ = finished
    columns = "round, sampled, greedy, samples"
    expected = {row[0]: row for row in saved.rows(twin.state, columns, "heldout")}
    assert -1 in expected
    for chain in chains:
        found = saved.rows(chain.state, columns, "heldout")
        assert found[0][0] == -1
        assert [row for row in found if row[0] in expected and row != expected[row[0]]] == []


def test_nothing_half_done_stays_behind(finished: tuple[list[Chain], Chain, int]) -> None:
    chains, _, _ = finished
    for chain in chains:
        entries = [entry.name for entry in (chain.state / "checkpoints").iterdir()]
        assert [name for name in entries if name.startswith((".", "damaged-"))] == []
        assert len([name for name in entries if name.startswith("round-")]) <= 4
