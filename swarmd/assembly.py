"""Puts the parts together that more than one command needs: model, plan, trainer, environment."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from swarmd.config import Config
from swarmd.swarming import SOLO_SWARM, network_bytes
from swarmd.system.exits import ConfigurationError, RestartableError, SettingProblem, SettingsRefused
from swarmd.system.memory import MemoryLimit, memory_limit
from swarmd.system.paths import cache_directory
from swarmd.tasks.environment import Environment, EnvironmentContext, Scoring, load_environment
from swarmd.tasks.legacy_table import LEGACY_TABLE, load_table
from swarmd.tasks.reasoning import resolve_system_prompt
from swarmd.training.catalog import choose
from swarmd.training.choices import max_new_tokens, recipe_for
from swarmd.training.hub import cached_folder
from swarmd.training.memory import DoesNotFit, MemoryPlan, ModelShape, RoundShape, choose_plan, kept_beside
from swarmd.training.models import (
    CONTRADICTIONS,
    EMBEDDED,
    LoadedModel,
    ModelError,
    describe,
    embedded_folder,
    first_line,
    is_hub_name,
    load_model,
    read_config,
)
from swarmd.training.recipe import PRECISIONS
from swarmd.training.trainer import GRPOTrainer

# Room for a question with its instruction; longer prompts cost more than planned, and the plan says what it assumed.
_EMBEDDED_PROMPT_TOKENS = 48
_PROMPT_TOKENS = 512
# Held-out tasks: the same for every node, so that scores of different nodes can be compared.
HELDOUT_SEED = 0


@dataclass(frozen=True)
class Chosen:
    """The model that will be trained and how, known before its weights are touched.

    folder: None while it has yet to be fetched, and then `shape` and `plan` are None as well.
    """

    name: str
    folder: Path | None
    shape: ModelShape | None
    plan: MemoryPlan | None
    limit: MemoryLimit
    device: torch.device


def the_device(config: Config) -> torch.device:
    """Where to compute. A GPU that is asked for and not there is an error: the node must not fall back in silence.

    Raises:
        ConfigurationError: this torch cannot use a GPU at all.
        RestartableError: it could, but finds none; at boot the driver may come later than the node.
    """
    if config.model.device == "cpu" or (config.model.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.version.cuda is None:
        raise ConfigurationError(
            "model.device is cuda, but this torch is a build without CUDA; install the one with it (make run "
            "FLAVOUR=cuda, or the package swarmd-cuda), or set model.device: cpu"
        )
    raise RestartableError(
        "model.device is cuda, but torch finds no GPU; look at `nvidia-smi` for the driver, or set model.device: cpu"
    )


def the_limit(config: Config, device: torch.device, unit: MemoryLimit | None = None) -> MemoryLimit:
    """The memory that training may use, on the device where it happens. unit: that of the service it will happen in,
    where that is not the control group of this process."""
    if device.type == "cuda":
        found = MemoryLimit(torch.cuda.get_device_properties(device).total_memory, "the GPU's memory")
    else:
        found = min(filter(None, (memory_limit(), unit)), key=lambda limit: limit.bytes)
    if config.memory.limit == "auto" or config.memory.limit >= found.bytes:
        return found
    return MemoryLimit(config.memory.limit, "memory.limit")


def choose_model(config: Config, remembered: str | None, unit: MemoryLimit | None = None) -> Chosen:
    """Which model, where it is and how it fits.

    remembered: what `auto` chose at the first start. unit: as in `the_limit`.

    Raises:
        ConfigurationError: no such model, a damaged one, or one that does not fit the memory limit.
    """
    device = the_device(config)
    limit = the_limit(config, device, unit)
    beside = network_bytes(config) if device.type == "cpu" else 0  # not in a GPU's memory
    name = config.model.name
    if name == "auto":
        available = f"{limit.bytes / 2**30:.1f} GiB ({limit.source}){kept_beside(beside)}"
        name = remembered or choose(lambda raw: _fits(config, raw, limit, beside), available)
    folder: Path | None
    if name == EMBEDDED:
        folder = embedded_folder()
    elif is_hub_name(name):
        folder = cached_folder(name, config.model.revision, hub_cache())
        if folder is None:
            return Chosen(name, None, None, None, limit, device)
    else:
        folder = Path(name)
    try:
        shape = _shape(read_config(folder, name), name)
    except ModelError as error:
        raise SettingsRefused([SettingProblem("model.name", str(error))]) from None
    rounds = _round_shape(config, name, _short_prompts(shape))
    plan = choose_plan(shape, rounds, limit.bytes, _requested(config), beside)
    if config.training.micro_batch_tokens != "auto":
        plan = replace(plan, token_budget=config.training.micro_batch_tokens)
    return Chosen(name, folder, shape, plan, limit, device)


def hub_cache() -> Path:
    """Where fetched models are kept."""
    return cache_directory() / "huggingface"


def make_trainer(config: Config, chosen: Chosen, seed: int) -> GRPOTrainer:
    """Loads the model and sets up its training."""
    loaded = load_base(chosen)
    assert chosen.plan is not None  # as load_base has made sure
    recipe = recipe_for(config.training, loaded, chosen.plan, seed)
    leanest = PRECISIONS[-1] if _requested(config) == "auto" else chosen.plan.mode
    return GRPOTrainer(loaded, recipe, chosen.plan.rows_at_once, leanest)


def load_base(chosen: Chosen) -> LoadedModel:
    """The chosen model as it is before any training.

    Raises:
        ModelError: it has not been fetched, or its files are damaged.
    """
    if chosen.folder is None or chosen.plan is None:
        raise ModelError(f"model {chosen.name}: it has not been fetched; run `swarmd model pull {chosen.name}`")
    dtype = torch.float32 if chosen.plan.mode == "fp32" else torch.bfloat16
    return load_model(chosen.name, chosen.folder, dtype, chosen.device)


def open_environment(
    config: Config, model_name: str, scorer: Scoring, node_id: str, samples: int, heldout_seed: int = HELDOUT_SEED
) -> Environment:
    """The environment that `tasks` names, for this node."""
    context = EnvironmentContext(
        swarm_id=config.swarm.id or SOLO_SWARM,
        node_id=node_id,
        tasks_per_round=config.training.tasks_per_round,
        group_size=config.training.group_size,
        scorer=scorer,
        evaluate_samples=samples,
        seed=heldout_seed,
        system_prompt=resolve_system_prompt(config.tasks.system_prompt, embedded=model_name == EMBEDDED),
        peer_seconds=config.network.limits.scoring_seconds,
        by_question=load_table(LEGACY_TABLE).find if config.swarm.dialect != "swarmd" else None,
    )
    return load_environment(config.tasks.environment, config.tasks, context)


def yardstick_of(config: Config, model_name: str) -> str:
    """Stands for all that a held-out score depends on but the weights: scores under different ones say nothing
    together."""
    measured = [
        config.tasks.model_dump(mode="json"),
        config.training.temperature,
        config.training.evaluate_samples,
        max_new_tokens(config.training, model_name),
        HELDOUT_SEED,
    ]
    return hashlib.sha256(json.dumps(measured, sort_keys=True).encode()).hexdigest()[:16]


def new_node_id(seed: int | None) -> str:
    """32 hexadecimal digits that tell this node from all others; with a seed always the same ones."""
    return f"{seed:032x}" if seed is not None else secrets.token_hex(16)


def new_seed() -> int:
    """A seed for a node whose configuration has none."""
    return int.from_bytes(os.urandom(7), "big")


def _requested(config: Config) -> Any:
    if config.memory.plan != "auto":
        return config.memory.plan
    return {"auto": "auto", "float32": "fp32", "bfloat16": "bf16-sr"}[config.model.dtype]


def _short_prompts(shape: ModelShape) -> bool:
    """Whether this is the embedded model, perhaps trained, exported and come back under another name: its tokens are
    words of the tasks."""
    return shape == _shape(read_config(embedded_folder(), EMBEDDED), EMBEDDED)


def _round_shape(config: Config, name: str, short_prompts: bool) -> RoundShape:
    return RoundShape(
        prompts=config.training.tasks_per_round,
        group_size=config.training.group_size,
        prompt_tokens=_EMBEDDED_PROMPT_TOKENS if short_prompts else _PROMPT_TOKENS,
        max_new_tokens=max_new_tokens(config.training, name),
    )


def _shape(raw: dict[str, Any], name: str) -> ModelShape:
    described = describe(raw, name)
    try:
        return ModelShape.of(described)
    except CONTRADICTIONS as error:
        raise ModelError(
            f"model {name}: its config.json describes no causal language model: {first_line(error)}"
        ) from None


def _fits(config: Config, raw: dict[str, Any], limit: MemoryLimit, beside: int) -> bool:
    try:
        shape = _round_shape(config, "auto", short_prompts=False)
        choose_plan(_shape(raw, "auto"), shape, limit.bytes, _requested(config), beside)
    except DoesNotFit:
        return False
    return True
