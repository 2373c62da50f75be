"""The table of broken configurations: how each looks and what swarmd says. Every command ends with 78."""

from tests.unit.broken_config import BrokenConfig
from tests.unit.broken_config_files import FILES
from tests.unit.broken_config_layers import LAYERS
from tests.unit.broken_config_rules import RULES
from tests.unit.broken_config_values import VALUES

CASES: tuple[BrokenConfig, ...] = (*FILES, *VALUES, *RULES, *LAYERS)
