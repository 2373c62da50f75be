"""Loading: files, drop-ins and environment become one Config, or one list of everything that is wrong."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from swarmd.config.config import Config, contradictions_between
from swarmd.config.environment import read_environment
from swarmd.config.files import drop_ins, own_folder, read_text
from swarmd.config.inline_secrets import without_secrets
from swarmd.config.layers import merge
from swarmd.config.messages import allowed_at, key_path, unknown_key
from swarmd.config.problems import ConfigErrors, ConfigProblem
from swarmd.config.secret_values import shown
from swarmd.config.tree import Node, Place, dotted, node_at, plain
from swarmd.config.tree import Path as KeyPath
from swarmd.config.values import Contradiction, Section
from swarmd.config.yaml_tree import read_tree
from swarmd.config.yaml_words import plain_scalar

DEFAULT_PATH = Path("/etc/swarmd/config.yaml")


@dataclass(frozen=True)
class Pending:
    """A drop-in as it will be: its name in the config file's own folder, and its text; None: it will be gone."""

    name: str
    text: str | None


def load_config(path: Path | None, environ: Mapping[str, str], pending: Pending | None = None) -> Config:
    """The configuration from `path` (None: DEFAULT_PATH, which need not exist), its drop-ins (`config.files.drop_ins`),
    and the variables `SWARMD_<SECTION>__<KEY>`, each over the one before.

    pending: read as if this drop-in had been written already.

    Raises ConfigErrors with every problem of every layer.
    """
    return config_of(*_layers(path, environ, pending))


@dataclass(frozen=True)
class Written:
    """A setting as it was written. place: FILE:LINE or "environment NAME"; value: None where that says null."""

    value: Any
    place: str


def written(
    path: Path | None, environ: Mapping[str, str], key: str, pending: Pending | None = None
) -> Written | None:
    """Where the value that `load_config` finds for a dotted key comes from; None for a default."""
    layers, _, _ = _layers(path, environ, pending)
    node = node_at(merge(layers), _path_of(key))
    if node is None:
        return None
    place = node.place.file if node.place.line is None else f"{node.place.file}:{node.place.line}"
    return Written(None if node.value is None else plain(node, ()), place)


def located(
    path: Path | None, environ: Mapping[str, str], found: Iterable[tuple[str, str]]
) -> list[ConfigProblem]:
    """Problems with the places of their settings. found: (dotted key, message) of what only showed when it was used.

    A key that was not written is placed where the nearest one above it was.
    """
    layers, _, order = _layers(path, environ, None)
    root = merge(layers)
    problems = []
    for key, message in found:
        whole = _path_of(key)
        paths = [whole[:length] for length in range(len(whole), 0, -1)]
        nearest = next((node for part in paths if (node := node_at(root, part))), Node(None, Place("defaults", None)))
        exact = node_at(root, whole)
        value = _shown(exact, whole) if exact is not None and exact.raw is not None else None
        problems.append(ConfigProblem(nearest.place.file, nearest.place.line, key, value, message))
    return sorted(problems, key=lambda problem: _rank(problem, order))


def _layers(
    path: Path | None, environ: Mapping[str, str], pending: Pending | None
) -> tuple[list[Node], list[ConfigProblem], list[str]]:
    """The layers from the lowest on, what is wrong with them so far, and the order of their files and variables."""
    main = DEFAULT_PATH if path is None else path
    extra, problems = drop_ins(main)
    texts: dict[Path, str] = {}
    if pending is not None:
        changed = own_folder(main) / pending.name
        extra = [file for file in extra if file != changed]
        inherited = main.parent / "config.d" / pending.name
        if pending.text is not None:
            texts[changed] = pending.text
            extra = [*(file for file in extra if file.name != pending.name), changed]
        elif inherited != changed and inherited not in extra and os.path.lexists(inherited):
            extra.append(inherited)  # what it stood in place of comes into force again
        extra.sort(key=lambda file: file.name)
    files = [main, *extra]
    if path is None and not os.path.lexists(main):
        files = extra
    layers: list[Node] = []
    for file in files:
        layer, found = _read_file(file, texts.get(file))
        problems += found
        if layer is not None:
            layers.append(layer)
    variables, found = read_environment(environ)
    problems += found
    layers += variables
    return layers, problems, [*map(str, files), *(layer.place.file for layer in variables)]


def config_of(layers: Iterable[Node], problems: list[ConfigProblem], order: list[str]) -> Config:
    """The Config that the layers make. Raises ConfigErrors with the given problems and all that come up here,
    sorted by the order of the files and by line."""
    problems = list(problems)
    root = merge(without_secrets(layer, problems) for layer in layers)
    sections, found = _validated(root)
    if problems:
        # A file that could not be read, or a secret taken out, would show up again as a missing value.
        found = [error for error in found if not isinstance(error, Contradiction)]
    else:
        found += contradictions_between(sections)
    problems += _distinct(_problem(error, root) for error in found)
    if problems:
        raise ConfigErrors(sorted(problems, key=lambda problem: _rank(problem, order)))
    return Config(**sections)  # type: ignore[arg-type]


