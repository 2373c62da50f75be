"""Settings as a tree in which every value knows where it was written."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from swarmd.config.secret_values import shown

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """Where something was written: a file and its line from 1, or "environment NAME" without a line."""

    file: str
    line: int | None


@dataclass(frozen=True)
class Node:
    """A value with its place.

    `raw` is the text as written (of scalars and of whole variables), `weight` the number of nodes with
    aliases expanded, `height` the levels below.
    """

    value: None | bool | int | float | str | dict[str, Node] | list[Node]
    place: Place
    raw: str | None = None
    weight: int = 1
    height: int = 0


def dotted(path: Path) -> str:
    """`("tasks", "datasets", 0, "weight")` as `tasks.datasets[0].weight`; a secret as key is hidden."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + shown(part)
    return text


def node_at(root: Node | None, path: Path) -> Node | None:
    """The node at a path of keys, if there is one."""
    for part in path:
        value = None if root is None else root.value
        if isinstance(value, dict) and isinstance(part, str):
            root = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            root = value[part]
        else:
            return None
    return root


def plain(node: Node, as_text: Collection[Path], path: Path = ()) -> Any:
    """The tree as dicts, lists and scalars; the values at the paths `as_text` as they were written."""
    if path in as_text and node.raw is not None:
        return node.raw
    if isinstance(node.value, dict):
        return {key: plain(child, as_text, (*path, key)) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child, as_text, (*path, index)) for index, child in enumerate(node.value)]
    return node.value
