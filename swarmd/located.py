"""Where the settings stand that could not be used: mistakes that only show when a setting is used get file and line,
as those do that show when it is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swarmd.config import ConfigErrors
from swarmd.config.loading import located
from swarmd.system.exits import ConfigurationError, SettingsRefused


class LocatedError(ConfigurationError):
    """Settings that cannot be used, with their places: `problems`."""

    def __init__(self, errors: ConfigErrors) -> None:
        self.problems = errors.problems
        super().__init__(f"the configuration cannot be used:\n{errors}")


@contextmanager
def naming_lines(config_path: Path | None) -> Iterator[None]:
    """Raises LocatedError in place of a SettingsRefused of the block.

    config_path: of the file that the settings were read from, None for the default one.
    """
    try:
        yield
    except SettingsRefused as error:
        found = [(problem.key, problem.message) for problem in error.problems]
        raise LocatedError(ConfigErrors(located(config_path, os.environ, found))) from error