def _read_file(file: Path, text: str | ConfigProblem | None) -> tuple[Node | None, list[ConfigProblem]]:
    """The tree in a file; with a text, the one that it would have with that."""
    if text is None:
        text = read_text(file)
    if isinstance(text, ConfigProblem):
        return None, [text]
    root, problems = read_tree(text, Place(str(file), 1))
    if root is None or root.value is None:
        return None, problems
    if not isinstance(root.value, dict):
        message = "the file must be a map of sections, such as training: with group_size: 8 below it"
        return None, [*problems, ConfigProblem(str(file), root.place.line, "", None, message)]
    return root, problems


@dataclass(frozen=True)
class _Mistake:
    """One error of pydantic: its path of keys, and pydantic's name for it."""

    path: KeyPath
    kind: str


def _validated(root: Node | None) -> tuple[dict[str, Section], list[_Mistake | Contradiction]]:
    """The sections that are right, and what is wrong with the others.

    Unquoted words that YAML takes for numbers or the like are tried as text before they are refused: an id of
    digits, a swarm called 42.
    """
    sections, errors = _validated_once(root, ())
    as_text = {error.path for error in errors if isinstance(error, _Mistake)}
    return _validated_once(root, as_text) if as_text else (sections, errors)


def _validated_once(
    root: Node | None, as_text: Collection[KeyPath]
) -> tuple[dict[str, Section], list[_Mistake | Contradiction]]:
    data: dict[str, Any] = {} if root is None else plain(root, as_text)
    sections: dict[str, Section] = {}
    errors: list[_Mistake | Contradiction] = [
        _Mistake((name,), "extra_forbidden") for name in data if name not in Config.model_fields
    ]
    for name, field in Config.model_fields.items():
        model = field.annotation
        assert isinstance(model, type) and issubclass(model, Section)
        try:
            sections[name] = model.model_validate(data.get(name, {}))
        except ValidationError as error:
            errors += _mistakes(name, error)
    return sections, errors


def _mistakes(section: str, error: ValidationError) -> Iterator[_Mistake | Contradiction]:
    mistakes: list[_Mistake] = []
    for detail in error.errors(include_url=False, include_input=False):
        if detail["type"] == "contradiction":
            yield from detail["ctx"]["contradictions"]
        else:
            mistakes.append(_Mistake(key_path((section, *detail["loc"])), detail["type"]))
    # pydantic also calls a list too short when its items are wrong: only the innermost mistakes count.
    outer = {mistake.path[:length] for mistake in mistakes for length in range(len(mistake.path))}
    yield from (mistake for mistake in mistakes if mistake.path not in outer)


def _problem(error: _Mistake | Contradiction, root: Node | None) -> ConfigProblem:
    if isinstance(error, Contradiction):
        return _contradiction_problem(error, root)
    node = node_at(root, error.path)
    place = (node or node_at(root, error.path[:-1]) or Node(None, Place("", None))).place
    key = dotted(error.path)
    if error.kind == "extra_forbidden":
        # Without its value: a misspelt token_file may hold the token.
        return ConfigProblem(place.file, place.line, key, None, unknown_key(error.path))
    allowed = allowed_at(error.path)
    if error.kind == "missing":
        return ConfigProblem(place.file, place.line, key, None, f"is missing; it must be {allowed}")
    return ConfigProblem(place.file, place.line, key, _shown(node, error.path), f"must be {allowed}")


def _contradiction_problem(error: Contradiction, root: Node | None) -> ConfigProblem:
    """Placed at the first of its keys that was written; the others are defaults."""
    for key in error.keys:
        path = _path_of(key)
        node = node_at(root, path)
        if node is not None:
            value = None if node.raw is None else _shown(node, path)
            return ConfigProblem(node.place.file, node.place.line, key, value, error.message)
    return ConfigProblem("defaults", None, error.keys[0], None, error.message)


def _path_of(key: str) -> KeyPath:
    parts = key.replace("[", ".").replace("]", "").split(".")
    return tuple(int(part) if part.isdigit() else part for part in parts)


def _shown(node: Node | None, path: KeyPath) -> str | None:
    if node is None:
        return None
    if str(path[-1]).endswith("_file") and not (node.raw or "").startswith("/"):
        return None  # most likely the secret itself, pasted where its file belongs
    if node.raw is None:
        return "a map" if isinstance(node.value, dict) else "a list"
    if isinstance(node.value, str) and plain_scalar(node.raw) != node.raw:
        return f'"{shown(node.raw)}"'  # without its quotes it would be a number, true or null
    return "nothing" if not node.raw else shown(node.raw)


def _distinct(problems: Iterable[ConfigProblem]) -> list[ConfigProblem]:
    return list(dict.fromkeys(problems))


def _rank(problem: ConfigProblem, order: list[str]) -> tuple[int, int]:
    return (order.index(problem.file) if problem.file in order else len(order), problem.line or 0)
