#!/usr/bin/env python3
"""Writes docs/swarmd.yaml.5 from docs/swarmd.yaml.5.in: every setting with its meaning, values and default.

The meaning is the comment in etc/config.yaml (where a key shares its sibling's, the docstring of its field), the
values and the default are those of the models in swarmd/config, and whether a reload brings it into force is asked of
swarmd.reload. The page is kept in the repository, so that a package is built without any of that; a test compares.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from swarmd.config import Config  # noqa: E402
from swarmd.config.messages import allowed_at, field_at, is_section  # noqa: E402
from swarmd.config.values import Section  # noqa: E402
from swarmd.reload import compare  # noqa: E402

TEMPLATE = ROOT / "docs" / "swarmd.yaml.5.in"
PAGE = ROOT / "docs" / "swarmd.yaml.5"
_MARK = "@SETTINGS@\n"
_WIDTH = 79
_LINE = re.compile(r"( *)(?:# ?(.*)|([a-z_0-9]+):.*)")
# The keys of an item in a list of sections, which the example file shows in a comment only.
_ITEMS = (("tasks", "datasets", 0),)


@dataclass(frozen=True)
class _Setting:
    """A key as the manual shows it. path: as in messages; default: as in YAML, None where there is none."""

    path: tuple[str | int, ...]
    comment: tuple[str, ...]
    default: str | None
    live: bool

    @property
    def name(self) -> str:
        return ".".join(str(part) for part in self.path).replace(".0.", "[].")


def page() -> str:
    """The whole manual page (mdoc(7))."""
    return TEMPLATE.read_text(encoding="utf-8").replace(_MARK, "\n".join(_body()) + "\n")


def _body() -> Iterator[str]:
    comments = dict(_comments((ROOT / "etc" / "config.yaml").read_text(encoding="utf-8")))
    for name in Config.model_fields:
        yield f".Ss {name}"
        yield from _prose(comments[(name,)])
        yield ".Bl -tag -width Ds"
        for setting in _settings((name,), getattr(Config(), name), comments):
            yield from _entry(setting)
        yield ".El"


def _comments(text: str) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(key path, its comment's lines) for every key of the example file."""
    above: list[str] = []
    path: list[str] = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            above = []  # an empty line, or an item of a list
        elif match[3] is None:
            above.append(match[2])
        else:
            path[len(match[1]) // 2 :] = [match[3]]
            yield tuple(path), tuple(above)
            above = []


def _settings(
    path: tuple[str | int, ...], section: Section, comments: dict[Any, tuple[str, ...]]
) -> Iterator[_Setting]:
    for key in type(section).model_fields:
        here, value = (*path, key), getattr(section, key)
        field = field_at(here)
        assert field is not None
        comment = comments.get(here) or (field.description or "",)
        if is_section(field.annotation):
            yield _Setting(here, comment, None, live=False)
            yield from _settings(here, value, comments)
            continue
        yield _Setting(here, comment, _yaml(value), _is_live(here))
        for item in _ITEMS:
            if item[:-1] == here:
                yield from _item_settings(item)


def _item_settings(item: tuple[str | int, ...]) -> Iterator[_Setting]:
    from swarmd.config.tasks import Dataset

    for key, field in Dataset.model_fields.items():
        default = None if field.is_required() else _yaml(field.get_default(call_default_factory=True))
        yield _Setting((*item, key), (field.description or "",), default, live=False)


def _is_live(path: tuple[str | int, ...]) -> bool:
    """Whether a reload brings another value of this key into force, asked by giving it one."""
    name, key = str(path[0]), str(path[1])
    old = Config()
    section = getattr(old, name).model_copy(update={key: object()})
    return f"{name}.{key}" in compare(old, old.model_copy(update={name: section})).applied


def _yaml(value: Any) -> str:
    if isinstance(value, float) and value == int(value) and abs(value) >= 10:
        value = int(value)
    if isinstance(value, tuple):
        value = list(value)
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000, explicit_end=False)
    return text.removesuffix("...\n").strip()


def _entry(setting: _Setting) -> Iterator[str]:
    yield f".It Cm {_literal(setting.name)}"
    yield from _prose(setting.comment)
    allowed, field = allowed_at(setting.path), field_at(setting.path)
    if allowed is None or field is None or is_section(field.annotation):
        return
    yield ".Pp"
    yield from textwrap.wrap(_literal(f"Value: {allowed}."), _WIDTH, break_long_words=False, break_on_hyphens=False)
    yield "Must be given." if setting.default is None else f"Default: \\fB{_literal(setting.default)}\\fP."
    if setting.live:
        yield "Changes on reload."


def _prose(lines: tuple[str, ...]) -> Iterator[str]:
    """Text for the page: a sentence a line, wrapped; lines that are set in become an example."""
    text: list[str] = []
    example: list[str] = []
    for line in [*lines, ""]:
        if line.startswith("  "):
            example.append(line.strip())
            continue
        if example:
            yield from _sentences(text)
            yield from [".Bd -literal -offset indent", *map(_literal, example), ".Ed"]
            text, example = [], []
        text.append(line)
    yield from _sentences(text)


def _sentences(lines: list[str]) -> Iterator[str]:
    for sentence in re.split(r"(?<=[.?]) (?=[A-Z])", " ".join(lines).strip()):
        parts = re.split(r"`([^`]*)`", " ".join(sentence.split()))
        marked = "".join(
            f"\\fB{_literal(part).replace(' ', chr(0))}\\fP" if odd % 2 else part.replace("\\", "\\e")
            for odd, part in enumerate(parts)
        )
        for line in textwrap.wrap(marked, _WIDTH, break_long_words=False, break_on_hyphens=False):
            line = line.replace("\0", " ")
            yield f"\\&{line}" if line.startswith((".", "'")) else line


def _literal(text: str) -> str:
    """Text that people copy: minus signs stay minus signs."""
    return text.replace("\\", "\\e").replace("-", "\\-")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
