"""`swarmd eval`: the last checkpoint's held-out score, beside the base model's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swarmd.assembly import open_environment
from swarmd.commands.trained import open_trained
from swarmd.config import Config
from swarmd.game.evaluation import Evaluator, Scored
from swarmd.monitor.progress import progress
from swarmd.tasks.scorer import Scorer


def evaluate(config: Config, state_flag: Path | None, samples: int | None, seed: int) -> dict[str, Any]:
    """Scores base model and last checkpoint on the same held-out tasks with the same noise; JSON values.

    Raises:
        ConfigurationError: there is no checkpoint, or it belongs to another model.
    """
    trained = open_trained(config, state_flag)
    temperature = config.training.temperature
    with Scorer() as scorer:
        environment = open_environment(
            config, trained.name, scorer, "eval", samples or config.training.evaluate_samples, heldout_seed=seed
        )
        evaluator = Evaluator(environment, trained.trainer, temperature)
        round = trained.restore()  # first: where there is no checkpoint, nobody should wait to hear so
        now, greedy = _score(evaluator, temperature, "trained"), _score(evaluator, 0.0, "trained, greedy")
        trained.start_over()
        base, base_greedy = _score(evaluator, temperature, "base"), _score(evaluator, 0.0, "base, greedy")
    means, base_means = now.means(), base.means()
    return {
        "heldout": now.mean,
        "base": base.mean,
        "greedy": greedy.mean,
        "base_greedy": base_greedy.mean,
        "round": round,
        "samples": now.count,
        "seed": seed,
        "datasets": {
            name: {"heldout": means[name], "base": base_means[name], "samples": len(rewards)}
            for name, rewards in sorted(now.by_dataset.items())
        },
    }


def _score(evaluator: Evaluator, temperature: float, what: str) -> Scored:
    with progress(what, "task") as show:
        return evaluator.score(temperature, show)


def table(result: dict[str, Any]) -> Iterator[str]:
    """The result as a table."""
    yield f"held-out score over {result['samples']} tasks, after round {result['round']}"
    yield f"{'':24}{'base':>8}{'now':>8}{'change':>9}"
    rows = [("sampled", result["base"], result["heldout"]), ("greedy", result["base_greedy"], result["greedy"])]
    rows += [(name, scores["base"], scores["heldout"]) for name, scores in result["datasets"].items()]
    for name, base, now in rows:
        yield f"{name:24}{base:8.3f}{now:8.3f}{now - base:+9.3f}"
