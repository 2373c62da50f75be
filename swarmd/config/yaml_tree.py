"""YAML read into a tree that knows where every key stands.

Built from PyYAML's events instead of its constructors: nothing in a file can make an object, keys keep
their lines, a duplicate key is seen, and depth and size are bounded while reading, so that neither nesting
nor aliases of aliases cost more than the limits below.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
)

from swarmd.config.problems import ConfigProblem
from swarmd.config.tree import Node, Path, Place, dotted
from swarmd.config.yaml_words import explain, plain_scalar

MAX_DEPTH = 16
MAX_NODES = 20_000

_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # as PyYAML counts lines


def read_tree(text: str, place: Place) -> tuple[Node | None, list[ConfigProblem]]:
    """The tree of one document and what is wrong with it.

    The tree is None for an empty text and for one that cannot be read; only the latter has problems. A
    `place` without a line is kept for all nodes.
    """
    builder = _Builder(place)
    return builder.build(text), builder.problems


class _Refused(Exception):
    """The document cannot be used as a whole; says why and in which line."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass
class _Open:
    """A map or list whose end has not been read yet."""

    value: dict[str, Node] | list[Node]
    path: Path
    place: Place
    anchor: str | None
    weight: int = 1
    height: int = 0
    key: str | None = None
    key_place: Place | None = None
    seen: dict[str, Place] = field(default_factory=dict)


class _Builder:
    """Takes PyYAML's events one by one and keeps the maps and lists that are still open on a stack."""

    def __init__(self, place: Place) -> None:
        self.start = place
        self.problems: list[ConfigProblem] = []
        self.open: list[_Open] = []
        self.anchors: dict[str, Node] = {}
        self.nodes = 0
        self.root: Node | None = None

    def build(self, text: str) -> Node | None:
        try:
            self._refuse_binary(text)
            documents = 0
            for event in yaml.parse(text, Loader=yaml.SafeLoader):
                if isinstance(event, DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        line = _line(event)
                        raise _Refused("a second document starts here; a file holds one", line)
                elif isinstance(event, NodeEvent):
                    self._node(event)
                elif isinstance(event, (MappingEndEvent, SequenceEndEvent)):
                    self._close()
        except _Refused as error:
            self._give_up(str(error), error.line)
        except yaml.MarkedYAMLError as error:
            self._give_up(*explain(error))
        except (ValueError, OverflowError):  # PyYAML on "\\UFFFFFFFF", and on %YAML with absurd versions
            self._give_up("not valid YAML: an escape or a directive with a number out of range", None)
        else:
            return self.root
        return None

    def _give_up(self, message: str, line: int | None) -> None:
        at = None if self.start.line is None or line is None else line + 1
        self.problems.append(ConfigProblem(self.start.file, at, "", None, message))

    def _refuse_binary(self, text: str) -> None:
        strange = yaml.reader.Reader.NON_PRINTABLE.search(text)
        if strange is not None:
            line = len(_LINE_BREAK.findall(text, 0, strange.start()))
            raise _Refused(f"not a text file: character U+{ord(strange[0]):04X} is not allowed", line)

    def _place(self, event: NodeEvent) -> Place:
        return self.start if self.start.line is None else Place(self.start.file, _line(event) + 1)

    def _node(self, event: NodeEvent) -> None:
        line = _line(event)
        if getattr(event, "tag", None) is not None:
            raise _Refused("YAML tags such as !!python or !include are not allowed", line)
        parent = self.open[-1] if self.open else None
        if isinstance(event, ScalarEvent) and _SURROGATE.search(event.value):
            raise _Refused("not valid text: half of a surrogate pair", line)
        if parent is not None and isinstance(parent.value, dict) and parent.key is None:
            self._key(parent, event)
        elif isinstance(event, CollectionStartEvent):
            if len(self.open) >= MAX_DEPTH:
                raise _Refused(f"nested deeper than {MAX_DEPTH} levels", line)
            self._count(1, line)
            empty: dict[str, Node] | list[Node] = {} if isinstance(event, MappingStartEvent) else []
            self.open.append(_Open(empty, self._path_here(), self._place(event), event.anchor))
        elif isinstance(event, AliasEvent):
            target = self.anchors.get(str(event.anchor))
            if target is None:
                raise _Refused("an alias (*NAME) without an anchor (&NAME) finished before it", line)
            if len(self.open) + target.height > MAX_DEPTH:
                raise _Refused(f"nested deeper than {MAX_DEPTH} levels", line)
            self._count(target.weight, line)
            self._attach(replace(target, place=self._place(event)))
        elif isinstance(event, ScalarEvent):
            self._count(1, line)
            value = plain_scalar(event.value) if event.implicit[0] else event.value
            node = Node(value, self._place(event), raw=event.value)
            if event.anchor:
                self.anchors[event.anchor] = node
            self._attach(node)

    def _key(self, parent: _Open, event: NodeEvent) -> None:
        if not isinstance(event, ScalarEvent):
            raise _Refused("a key must be a plain word", _line(event))
        parent.key, parent.key_place = event.value, self._place(event)
        first = parent.seen.setdefault(parent.key, parent.key_place)
        if first is not parent.key_place:
            where = "" if first.line is None else f"; the first is in line {first.line}"
            key = dotted((*parent.path, parent.key))
            self.problems.append(
                ConfigProblem(first.file, parent.key_place.line, key, None, f"the key stands twice{where}")
            )

    def _path_here(self) -> Path:
        if not self.open:
            return ()
        parent = self.open[-1]
        return (*parent.path, len(parent.value) if parent.key is None else parent.key)

    def _count(self, nodes: int, line: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise _Refused(f"more than {MAX_NODES} values (aliases count for what they stand for)", line)

    def _close(self) -> None:
        done = self.open.pop()
        node = Node(done.value, done.place, weight=done.weight, height=done.height + 1)
        if done.anchor:
            self.anchors[done.anchor] = node
        self._attach(node)

    def _attach(self, node: Node) -> None:
        if not self.open:
            self.root = node
            return
        parent = self.open[-1]
        parent.weight += node.weight
        parent.height = max(parent.height, node.height)
        if isinstance(parent.value, list):
            parent.value.append(node)
        elif parent.key is not None and parent.key_place is not None:
            parent.value.setdefault(parent.key, replace(node, place=parent.key_place))
            parent.key = None


def _line(event: Event) -> int:
    """Where an event of the parser begins; lines count from 0. A parser's events, unlike made ones, have a mark."""
    return event.start_mark.line if event.start_mark is not None else 0
