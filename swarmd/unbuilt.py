"""What the configuration can ask for and this version cannot do yet."""

from __future__ import annotations

from swarmd.config import Config
from swarmd.system.exits import ConfigurationError


def refuse_what_is_not_built(config: Config) -> None:
    """Raises ConfigurationError for settings that this version understands but cannot carry out yet."""
    if config.coordinator.kind in ("wallet", "modal"):
        raise ConfigurationError(
            f"coordinator.kind is {config.coordinator.kind}, but this version cannot report to a chain yet; "
            "use coordinator.kind: solo or clock"
        )
