"""What the runs of tests.bench.sapo have found: tables and a plot. Pure functions but for reading and drawing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from tests.bench.sapo_swarm import ARMS, NODES, OFFERED, TASKS, Arm

REFERENCES = ("8-0", "8-0-filtered", "all-0")
MEASURES = ("sampled", "greedy")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Runs:
    """What is reported: arms that have reached the last of `rounds` with each of `seeds`.

    rounds: of the evaluations, 0 first. rows: by arm, seed and round. left_out: titles of arms that are behind.
    heldout: tasks. cpu_seconds: of all turns, the left-out arms' too.
    """

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    rounds: tuple[int, ...]
    rows: Mapping[tuple[str, int, int], Row]
    left_out: tuple[str, ...]
    heldout: int
    cpu_seconds: float

    def by_seed(self, arm: str, measure: str, round: int) -> list[float]:
        """The held-out score of each seed, mean over the nodes."""
        return [fmean(self.rows[arm, seed, round][measure]) for seed in self.seeds]

    def total(self, arm: str, count: str) -> float:
        """A count of all rounds and seeds."""
        rounds = self.rounds[1:]
        return sum(self.rows[arm, seed, round]["counts"].get(count, 0) for seed in self.seeds for round in rounds)


def load(work: Path, seeds: Sequence[int]) -> Runs | None:
    """What the folder holds, up to the last round that all arms but the `last` ones have reached with every seed;
    None while there is no such round."""
    rows: dict[tuple[str, int, int], Row] = {}
    cpu = 0.0
    for seed in seeds:
        start = work / f"start-{seed}.json"
        for arm in ARMS if start.exists() else ():
            rows[arm, seed, 0] = json.loads(start.read_text())
            kept = work / f"{arm}-{seed}" / "progress.json"
            if kept.exists():
                progress = json.loads(kept.read_text())
                cpu += progress["cpu_seconds"]
                rows.update({(arm, seed, row["round"]): row for row in progress["curve"]})
    played = sorted({round for _, _, round in rows})
    everywhere = {arm: [round for round in played if all((arm, seed, round) in rows for seed in seeds)] for arm in ARMS}
    needed = [everywhere[arm.key] for arm in ARMS.values() if not arm.last]
    rounds = [round for round in played if all(round in reached for reached in needed)]
    if len(rounds) < 2:
        return None
    settings = json.loads((work / "settings.json").read_text())
    abreast = {arm.key: set(rounds) <= set(everywhere[arm.key]) for arm in ARMS.values()}
    return Runs(
        arms=tuple(arm for arm in ARMS.values() if abreast[arm.key]),
        seeds=tuple(seeds),
        rounds=tuple(rounds),
        rows=rows,
        left_out=tuple(arm.title for arm in ARMS.values() if not abreast[arm.key]),
        heldout=settings["heldout"],
        cpu_seconds=cpu,
    )


def markdown(runs: Runs) -> Iterator[str]:
    """All tables."""
    yield (
        f"{runs.rounds[-1]} rounds, {NODES} nodes, {TASKS} groups of 8 completions a node and round, up to {OFFERED} "
        f"groups taken of each peer; seeds {', '.join(map(str, runs.seeds))}; {runs.heldout} held-out tasks; "
        f"{runs.cpu_seconds / 60:.0f} minutes of CPU."
    )
    if runs.left_out:
        yield f"Not played so far: {', '.join(runs.left_out)}."
    for part in (scores(runs), differences(runs), curves(runs), training(runs)):
        yield ""
        yield from part


def scores(runs: Runs) -> Iterator[str]:
    yield f"Held-out score after {runs.rounds[-1]} rounds, mean over the nodes, ± standard error over the seeds:"
    yield ""
    yield from head("own/peers' groups", "sampled", "gain", "greedy", "gain")
    for arm in runs.arms:
        cells = []
        for measure in MEASURES:
            before, after = (runs.by_seed(arm.key, measure, round) for round in (0, runs.rounds[-1]))
            cells += [with_error(after), with_error(minus(after, before), sign=True)]
        yield row(arm.title, *cells)


def differences(runs: Runs) -> Iterator[str]:
    against = [arm for arm in runs.arms if arm.key in REFERENCES]
    yield "Difference of the last scores, seed by seed (in one seed all arms share tasks and noise), ± standard error:"
    yield ""
    yield from head("", *(f"{measure}, against {arm.title}" for measure in MEASURES for arm in against))
    for arm in runs.arms:
        cells = []
        for measure in MEASURES:
            mine = runs.by_seed(arm.key, measure, runs.rounds[-1])
            for other in against:
                apart = minus(mine, runs.by_seed(other.key, measure, runs.rounds[-1]))
                cells.append("" if other == arm else with_error(apart, sign=True))
        yield row(arm.title, *cells)


def curves(runs: Runs) -> Iterator[str]:
    yield "Held-out score by round, sampled (greedy):"
    yield ""
    yield from head("round", *map(str, runs.rounds))
    for arm in runs.arms:
        found = [[fmean(runs.by_seed(arm.key, measure, round)) for measure in MEASURES] for round in runs.rounds]
        yield row(arm.title, *(f"{sampled:.3f} ({greedy:.3f})" for sampled, greedy in found))


def training(runs: Runs) -> Iterator[str]:
    yield "What was sampled and trained on, a node and round; groups with signal only, the others move nothing:"
    yield ""
    yield from head(
        "", "tokens sampled", "own reward", "own groups", "peers' groups", "tokens trained on", "rounds with a step"
    )
    for arm in runs.arms:
        rounds = runs.total(arm.key, "node_rounds")
        a_round = {name: runs.total(arm.key, name) / rounds for name in (
            "sampled_tokens", "own_groups", "peer_groups", "trained_tokens", "steps"
        )}  # fmt: skip
        reward = runs.total(arm.key, "reward") / runs.total(arm.key, "completions")
        yield row(
            arm.title, f"{a_round['sampled_tokens']:.0f}", f"{reward:.3f}", f"{a_round['own_groups']:.1f}",
            f"{a_round['peer_groups']:.1f}", f"{a_round['trained_tokens']:.0f}", f"{a_round['steps']:.0%}",
        )  # fmt: skip
    refused = sum(runs.total(arm.key, "implausible") for arm in runs.arms)
    yield ""
    yield f"{refused:.0f} of the peers' groups were refused as implausible or too long, in all arms together."


def plot(runs: Runs, path: Path) -> None:
    """Held-out score by round, a line an arm, with a band of one standard error."""
    import matplotlib  # here: who only plays has no need of it

    matplotlib.use("svg")
    # The same runs give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "sapo"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for panel, measure in zip(panels, MEASURES, strict=True):
        for number, arm in enumerate(runs.arms):
            found = [runs.by_seed(arm.key, measure, round) for round in runs.rounds]
            means, errors = [fmean(values) for values in found], [standard_error(values) for values in found]
            style = "-" if arm.peers != 0 and not arm.frozen else "--"
            panel.plot(runs.rounds, means, style, color=f"C{number}", marker="o", markersize=3, label=arm.title)
            low, high = ([m + side * e for m, e in zip(means, errors, strict=True)] for side in (-1, 1))
            panel.fill_between(runs.rounds, low, high, color=f"C{number}", alpha=0.12, linewidth=0)
        panel.set_title(f"held-out score, {measure}")
        panel.set_xlabel("round")
        panel.grid(alpha=0.3)
    panels[0].legend(title="own/peers' groups", fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def minus(values: Sequence[float], others: Sequence[float]) -> list[float]:
    return [value - other for value, other in zip(values, others, strict=True)]


def standard_error(values: Sequence[float]) -> float:
    """Of the mean; 0 where a single one says nothing of it."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def with_error(values: Sequence[float], sign: bool = False) -> str:
    mean = f"{fmean(values):{'+' if sign else ''}.3f}"
    return f"{mean} ± {standard_error(values):.3f}" if len(values) > 1 else mean


def head(first: str, *titles: str) -> Iterator[str]:
    yield row(first, *titles)
    yield "|---" + "|---:" * len(titles) + "|"


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
