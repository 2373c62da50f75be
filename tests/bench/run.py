"""One run, in a process of its own: python -m tests.bench.run SPEC (RunSpec as JSON).

Leaves result.json (RunResult) and model.safetensors in the spec's folder.
"""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

from swarmd.system.startup import prepare_process

prepare_process()

import torch  # noqa: E402  (the environment comes first)
from tqdm import tqdm  # noqa: E402

from swarmd.tasks.scorer import Scorer  # noqa: E402
from swarmd.training.trainer import WEIGHTS_FILE  # noqa: E402
from swarmd.training.weights import save_weights  # noqa: E402
from tests.bench import peak  # noqa: E402
from tests.bench.arms import ARMS, RESULT_FILE, RunResult, RunSpec  # noqa: E402
from tests.bench.clock import Clock  # noqa: E402
from tests.bench.common import open_common  # noqa: E402
from tests.bench.genrl_side import genrl_side  # noqa: E402
from tests.bench.loop import TimedGame  # noqa: E402
from tests.bench.swarmd_side import swarmd_side  # noqa: E402


def main(argv: list[str]) -> None:
    """Runs the spec. An error is part of the result."""
    spec = RunSpec(**json.loads(argv[1]))
    folder = Path(spec.folder)
    try:
        result = play(spec, folder)
    except Exception:
        # Whatever it is, it belongs into the table: an arm that fails must not look like one that was not run.
        result = RunResult(spec.arm, spec.seed, error=traceback.format_exc())
    (folder / RESULT_FILE).write_text(json.dumps(asdict(result)))


def play(spec: RunSpec, folder: Path) -> RunResult:
    """Trains for the spec's rounds."""
    arm, common, clock = ARMS[spec.arm], open_common(spec.seed, spec.tasks), Clock()
    with Scorer() as scorer, tqdm(
        total=spec.rounds, desc=f"{arm.title}, seed {spec.seed}", unit="round", leave=False,
        disable=not sys.stderr.isatty(),
    ) as bar:  # fmt: skip
        side = genrl_side(common, scorer, arm, spec.rounds) if arm.genrl else swarmd_side(common, scorer)
        before = [weight.detach().clone() for weight in side.model.parameters()]
        game = TimedGame(side, spec.rounds, clock, bar.update)
        baseline = peak.begin()
        game.run_game()
        most = peak.peak_bytes()
    error = clock.failures[0] if clock.failures else ""
    if not error and len(game.round_seconds) != spec.rounds:
        error = f"only {len(game.round_seconds)} of {spec.rounds} rounds were played, and GenRL does not say why"
    moved = moved_by(before, side.model)
    if not error and not 0 < moved < float("inf"):
        error = f"after {clock.calls['step']} optimizer steps the weights have moved by {moved}"
    if not error:
        save_weights(side.model, folder / WEIGHTS_FILE)
    return RunResult(
        arm=spec.arm,
        seed=spec.seed,
        round_seconds=game.round_seconds,
        cpu_seconds=game.cpu_seconds,
        phase_seconds=game.phase_seconds,
        baseline_bytes=baseline,
        peak_bytes=most,
        learning_rate=side.learning_rate,
        steps=clock.calls["step"],
        moved=moved,
        rewards=game.mean_rewards,
        error=error,
    )


@torch.no_grad()
def moved_by(before: list[torch.Tensor], model: torch.nn.Module) -> float:
    """L2 norm of the weights' change, relative to theirs."""
    pairs = list(zip(before, model.parameters(), strict=True))
    change = sum(float((new.double() - old.double()).square().sum()) for old, new in pairs)
    return float((change / sum(float(old.double().square().sum()) for old, _ in pairs)) ** 0.5)


if __name__ == "__main__":
    main(sys.argv)
