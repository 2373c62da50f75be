"""`swarmd model export`: the trained weights as a folder that transformers loads."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError

from swarmd.commands.trained import open_trained
from swarmd.config import Config
from swarmd.system.exits import ConfigurationError


def export_model(config: Config, state_flag: Path | None, target: Path) -> str:
    """Writes the last checkpoint's weights with config and tokenizer into `target`, a new or empty folder.

    Returns a line that says what was written.

    Raises:
        ConfigurationError: there is no checkpoint, or the folder is in use or cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(f"{target} exists already and is no empty folder; name another one")
    trained = open_trained(config, state_flag)
    round = trained.restore()
    try:
        target.mkdir(parents=True, exist_ok=True)
        trained.trainer.model.save_pretrained(target)
        trained.trainer.tokens.tokenizer.save_pretrained(target)
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(f"{target} cannot be written: {error}") from error
    return f"{target}: {trained.name} after round {round}"
