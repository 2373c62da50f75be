"""Finds secrets that stand in the configuration itself, and takes them out before anything repeats them."""

from __future__ import annotations

from collections.abc import Iterable

from swarmd.config.messages import field_at
from swarmd.config.problems import ConfigProblem
from swarmd.config.secret_values import is_secret_name, secret_kind
from swarmd.config.tree import Node, Path, dotted


def without_secrets(node: Node, problems: list[ConfigProblem], path: Path = ()) -> Node:
    """The tree without the values that are secrets; each is added to the problems, never with its value."""
    children: Iterable[tuple[str | int, Node]]
    if isinstance(node.value, dict):
        children = node.value.items()
    elif isinstance(node.value, list):
        children = enumerate(node.value)
    else:
        return node
    kept: list[tuple[str | int, Node]] = []
    for key, child in children:
        message = _objection((*path, key), child)
        if message is None:
            kept.append((key, without_secrets(child, problems, (*path, key))))
            continue
        problem = ConfigProblem(child.place.file, child.place.line, dotted((*path, key)), None, message)
        if problem not in problems:
            problems.append(problem)
    if isinstance(node.value, list):
        return Node([child for _, child in kept], node.place, node.raw)
    return Node({str(key): child for key, child in kept}, node.place, node.raw)


def _objection(path: Path, node: Node) -> str | None:
    """Why a value cannot stand at a path, or None. A key that the models know is no secret by its name."""
    name = str(path[-1])
    kind = secret_kind(name) or (secret_kind(node.raw) if node.raw is not None else None)
    if kind is not None:
        return f"this looks like {kind}, and secrets never stand in the configuration; {_advice(kind, path)}"
    if node.value is not None and is_secret_name(name) and field_at(path) is None:
        return f"this key holds a secret, and secrets never stand in the configuration; {_advice('', path)}"
    return None


def _advice(kind: str, path: Path) -> str:
    if kind.startswith("an invite"):
        return "give it to swarmd join, which writes what belongs here"
    section = path[0]
    if kind.startswith("a URL") and section != "coordinator":
        return "write the address without it"
    if kind.startswith("a URL"):
        key = "coordinator.rpc_url_file"
    elif section == "network":
        key = "network.identity_file"
    elif section == "swarm":
        key = "swarm.secret_file"
    elif section in ("coordinator", "market") or kind == "a private key":
        key = "coordinator.key_file"
    elif section == "hub" or kind.startswith("a Hugging Face"):
        key = "hub.token_file"
    else:
        return "take it out"
    return (
        f"put it into a file that only swarmd can read and name that with {key}, "
        f"or pass a systemd credential and write {key}: credential:NAME"
    )
