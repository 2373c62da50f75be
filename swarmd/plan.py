"""What `swarmd check` prints: what the node would do with this configuration on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swarmd.assembly import choose_model
from swarmd.config import Config
from swarmd.game.history import HISTORY_FILE, Curves
from swarmd.system.paths import state_directory
from swarmd.tasks.mix_files import mix_of
from swarmd.training.choices import max_new_tokens
from swarmd.unbuilt import refuse_what_is_not_built

_MIB = 1024 * 1024


def make_plan(config: Config, state_flag: Path | None) -> dict[str, Any]:
    """The plan as JSON values. Nothing is loaded, fetched or written but an empty state directory.

    Raises:
        ConfigurationError: the node would refuse to run.
    """
    refuse_what_is_not_built(config)
    state = state_directory(state_flag)
    curves = Curves.of(state / HISTORY_FILE)
    chosen = choose_model(config, curves.fact("model"))
    last = curves.last()
    curves.close()
    datasets: dict[str, float] = {}
    if config.tasks.environment == "reasoning_gym":
        datasets = {part.name: round(part.share, 4) for part in mix_of(config.tasks.datasets).parts}
    plan = chosen.plan
    return {
        "state": str(state),
        "last_round": last.round if last else None,
        "model": {
            "name": chosen.name,
            "folder": str(chosen.folder) if chosen.folder else None,
            "parameters": chosen.shape.parameters if chosen.shape else None,
        },
        "device": str(chosen.device),
        "memory": {
            "limit": chosen.limit.bytes,
            "limit_source": chosen.limit.source,
            "predicted": plan.predicted_bytes if plan else None,
            "mode": plan.mode if plan else None,
            "token_budget": plan.token_budget if plan else None,
            "rows_at_once": plan.rows_at_once if plan else None,
        },
        "round": {
            "tasks": config.training.tasks_per_round,
            "group_size": config.training.group_size,
            "max_new_tokens": max_new_tokens(config.training, chosen.name),
        },
        "tasks": {"environment": config.tasks.environment, "datasets": datasets},
        "coordinator": config.coordinator.kind,
        "peers": list(config.swarm.peers),
    }


def plan_lines(plan: dict[str, Any]) -> Iterator[str]:
    """The plan in words."""
    model, memory, shape = plan["model"], plan["memory"], plan["round"]
    going_on = f", goes on after round {plan['last_round']}" if plan["last_round"] is not None else ""
    yield "the configuration is good"
    yield f"state        {plan['state']}{going_on}"
    if model["parameters"] is None:
        yield f"model        {model['name']}, fetched at the first start, or by `swarmd model pull {model['name']}`"
        yield f"memory       {memory['limit'] // _MIB} MiB ({memory['limit_source']}), planned when the model is there"
    else:
        yield f"model        {model['name']}, {model['parameters'] / 1e6:.1f} M parameters, on {plan['device']}"
        yield (f"memory       {memory['predicted'] // _MIB} MiB predicted of {memory['limit'] // _MIB} MiB "
               f"({memory['limit_source']}): {memory['mode']}, {memory['rows_at_once']} completions at once, "
               f"{memory['token_budget']} tokens a micro-batch")
    yield (f"round        {shape['tasks']} tasks x {shape['group_size']} completions of at most "
           f"{shape['max_new_tokens']} tokens")
    mix = ", ".join(f"{name} {share:.0%}" for name, share in plan["tasks"]["datasets"].items())
    yield f"tasks        {plan['tasks']['environment']}{': ' + mix if mix else ''}"
    yield f"coordinator  {plan['coordinator']}"
    yield f"peers        {', '.join(plan['peers']) or 'none'}"
