"""Settings from environment variables: `SWARMD_<SECTION>__<KEY>`, with values written as in YAML."""

from __future__ import annotations

from collections.abc import Mapping

from swarmd.config.config import Config
from swarmd.config.messages import field_at
from swarmd.config.problems import ConfigProblem
from swarmd.config.secret_values import shown
from swarmd.config.tree import Node, Place
from swarmd.config.yaml_tree import read_tree

PREFIX = "SWARMD_"
_FORM = f"is not of the form {PREFIX}SECTION__KEY, with two underscores"


def read_environment(environ: Mapping[str, str]) -> tuple[list[Node], list[ConfigProblem]]:
    """A tree for each variable, in name order, and what is wrong with their names.

    Other SWARMD_ variables are left alone (Kubernetes sets some for a service of that name), unless one reads
    like a setting with too few underscores, which would be overlooked silently.
    """
    layers: list[Node] = []
    problems: list[ConfigProblem] = []
    for name in sorted(environ):
        if not name.startswith(PREFIX):
            continue
        place = Place(f"environment {shown(name, 200)}", None)
        path = tuple(name.removeprefix(PREFIX).lower().split("__"))
        if len(path) == 1:
            meant = _meant(path[0])
            if meant is not None:
                problems.append(ConfigProblem(place.file, None, "", None, f"{_FORM}; did you mean {meant}?"))
        elif not all(path) or len(path) > 3:
            problems.append(ConfigProblem(place.file, None, "", None, _FORM))
        else:
            node = _value(environ[name], place)
            for part in reversed(path):
                node = Node({part: node}, place)
            layers.append(node)
    return layers, problems


def _value(text: str, place: Place) -> Node:
    """The value that a variable holds. What is not YAML, such as "@home", may still be a key's text."""
    node, problems = read_tree(text, place)
    if problems:
        return Node(text.encode(errors="replace").decode(), place, raw=text)
    return Node(None if node is None else node.value, place, raw=text)


def _meant(name: str) -> str | None:
    for section in Config.model_fields:
        if name == section:
            return f"{PREFIX}{section.upper()}__..."
        key = name.removeprefix(f"{section}_")
        if key != name and field_at((section, key)) is not None:
            return f"{PREFIX}{section}__{key}".upper()
    return None
