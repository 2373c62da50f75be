"""Where a node's settings and its state are, as the commands that change its swarm look at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swarmd import swarm_drop_in
from swarmd.config import Config, ConfigErrors
from swarmd.config.files import own_folder
from swarmd.config.loading import Pending, Written, load_config, written
from swarmd.system.exits import ConfigurationError


@dataclass(frozen=True)
class Place:
    """Where a node's settings and its state are. config: None for the default one. options: those that named the node
    to this command, for another that a message proposes; "" where none did."""

    config: Path | None
    main: Path
    state: Path
    environ: Mapping[str, str]
    options: str = ""

    @property
    def drop_in(self) -> Path:
        return own_folder(self.main) / swarm_drop_in.NAME

    def load(self, pending: Pending | None = None) -> Config:
        """The configuration. Raises ConfigurationError."""
        try:
            return load_config(self.config, self.environ, pending)
        except ConfigErrors as errors:
            raise ConfigurationError(f"the configuration cannot be used:\n{errors}") from None

    def written(self, key: str, pending: Pending | None = None) -> Written | None:
        return written(self.config, self.environ, key, pending)

    def wrote(self, setting: Written) -> bool:
        """Whether it stands in this node's own drop-in."""
        return Path(setting.place.rpartition(":")[0]) == self.drop_in
