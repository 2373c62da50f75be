"""From an environment's name to its factory, by `tasks.environment`.

`reasoning_gym` is ours. `package.module:factory` names a function anywhere on Python's path; any other name is an
entry point of the group `swarmd.environments`. Without GenRL, whose import takes seconds: a check need not wait for it.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from swarmd.system.exits import SettingProblem, SettingsRefused

GROUP = "swarmd.environments"
BUILT_IN = {"reasoning_gym": "swarmd.tasks.reasoning:reasoning_environment"}


def find_factory(name: str) -> Callable[..., Any]:
    """The factory of this name, whose module is imported for it; it is not called.

    Raises SettingsRefused for a name that leads nowhere. What the module raises otherwise goes through.
    """
    target = target_of(name)
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise refused(f"{name!r}: there is no module {missing!r} on Python's path") from error
        raise refused(f"{name!r}: its module {module_name} needs {missing!r}, which is not installed") from error
    except (ImportError, SyntaxError) as error:
        raise refused(f"{name!r}: its module {module_name} cannot be imported: {error}") from error
    factory: Any = module
    for part in attribute.split("."):
        factory = getattr(factory, part, None)
    if factory is None:
        raise refused(f"{name!r}: the module {module_name} has no {attribute!r}")
    if not callable(factory):
        raise refused(f"{name!r}: {target} is a {type(factory).__name__}, not a function")
    made: Callable[..., Any] = factory
    return made


def target_of(name: str) -> str:
    """MODULE:ATTRIBUTE of the factory. Raises SettingsRefused for a name that nobody has registered."""
    return name if ":" in name else BUILT_IN.get(name) or _entry_point(name).value


def _entry_point(name: str) -> EntryPoint:
    found = entry_points(group=GROUP, name=name)
    for point in found:
        return point
    names = sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})
    near = difflib.get_close_matches(name, names, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    raise refused(f"there is no environment {name!r}{meant}; those found here are {', '.join(names)}")


def refused(message: str) -> SettingsRefused:
    """For `tasks.environment`, to be raised."""
    return SettingsRefused([SettingProblem("tasks.environment", message)])
