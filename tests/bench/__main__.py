"""swarmd's trainer beside GenRL's own, on the same model and tasks: time, memory, learning.

    make bench                        some ten minutes on two cores, nearly all of them GenRL's
    make bench ARGS=--quick           a minute: shows that it runs; its gains mean nothing
    make bench ARGS='--rounds 500'    what is learned shows with the rounds: swarmd warms up for the first twenty

What is the same for all: the embedded model in fp32, the tasks of every round (drawn by node id and round), how many
they are (--tasks; the configuration's default), 8 completions of each, their length, the sampling temperature, torch's
threads, GenRL's own game loop and state, and the scorer, which is swarmd's. All that differs is the trainer and the
data manager that feeds it. Each run is a process of its own, one at a time; the arms take turns, seed by seed.

Arms: swarmd with what the daemon's default configuration makes of it; GenRL as shipped (learning rate 1e-6, an
optimizer step for every two completions, gradient checkpointing); and GenRL with swarmd's learning rate, so that the
comparison is not of two numbers in a configuration. `--arms` chooses, and knows a fourth, genrl-step, which also takes
a single optimizer step a round.

How to read it:
- wall, generate, train, other, CPU: median seconds of a round over all seeds. `other` is what the trainers do not do:
  drawing tasks, the data manager, scoring. CPU counts all threads of the process; when the machine has other work,
  trust it more than wall. The scorer is a process of its own: its seconds are in `other`, its memory nowhere.
- peak MiB: most resident memory during the rounds (VmHWM), most of it Python and torch; + model: how much of it came
  on top of the loaded model, which is what the trainer uses.
- held-out score: mean reward over tasks that training never sees, before and after, mean over the seeds. All weights
  are scored by one function, that of `swarmd eval`: sampled at the training temperature, and greedily. ± is the
  standard error over the tasks; a gain below two of them may be chance.
- steps, weights moved: a trainer that did nothing would show here. GenRL drops exceptions of its trainer; here they
  end the run and are shown, and the exit code is 1.
- swarmd against: GenRL's seconds and bytes over swarmd's; swarmd's gain over GenRL's, "-" where GenRL's is none, with
  a question mark where one of the two may be chance.

Nothing is asserted about figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from swarmd.system.startup import prepare_process

prepare_process()
# Here and in the runs: GenRL takes a GPU wherever it sees one, and would then be compared with a CPU.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from swarmd.tasks.scorer import Scorer  # noqa: E402  (the environment comes first)
from swarmd.training.trainer import WEIGHTS_FILE  # noqa: E402
from tests.bench import report  # noqa: E402
from tests.bench.arms import ARMS, DEFAULT_ARMS, RESULT_FILE, SWARMD, RunResult, RunSpec  # noqa: E402
from tests.bench.heldout import Heldout, Judge  # noqa: E402
from tests.bench.summary import ArmSummary, Judged, Ratios, ratios, summarise  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
ROUNDS, SEEDS, SAMPLES = 25, "1,2,3", 2000
QUICK_ROUNDS, QUICK_SEEDS, QUICK_SAMPLES = 3, "1", 500


def main() -> int:
    """0, or 1 where a run failed."""
    options = parse()
    keys = [ARMS[key] for key in options.arms]
    judged: list[Judged] = []
    with Scorer() as scorer, tempfile.TemporaryDirectory(prefix="swarmd-bench-") as folder:
        judge = Judge(scorer, options.heldout)
        base = judge.score(None)
        say(f"before training: held-out {mean(base.sampled):.3f} sampled, {mean(base.greedy):.3f} greedy")
        runs = [(seed, arm) for seed in options.seeds for arm in keys]
        for number, (seed, arm) in enumerate(runs, start=1):
            one = judge_run(judge, run(RunSpec(arm.key, seed, options.rounds, options.tasks, folder)), Path(folder))
            judged.append(one)
            say(f"[{number}/{len(runs)}] seed {seed}, {arm.title}: {told(one, base)}")
    summaries = {arm.key: line for arm in keys if (line := summarise(arm, judged, base)) is not None}
    ours = summaries.get(SWARMD.key)
    compared = [ratios(ours, line) for key, line in summaries.items() if ours and key != SWARMD.key]
    failed = [one.run for one in judged if one.run.error]
    if options.json:
        print(json.dumps(as_json(options, judged, summaries, compared), indent=1))
    else:
        tasks = options.tasks or judge.default_tasks
        parts = (
            report.heading(judge, options.rounds, tasks, options.seeds, len(base.sampled)),
            report.costs(list(summaries.values())),
            report.learning(list(summaries.values())),
            report.comparison(compared),
            report.failures(failed),
        )
        print("\n\n".join("\n".join(part) for part in parts).rstrip())
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    """The command line; seeds and arms as lists."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a minute instead of ten")
    parser.add_argument("--rounds", type=natural, help=f"rounds of each run (default: {ROUNDS})")
    parser.add_argument("--tasks", type=natural, help="tasks of a round (default: the configuration's)")
    parser.add_argument("--seeds", metavar="A,B,...", help=f"default: {SEEDS}")
    parser.add_argument("--heldout", type=natural, metavar="N", help=f"held-out tasks (default: {SAMPLES})")
    parser.add_argument("--arms", default=",".join(DEFAULT_ARMS), metavar="A,B,...", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--json", action="store_true", help="print JSON, every round's seconds included")
    options = parser.parse_args()
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    options.heldout = options.heldout or (QUICK_SAMPLES if options.quick else SAMPLES)
    try:
        options.seeds = [int(seed) for seed in (options.seeds or (QUICK_SEEDS if options.quick else SEEDS)).split(",")]
    except ValueError:
        parser.error(f"--seeds takes whole numbers with commas between, not {options.seeds!r}")
    options.arms = options.arms.split(",")
    if unknown := [key for key in options.arms if key not in ARMS]:
        parser.error(f"--arms: there is no {unknown[0]!r}; those known are {', '.join(ARMS)}")
    return options


def natural(text: str) -> int:
    """An argument that is a whole number above 0. ValueError, which argparse puts into words, where it is not."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def run(spec: RunSpec) -> RunResult:
    """Runs the spec in a new process; a process that dies without a result is a failed run."""
    result, weights = Path(spec.folder, RESULT_FILE), Path(spec.folder, WEIGHTS_FILE)
    for left in (result, weights):
        left.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.bench.run", json.dumps(asdict(spec))]
    # What libraries print must not get into the JSON on stdout.
    ended = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if ended.returncode or not result.exists():
        return RunResult(spec.arm, spec.seed, error=f"the run's process ended with code {ended.returncode}")
    return RunResult(**json.loads(result.read_text()))


def judge_run(judge: Judge, result: RunResult, folder: Path) -> Judged:
    """The run with its held-out score."""
    return Judged(result, None if result.error else judge.score(folder / WEIGHTS_FILE))


def told(one: Judged, base: Heldout) -> str:
    """A run in a few words."""
    if one.after is None:
        return f"FAILED: {one.run.error.strip().splitlines()[-1]}"
    return (
        f"{len(one.run.round_seconds)} rounds in {sum(one.run.round_seconds):.1f} s, {one.run.steps} steps; held-out "
        f"{mean(one.after.sampled):.3f} ({mean(one.after.sampled) - mean(base.sampled):+.3f}), "
        f"greedy {mean(one.after.greedy):.3f} ({mean(one.after.greedy) - mean(base.greedy):+.3f})"
    )


def as_json(
    options: argparse.Namespace,
    judged: Sequence[Judged],
    summaries: dict[str, ArmSummary],
    compared: Sequence[Ratios],
) -> dict[str, object]:
    """Everything that was measured."""
    return {
        "settings": {name: getattr(options, name) for name in ("rounds", "tasks", "seeds", "heldout", "arms")},
        "arms": {key: asdict(line) for key, line in summaries.items()},
        "ratios": [asdict(one) for one in compared],
        "runs": [asdict(one.run) for one in judged],
    }


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
