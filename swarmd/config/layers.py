"""Trees laid over each other: defaults below, then files, then the environment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from swarmd.config.config import Config
from swarmd.config.messages import is_section
from swarmd.config.tree import Node


def merge(layers: Iterable[Node]) -> Node | None:
    """One tree of all, later ones winning: maps merge by key, lists and scalars are replaced."""
    merged: Node | None = None
    for layer in layers:
        layer = _without_empty_sections(layer, Config)
        merged = layer if merged is None else _merged(merged, layer)
    return merged


def _merged(below: Node, above: Node) -> Node:
    if not isinstance(below.value, dict) or not isinstance(above.value, dict):
        return above
    value = dict(below.value)
    for key, child in above.value.items():
        value[key] = _merged(value[key], child) if key in value else child
    return Node(value, above.place, above.raw)


def _without_empty_sections(node: Node, section: Any) -> Node:
    """`training:` with all keys commented out says nothing; as null it would wipe the layers below."""
    if not isinstance(node.value, dict):
        return node
    kept = {}
    for key, child in node.value.items():
        field = section.model_fields.get(key)
        if field is None or not is_section(field.annotation):
            kept[key] = child
        elif child.value is not None:
            kept[key] = _without_empty_sections(child, field.annotation)
    return Node(kept, node.place, node.raw)
