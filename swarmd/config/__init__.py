"""The configuration: one frozen model a section, and the loading that tells where each mistake stands."""

from swarmd.config.config import Config
from swarmd.config.loading import DEFAULT_PATH, load_config
from swarmd.config.problems import ConfigErrors, ConfigProblem
from swarmd.config.secret_values import secret_path

__all__ = ["DEFAULT_PATH", "Config", "ConfigErrors", "ConfigProblem", "load_config", "secret_path"]
