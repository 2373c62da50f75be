"""What came of the runs of hostile.py, as tables and a plot. Pure functions but for reading and drawing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from tests.bench.hostile_swarm import ARMS, HONEST, OTHERS, Arm
from tests.bench.sapo_report import MEASURES, head, minus, row, standard_error, with_error
from tests.bench.turns import PROGRESS_FILE

NEEDED = ("clean", "hostile")
REFERENCE = "clean"
OF_THREE = 4.30
"""Standard errors to each side of the mean of three values (Student's t, 2 degrees of freedom) in which 95 % lie."""
_VIOLATION = "violation: "
_REFUSED = "refused: "
_JUDGED = ("implausible", "too-long", "unscored", "unscorable", "unknown-task", "held-out", "duplicate", "wrong-shape")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Runs:
    """rounds: of each arm, the evaluations that all seeds have reached, 0 first; arms without a turn are not there.
    rows: by arm, seed and round. heldout: tasks. cpu_seconds: of all turns."""

    seeds: tuple[int, ...]
    rounds: Mapping[str, tuple[int, ...]]
    rows: Mapping[tuple[str, int, int], Row]
    heldout: int
    cpu_seconds: float

    @property
    def arms(self) -> list[Arm]:
        return [arm for arm in ARMS.values() if arm.key in self.rounds]

    def last(self, *arms: str) -> int:
        """The last round that all of these have reached."""
        return min(self.rounds[arm][-1] for arm in arms)

    def by_seed(self, arm: str, measure: str, round: int) -> list[float]:
        """The held-out score of each seed, mean over the nodes."""
        return [fmean(self.rows[arm, seed, round][measure]) for seed in self.seeds]

    def by_node(self, arm: str, measure: str, round: int) -> list[float]:
        return [score for seed in self.seeds for score in self.rows[arm, seed, round][measure]]

    def counts(self, arm: str) -> Counter[str]:
        """Of all seeds and rounds."""
        total: Counter[str] = Counter()
        for seed in self.seeds:
            for round in self.rounds[arm][1:]:
                total.update(self.rows[arm, seed, round]["counts"])
        return total


def load(work: Path, seeds: Sequence[int]) -> Runs | None:
    """What the folder holds; None until clean and hostile have both been scored with every seed."""
    rows: dict[tuple[str, int, int], Row] = {}
    cpu = 0.0
    for seed in seeds:
        start = work / f"start-{seed}.json"
        for arm in ARMS if start.exists() else ():
            kept = work / f"{arm}-{seed}" / PROGRESS_FILE
            if kept.exists():
                progress = json.loads(kept.read_text())
                cpu += progress["cpu_seconds"]
                rows[arm, seed, 0] = json.loads(start.read_text())
                rows.update({(arm, seed, row["round"]): row for row in progress["curve"]})
    played = sorted({round for _, _, round in rows})
    reached = {arm: tuple(n for n in played if all((arm, seed, n) in rows for seed in seeds)) for arm in ARMS}
    rounds = {arm: found for arm, found in reached.items() if len(found) > 1}
    if not all(arm in rounds for arm in NEEDED):
        return None
    settings = json.loads((work / "settings.json").read_text())
    return Runs(tuple(seeds), rounds, rows, settings["heldout"], cpu)


def markdown(runs: Runs) -> Iterator[str]:
    """All tables."""
    rounds = ", ".join(f"{arm.key} {runs.last(arm.key)}" for arm in runs.arms)
    yield (
        f"Rounds: {rounds}. {HONEST} nodes are scored, {OTHERS} others; seeds {', '.join(map(str, runs.seeds))}; "
        f"{runs.heldout} held-out tasks; {runs.cpu_seconds / 60:.0f} minutes of CPU."
    )
    for part in (scores(runs), differences(runs), curves(runs), audits(runs), training(runs)):
        yield ""
        yield from part
    for arm in runs.arms:
        if not arm.believing and set(arm.others) - {"honest"}:
            yield ""
            yield from behaviours(runs, arm)


def scores(runs: Runs) -> Iterator[str]:
    yield "Held-out score after the last round, mean over the seven nodes, ± standard error over the seeds:"
    yield ""
    yield from head("", "rounds", "sampled", "gain", "greedy", "gain")
    for arm in runs.arms:
        cells = []
        for measure in MEASURES:
            before, after = (runs.by_seed(arm.key, measure, round) for round in (0, runs.last(arm.key)))
            cells += [with_error(after), with_error(minus(after, before), sign=True)]
        yield row(arm.title, str(runs.last(arm.key)), *cells)


def differences(runs: Runs) -> Iterator[str]:
    yield (
        f"Difference to the clean swarm at the last round of both, paired: by seed (mean ± standard error of "
        f"{len(runs.seeds)}, and the 95 % interval), and by node (mean and standard deviation of the "
        f"{HONEST * len(runs.seeds)} differences):"
    )
    yield ""
    ways = ("by seed", "95 %", "by node")
    yield from head("", "round", *(f"{measure}, {way}" for measure in MEASURES for way in ways))
    for arm in runs.arms:
        if arm.key == REFERENCE:
            continue
        round = runs.last(arm.key, REFERENCE)
        cells = []
        for measure in MEASURES:
            apart = minus(runs.by_seed(arm.key, measure, round), runs.by_seed(REFERENCE, measure, round))
            nodes = minus(runs.by_node(arm.key, measure, round), runs.by_node(REFERENCE, measure, round))
            mean, half = fmean(apart), OF_THREE * standard_error(apart)
            within = f"{mean - half:+.3f} to {mean + half:+.3f}" if len(runs.seeds) == 3 else ""
            cells += [with_error(apart, sign=True), within, f"{fmean(nodes):+.3f} (sd {stdev(nodes):.3f})"]
        yield row(arm.title, str(round), *cells)


def curves(runs: Runs) -> Iterator[str]:
    rounds = sorted({round for reached in runs.rounds.values() for round in reached})
    yield "Held-out score by round, sampled (greedy):"
    yield ""
    yield from head("round", *map(str, rounds))
    for arm in runs.arms:
        found = {
            round: [fmean(runs.by_seed(arm.key, measure, round)) for measure in MEASURES]
            for round in runs.rounds[arm.key]
        }
        yield row(arm.title, *("{:.3f} ({:.3f})".format(*found[n]) if n in found else "" for n in rounds))


def audits(runs: Runs) -> Iterator[str]:
    kinds = sorted({
        name.partition(_VIOLATION)[2] for arm in runs.arms for name in runs.counts(arm.key) if _VIOLATION in name
    })  # fmt: skip
    yield "The audit: others' groups that the trainers were given, in all rounds and seeds, and what was wrong:"
    yield ""
    yield from head("", "given", "of hostile peers", "trained on", "of hostile peers", "violations", *kinds)
    for arm in runs.arms:
        counts = runs.counts(arm.key)
        wrong = [_sum(counts, _VIOLATION + kind) for kind in kinds]
        cells = [
            total
            for what in ("given", "trained")
            for total in (_sum(counts, what), _sum(counts, what) - counts[f"honest/{what}"])
        ]  # fmt: skip
        yield row(arm.title, *(f"{cell:.0f}" for cell in (*cells, sum(wrong), *wrong)))


def training(runs: Runs) -> Iterator[str]:
    yield "A node and round: what it was trained on, and what of honest peers it lost:"
    yield ""
    yield from head("", "own reward", "own groups with signal", "others' groups", "tokens", "of hostile peers",
                    "honest groups refused", "honest peers shut out, in all")  # fmt: skip
    for arm in runs.arms:
        counts = runs.counts(arm.key)
        rounds = counts["own/rounds"]
        bad = _sum(counts, "tokens") - counts["honest/tokens"]
        lost = sum(counts[f"honest/{reason}"] for reason in _JUDGED)
        came = counts["honest/admitted"]
        yield row(
            arm.title, f"{counts['own/reward'] / counts['own/completions']:.3f}",
            f"{counts['own/with signal'] / rounds:.1f}", f"{_sum(counts, 'trained') / rounds:.1f}",
            f"{counts['own/tokens trained on'] / rounds:.0f}", f"{bad / counts['own/tokens trained on']:.0%}",
            f"{lost / came:.1%}" if came else "", f"{counts['honest/shut out']:.0f}",
        )  # fmt: skip


def behaviours(runs: Runs, arm: Arm) -> Iterator[str]:
    counts = runs.counts(arm.key)
    kinds = sorted(
        {name.partition("/")[0] for name in counts} - {"own", "honest", "nobody"},
        key=lambda kind: (-counts[f"{kind}/trained"], kind),
    )
    yield f"{arm.title}: what became of each behaviour, a node and round in which it was played:"
    yield ""
    yield from head(
        "", "in quarantine", "groups admitted", "with signal, drawn", "implausible", "too long", "trained on", "tokens",
        "shut out, in all", "refused, in all",
    )  # fmt: skip
    for kind in kinds:
        times = counts[f"{kind}/node-rounds"]
        a_round = [
            f"{counts[f'{kind}/{what}'] / times:.1f}"
            for what in ("admitted", "used", "implausible", "too-long", "trained", "tokens")
        ]
        quarantine, shut_out = f"{counts[f'{kind}/in quarantine'] / times:.0%}", f"{counts[f'{kind}/shut out']:.0f}"
        yield row(kind, quarantine, *a_round, shut_out, _refusals(counts, (kind,)))
    yield ""
    yield f"Refused under honest peers' names and under none: {_refusals(counts, ('honest', 'nobody')) or 'nothing'}."
    shut = [
        entry for seed in runs.seeds for round in runs.rounds[arm.key][1:]
        for entry in runs.rows[arm.key, seed, round]["shut_out"]
    ]  # fmt: skip
    for character in sorted({entry[2] for entry in shut}):
        rounds = [entry[0] for entry in shut if entry[2] == character]
        who = f"The {character}{'s' if arm.others.count(character) > 1 else ''}"
        yield ""
        yield (
            f"{who}: {len(rounds)} quarantines, by {HONEST * len(runs.seeds)} nodes; the first in round {min(rounds)}, "
            f"the last in round {max(rounds)}."
        )


def plot(runs: Runs, path: Path) -> None:
    """Held-out score by round, a line an arm, with a band of one standard error."""
    import matplotlib  # here: who only plays has no need of it

    matplotlib.use("svg")
    # The same runs give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "hostile"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for panel, measure in zip(panels, MEASURES, strict=True):
        for number, arm in enumerate(runs.arms):
            rounds = runs.rounds[arm.key]
            found = [runs.by_seed(arm.key, measure, round) for round in rounds]
            means, errors = [fmean(values) for values in found], [standard_error(values) for values in found]
            style = "--" if arm.believing or not arm.others else "-"
            panel.plot(rounds, means, style, color=f"C{number}", marker="o", markersize=3, label=arm.title)
            low, high = ([m + side * e for m, e in zip(means, errors, strict=True)] for side in (-1, 1))
            panel.fill_between(rounds, low, high, color=f"C{number}", alpha=0.12, linewidth=0)
        panel.set_title(f"held-out score, {measure}")
        panel.set_xlabel("round")
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _sum(counts: Mapping[str, float], what: str) -> float:
    """Of all kinds of peers."""
    return sum(count for name, count in counts.items() if name.partition("/")[2] == what)


def _refusals(counts: Mapping[str, float], kinds: Sequence[str]) -> str:
    """Admission's, by reason, the most frequent first."""
    found: Counter[str] = Counter()
    for name, count in counts.items():
        kind, _, what = name.partition("/")
        if kind in kinds and what.startswith(_REFUSED):
            found[what.removeprefix(_REFUSED)] += int(count)
    return ", ".join(f"{reason} {count}" for reason, count in found.most_common())
