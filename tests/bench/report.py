"""The result in words and columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version

from tests.bench.arms import ARMS, RunResult
from tests.bench.heldout import Judge
from tests.bench.summary import ArmSummary, Gain, Ratios

_MIB = 2**20


def heading(judge: Judge, rounds: int, tasks: int, seeds: Sequence[int], samples: int) -> Iterator[str]:
    """What was run."""
    recipe = judge.recipe
    yield (
        f"swarmd beside GenRL {version('gensyn-genrl')}: the embedded model, {judge.parameters / 1e6:.1f} M parameters "
        f"in fp32, {recipe.threads or 'all'} thread(s) of the CPU"
    )
    yield (
        f"{rounds} rounds of {tasks} tasks x {recipe.group_size} completions of at most "
        f"{recipe.max_new_tokens} tokens, temperature {recipe.temperature:g}; seeds {', '.join(map(str, seeds))}; "
        f"{samples} held-out tasks"
    )


def costs(arms: Sequence[ArmSummary]) -> Iterator[str]:
    """Seconds and bytes of each arm."""
    yield f"{'median seconds of a round':29}{'wall':>8}{'generate':>10}{'train':>8}{'other':>8}{'CPU':>8}   " + (
        f"{'peak MiB':>9}{'+ model':>9}"
    )
    for arm in arms:
        yield (
            f"{arm.title:29}{arm.round:8.3f}{arm.generate:10.3f}{arm.train:8.3f}{arm.other:8.3f}{arm.cpu:8.3f}   "
            f"{arm.peak_bytes / _MIB:9.0f}{arm.added_bytes / _MIB:+9.1f}"
        )


def learning(arms: Sequence[ArmSummary]) -> Iterator[str]:
    """What each arm learned."""
    yield f"{'held-out score':29}{'sampled: before, after':>24}{'gain':>18}{'greedy: before, after':>25}{'gain':>18}"
    for arm in arms:
        yield f"{arm.title:29}{_gain(arm.sampled, 24)}{_gain(arm.greedy, 25)}"
    yield ""
    reward_title = "reward: first, last quarter"
    yield f"{'training':29}{'rate':>8}{'steps':>8}{'weights moved':>15}{reward_title:>29}   gain by seed"
    for arm in arms:
        seeds = "  ".join(f"{seed}: {gain:+.3f}" for seed, gain in arm.sampled.by_seed.items())
        reward = f"{arm.reward_first:.3f} {arm.reward_last:.3f}"
        yield f"{arm.title:29}{arm.learning_rate:8.0e}{arm.steps:8.0f}{arm.moved:15.1e}{reward:>29}   {seeds}"


def comparison(ratios: Sequence[Ratios]) -> Iterator[str]:
    """swarmd against each of the others."""
    yield f"{'swarmd against':29}{'times as fast':>14}{'generate':>10}{'train':>8}{'CPU':>8}{'less memory':>13}" + (
        f"{'more gain':>11}{'greedy':>10}"
    )
    for one in ratios:
        yield (
            f"{one.against:29}{one.round:14.1f}{one.generate:10.1f}{one.train:8.1f}{one.cpu:8.1f}"
            f"{_times(one.memory):>13}"
            f"{_times(one.sampled_gain, one.sampled_sure):>11}{_times(one.greedy_gain, one.greedy_sure):>10}"
        )


def failures(failed: Sequence[RunResult]) -> Iterator[str]:
    """The runs that failed, with all that is known. They are in none of the figures."""
    for run in failed:
        yield f"FAILED: {ARMS[run.arm].title}, seed {run.seed}, after {len(run.round_seconds)} rounds"
        yield run.error


def _gain(gain: Gain, width: int) -> str:
    return f"{f'{gain.before:.3f} {gain.after:.3f}':>{width}}{f'{gain.gain:+.3f} ± {gain.error:.3f}':>18}"


def _times(ratio: float | None, sure: bool = True) -> str:
    return "-" if ratio is None else f"{ratio:.1f}{'' if sure else '?'}"
