"""What a node decides once and remembers: who it is, and which model it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from swarmd.assembly import Chosen, choose_model, hub_cache, new_node_id, new_seed
from swarmd.config import Config
from swarmd.fetching import fetch
from swarmd.game.history import History
from swarmd.system.events import event
from swarmd.training.models import ModelError


def remembered_identity(history: History, wanted: int | None) -> tuple[str, int]:
    """Node id and seed, drawn at the first start: no two nodes draw the same tasks, no restart draws them again.

    wanted: training.seed.
    """
    node_id, seed = history.fact("node_id"), history.fact("seed")
    if node_id is None or seed is None:
        seed = str(new_seed() if wanted is None else wanted)
        node_id = new_node_id(wanted)
        history.remember("node_id", node_id)
        history.remember("seed", seed)
    return node_id, int(seed) if wanted is None else wanted


def choose(config: Config, config_path: Path | None, history: History, doing: Callable[[str], None]) -> Chosen:
    """The model, its folder and its memory plan; fetched first where it is not in the cache.

    doing(what): told what is being done, and again whenever more of a model has arrived.

    Raises:
        ConfigurationError: no such model, a damaged one, or one that does not fit the memory limit.
        RestartableError: it could not be fetched now.
    """
    remembered = history.fact("model")
    chosen = choose_model(config, remembered)
    if chosen.folder is None:
        event("model_chosen", f"model {chosen.name} is not in the cache; fetching it", priority=5)
        doing(f"fetching model {chosen.name}")
        fetch(
            chosen.name, config_path,
            lambda size: doing(f"fetching model {chosen.name}, {size / 2**20:.0f} MiB in the cache"),
        )  # fmt: skip
        chosen = choose_model(config, chosen.name)
    if config.model.name == "auto" and remembered is None:
        history.remember("model", chosen.name)
    if chosen.plan is None:
        raise ModelError(f"model {chosen.name}: it was fetched, but the cache does not give it back; remove it "
                         f"from {hub_cache()} and start again")
    event(
        "model_chosen",
        f"model {chosen.name} trains in {chosen.plan.mode}: predicted peak "
        f"{chosen.plan.predicted_bytes / 2**20:.0f} MiB of {chosen.limit.bytes / 2**20:.0f} MiB "
        f"({chosen.limit.source})",
        model=chosen.name,
        mode=chosen.plan.mode,
        predicted_bytes=chosen.plan.predicted_bytes,
    )
    return chosen
