"""From the runs of all arms to one line an arm, and to ratios. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from tests.bench.arms import Arm, RunResult
from tests.bench.heldout import Heldout


@dataclass(frozen=True)
class Judged:
    """A run with the held-out score of its weights, None where it failed."""

    run: RunResult
    after: Heldout | None


@dataclass(frozen=True)
class Gain:
    """A held-out score before and after, mean over seeds; error: standard error of the gain over the tasks."""

    before: float
    after: float
    error: float
    by_seed: dict[int, float]

    @property
    def gain(self) -> float:
        return self.after - self.before

    @property
    def sure(self) -> bool:
        """Whether it is more than chance: at least two standard errors from nothing."""
        return abs(self.gain) >= 2 * self.error


@dataclass(frozen=True)
class ArmSummary:
    """All runs of an arm that did not fail.

    Attributes:
        round, generate, train, other: median wall seconds; other is the round without generation and training.
        cpu: median CPU seconds of a round, of all threads of the process.
        peak_bytes, added_bytes: largest of the seeds: resident memory, and that above the loaded model.
        steps, moved, reward_first, reward_last: means over the seeds; the rewards are of the first and last quarter
            of the rounds.
    """

    title: str
    learning_rate: float
    round: float
    generate: float
    train: float
    other: float
    cpu: float
    peak_bytes: int
    added_bytes: int
    steps: float
    moved: float
    reward_first: float
    reward_last: float
    sampled: Gain
    greedy: Gain


@dataclass(frozen=True)
class Ratios:
    """swarmd against another arm: how many times its seconds and bytes, and swarmd's gain in its gains.

    None where there is nothing to divide by: no gain, no memory above the model. A ratio of gains is sure when
    both are.
    """

    against: str
    round: float
    generate: float
    train: float
    cpu: float
    memory: float | None
    sampled_gain: float | None
    greedy_gain: float | None
    sampled_sure: bool
    greedy_sure: bool


def summarise(arm: Arm, judged: Sequence[Judged], before: Heldout) -> ArmSummary | None:
    """The arm's line; None where all its runs failed."""
    good = [(one.run, one.after) for one in judged if one.run.arm == arm.key and one.after is not None]
    if not good:
        return None
    runs = [run for run, _ in good]
    phases = [phases for run in runs for phases in run.phase_seconds]
    rounds = [seconds for run in runs for seconds in run.round_seconds]
    generate = [phase["generate"] for phase in phases]
    # A round without signal may take no optimizer step.
    train = [phase["train"] + phase.get("step", 0.0) for phase in phases]
    other = [whole - g - t for whole, g, t in zip(rounds, generate, train, strict=True)]
    quarters = [max(1, len(run.rewards) // 4) for run in runs]
    return ArmSummary(
        title=arm.title,
        learning_rate=runs[0].learning_rate,
        round=median(rounds),
        generate=median(generate),
        train=median(train),
        other=median(other),
        cpu=median(seconds for run in runs for seconds in run.cpu_seconds),
        peak_bytes=max(run.peak_bytes for run in runs),
        added_bytes=max(run.peak_bytes - run.baseline_bytes for run in runs),
        steps=fmean(run.steps for run in runs),
        moved=fmean(run.moved for run in runs),
        reward_first=fmean(fmean(run.rewards[:n]) for run, n in zip(runs, quarters, strict=True)),
        reward_last=fmean(fmean(run.rewards[-n:]) for run, n in zip(runs, quarters, strict=True)),
        sampled=_gain(before.sampled, {run.seed: after.sampled for run, after in good}),
        greedy=_gain(before.greedy, {run.seed: after.greedy for run, after in good}),
    )


def ratios(ours: ArmSummary, theirs: ArmSummary) -> Ratios:
    """swarmd against one arm of GenRL's."""
    return Ratios(
        against=theirs.title,
        round=theirs.round / ours.round,
        generate=theirs.generate / ours.generate,
        train=theirs.train / ours.train,
        cpu=theirs.cpu / ours.cpu,
        memory=_ratio(theirs.added_bytes, ours.added_bytes),
        sampled_gain=_ratio(ours.sampled.gain, theirs.sampled.gain),
        greedy_gain=_ratio(ours.greedy.gain, theirs.greedy.gain),
        sampled_sure=ours.sampled.sure and theirs.sampled.sure,
        greedy_sure=ours.greedy.sure and theirs.greedy.sure,
    )


def _ratio(value: float, unit: float) -> float | None:
    return value / unit if unit > 0 else None


def _gain(before: Sequence[float], after: dict[int, list[float]]) -> Gain:
    """The standard error is of the differences task by task: hard and easy tasks then cancel."""
    changes = [fmean(rewards) - old for old, *rewards in zip(before, *after.values(), strict=True)]
    return Gain(
        before=fmean(before),
        after=fmean(before) + fmean(changes),
        error=stdev(changes) / math.sqrt(len(changes)) if len(changes) > 1 else 0.0,
        by_seed={seed: fmean(rewards) - fmean(before) for seed, rewards in after.items()},
    )
