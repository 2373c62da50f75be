"""From what pydantic found to what an operator reads: the key, what is allowed there, the key that was meant.

What is allowed is read off the models' own types and bounds, so that it cannot disagree with them.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from swarmd.config.config import Config
from swarmd.config.tree import Path, dotted
from swarmd.config.values import Allowed, Because, Section, Unit


def is_section(annotation: Any) -> bool:
    """Whether a field of this type is a map of known keys."""
    return isinstance(annotation, type) and issubclass(annotation, Section)


def field_at(path: Path) -> FieldInfo | None:
    """The field that a path of keys leads to; None for keys that do not exist or lie inside a free map."""
    field: FieldInfo | None = None
    here: Any = Config
    for part in path:
        if isinstance(part, int):
            here = _item_type(here)
            if here is None:
                return None
            field = FieldInfo.from_annotation(here)
        else:
            field = here.model_fields.get(part) if is_section(here) else None
            if field is None:
                return None
        here = field.annotation
    return field


def key_path(location: Sequence[int | str]) -> Path:
    """A pydantic error's location without the names of union members that it carries."""
    path: Path = ()
    here: Any = Config
    for part in location:
        if is_section(here) and isinstance(part, str):
            path += (part,)
            field = here.model_fields.get(part)
            here = None if field is None else field.annotation
        elif isinstance(part, int) and (item := _item_type(here)) is not None:
            path += (part,)
            here = FieldInfo.from_annotation(item).annotation
    return path


def allowed_at(path: Path) -> str | None:
    """What may stand at a path, in words, or None where anything may."""
    field = field_at(path)
    if field is None:
        return None
    why = next((f" ({item.text})" for item in field.metadata if isinstance(item, Because)), "")
    return _allowed(field.annotation, field.metadata) + why


def unknown_key(path: Path) -> str:
    """The message for a key that does not exist: the nearest one that does, or all."""
    name = str(path[-1])
    siblings = _keys_of(path[:-1])
    wanted = name.lower().replace("-", "_")
    nearest = difflib.get_close_matches(wanted, siblings, n=1, cutoff=0.6)
    if nearest:
        return f"unknown key; did you mean {dotted((*path[:-1], nearest[0]))}?"
    elsewhere = [dotted((*section, wanted)) for section in _all_sections() if wanted in _keys_of(section)]
    if elsewhere:
        return f"unknown key; did you mean {' or '.join(elsewhere)}?"
    return f"unknown key; known here: {', '.join(siblings)}"


def _all_sections() -> Iterable[Path]:
    for name, field in Config.model_fields.items():
        yield (name,)
        if is_section(field.annotation):
            for inner, inner_field in field.annotation.model_fields.items():  # type: ignore[union-attr]
                if is_section(inner_field.annotation):
                    yield (name, inner)


def _keys_of(path: Path) -> list[str]:
    annotation: Any = Config
    if path:
        field = field_at(path)
        annotation = None if field is None else field.annotation
    return list(annotation.model_fields) if is_section(annotation) else []


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _bare(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        return inner, tuple(metadata)
    return annotation, ()


def _item_type(annotation: Any) -> Any:
    for member in _members(annotation):
        bare, _ = _bare(member)
        if get_origin(bare) is tuple:
            return get_args(bare)[0]
    return None


def _allowed(annotation: Any, metadata: Sequence[Any]) -> str:
    for item in metadata:
        if isinstance(item, Allowed):
            return item.text
    if get_origin(annotation) is Literal:
        choices = [str(choice) for choice in get_args(annotation)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    members = _members(annotation)
    if len(members) > 1:
        texts = [_allowed(*_bare(member)) for member in members if member is not type(None)]
        texts += ["null"] if type(None) in members else []
        listed = ", ".join(texts[:-1])
        return f"{listed}{',' if ',' in listed else ''} or {texts[-1]}"
    if is_section(annotation):
        return f"a map with the keys {', '.join(annotation.model_fields)}"
    if get_origin(annotation) is tuple:
        return f"a list, each item {_allowed(*_bare(get_args(annotation)[0]))}"
    if get_origin(annotation) is dict:
        return "a map"
    if annotation is bool:
        return "true or false"
    kind = {int: "a whole number", float: "a number"}.get(annotation, "text")
    unit = next((f" of {item.text}" for item in metadata if isinstance(item, Unit)), "")
    return f"{kind}{unit}{_bounds(metadata)}"


def _bounds(metadata: Sequence[Any]) -> str:
    # pydantic keeps an Interval whole inside a union and takes it apart on a field; both have these names.
    bounds = [(name, getattr(item, name, None)) for item in metadata for name in ("ge", "gt", "le", "lt")]
    found = {name: bound for name, bound in bounds if bound is not None}
    if not found:
        return ""
    inclusive = "ge" in found
    low = f" from {_number(found['ge'])}" if inclusive else f" over {_number(found['gt'])}"
    if "lt" in found:
        return f"{low}{' to' if inclusive else ' and'} under {_number(found['lt'])}"
    return f"{low}{' to' if inclusive else ' and at most'} {_number(found['le'])}"


def _number(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"
