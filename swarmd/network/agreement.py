"""What all nodes of a swarm must have alike, and one hash of it, by which they see at once whether they do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version

from swarmd.config import Config
from swarmd.tasks.mix import ENVIRONMENT, TaskMix
from swarmd.tasks.mix_files import mix_of

_DOMAIN = "swarmd/agreement/1"


@dataclass(frozen=True)
class Agreement:
    """Which tasks there are, when which round is, and where and how records are published.

    parts: of each dataset of the mix, in its order, name, share of all draws (0..1) and hash of its settings; of
    another environment than reasoning-gym, the settings as JSON. epoch, round_seconds: seconds.
    """

    environment: str
    parts: tuple[tuple[str, float, str], ...]
    reasoning_gym: str
    dialect: str
    shards: int
    epoch: float
    round_seconds: float

    @property
    def hash(self) -> str:
        """64 hexadecimal digits (SHA-256); the same on every machine."""
        text = json.dumps([_DOMAIN, asdict(self)], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def agreement_of(config: Config, mix: TaskMix | None = None) -> Agreement:
    """What this configuration makes of it. mix: the one of config.tasks, where it has been made already.

    Raises MixError (a ConfigurationError) where the tasks cannot be made.
    """
    environment, gym = config.tasks.environment, ""
    if environment == ENVIRONMENT:
        made = mix if mix is not None else mix_of(config.tasks.datasets)
        parts = tuple((part.name, part.share, part.config_hash) for part in made.parts)
        gym = version("reasoning-gym")
    else:
        settings = config.tasks.model_dump(mode="json", include={"datasets"})
        parts = (("", 1.0, json.dumps(settings, sort_keys=True)),)
    return Agreement(
        environment,
        parts,
        gym,
        config.swarm.dialect,
        config.swarm.shards,
        float(config.coordinator.epoch),
        float(config.coordinator.round_seconds),
    )
