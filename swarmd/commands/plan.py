"""What `swarmd check` prints: what the node would do with this configuration on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swarmd.config import Config
from swarmd.game.history import HISTORY_FILE, Curves
from swarmd.planned import planned, python_path_of, unit_of, user_of
from swarmd.system.exits import SettingProblem, SettingsRefused
from swarmd.system.installation import Installation
from swarmd.system.paths import state_directory
from swarmd.tasks.mix import ENVIRONMENT
from swarmd.tasks.mix_files import mix_of
from swarmd.tasks.plug_in import check_factory
from swarmd.training.choices import max_new_tokens
from swarmd.unbuilt import refuse_what_is_not_built

_MIB = 1024 * 1024


def make_plan(
    config: Config, config_path: Path | None, state_flag: Path | None, named: Installation
) -> dict[str, Any]:
    """The plan as JSON values. Nothing is loaded, fetched or written but an empty state directory.

    config_path: of the file that config was read from, None for the default one. named: the places of the service.

    Raises:
        ConfigurationError: the node would refuse to run.
    """
    refuse_what_is_not_built(config)
    unit = unit_of(config_path, state_flag, named)
    state = state_directory(state_flag)
    datasets, refused = _shares(config, state, unit)
    try:
        chosen = planned(config, state, unit)
    except SettingsRefused as error:
        raise SettingsRefused([*error.problems, *refused]) from None
    if refused:
        raise SettingsRefused(refused)
    curves = Curves.of(state / HISTORY_FILE)
    last = curves.last()
    curves.close()
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


def _shares(config: Config, state: Path, unit: str | None) -> tuple[dict[str, float], tuple[SettingProblem, ...]]:
    """The part of each dataset in all tasks (0..1), none for an environment of one's own; and what is wrong."""
    try:
        if config.tasks.environment == ENVIRONMENT:
            return {part.name: round(part.share, 4) for part in mix_of(config.tasks.datasets).parts}, ()
        check_factory(config.tasks.environment, user_of(unit, state), python_path_of(unit))
    except SettingsRefused as error:
        return {}, error.problems
    return {}, ()


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
