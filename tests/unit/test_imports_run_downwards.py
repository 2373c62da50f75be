"""Imports run downwards, from cli to the ground: FLOORS below is the whole order.

A room imports only from rooms below it, rooms on one floor do not know each other, and no modules import each
other in a circle. Imports inside functions count, and so do calls such as import_module("swarmd.game").
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# From the top of the house to the ground. swarmd/__init__.py (the version) lies below everything.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("commands",),
    ("doctor", "membership"),
    ("daemon",),
    ("game",),
    ("network",),
    ("coordination", "training", "tasks"),
    ("monitor", "system", "config"),
    ("swarmd",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Modules beside daemon.py that introduce the rooms to each other, as it does: one room with it.
WIRING = {
    "agreed", "arguments", "assembly", "awaited", "beginning", "bootnode", "choosing", "fetching", "located", "planned",
    "reload", "stopped", "swarm_drop_in", "swarming", "unbuilt",
}  # fmt: skip

# What a room must not load, even inside a function. web3 raises the recursion limit of its process, which
# turns deep input into a segfault; torch costs seconds and hundreds of MB in processes that compute nothing.
NOT_IN = {
    "network": {"torch", "transformers", "web3"},
    "training": {"hivemind", "reasoning_gym", "web3"},
    "tasks": {"torch", "transformers", "hivemind", "web3"},
    "monitor": {"torch", "transformers", "hivemind", "reasoning_gym", "genrl", "web3"},
    "system": {"torch", "transformers", "hivemind", "reasoning_gym", "genrl", "web3"},
    "config": {"torch", "transformers", "hivemind", "reasoning_gym", "genrl", "web3"},
    "game": {"hivemind", "web3"},
    "daemon": {"web3"},
    "commands": {"web3"},
    "doctor": {"web3"},
    "membership": {"web3", "torch", "transformers", "reasoning_gym"},
    "cli": {"web3"},
}


def module_name(path: Path, root: Path) -> str:
    """swarmd/game/round.py -> swarmd.game.round, swarmd/game/__init__.py -> swarmd.game"""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """swarmd.game.round -> game, swarmd.planned -> daemon; swarmd and swarmd.__version__ -> swarmd"""
    first = [*module.split("."), ""][1]
    return "daemon" if first in WIRING else first if first in FLOOR_OF else "swarmd"


def imports_of(source: str, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, imported name) of every import in the source. `from a import b` gives a.b: b may be a module."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = [*base, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield node.lineno, ".".join([*origin, alias.name])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """One sentence for every import that breaks the rule."""
    room = room_of(module)
    found = []
    for line, name in imports_of(source, module, is_package=is_package):
        top = name.split(".")[0]
        if top != "swarmd":
            if top in NOT_IN.get(room, ()):
                found.append(f"{module}, line {line}: {room} must not load {top}")
            continue
        target = room_of(name)
        if target == room or FLOOR_OF[target] > FLOOR_OF[room]:
            continue
        where = "stands beside" if FLOOR_OF[target] == FLOOR_OF[room] else "lies above"
        found.append(f"{module}, line {line}: imports {name}, but {target} {where} {room}")
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one import circle, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def import_graph(sources: dict[str, tuple[str, bool]]) -> dict[str, set[str]]:
    """module -> the modules it imports, for {module: (source, is_package)}."""
    graph = {}
    for module, (source, is_package) in sources.items():
        names = {name for _, name in imports_of(source, module, is_package=is_package)}
        # `from swarmd.game import round` names a module, `from swarmd.game.round import f` does not.
        targets = {name if name in sources else name.rpartition(".")[0] for name in names}
        graph[module] = {target for target in targets if target in sources and target != module}
    return graph


def house() -> dict[str, tuple[str, bool]]:
    return {
        module_name(path, ROOT): (path.read_text(encoding="utf-8"), path.name == "__init__.py")
        for path in sorted((ROOT / "swarmd").rglob("*.py"))
    }


def test_every_module_of_swarmd_lives_in_a_room_with_a_floor() -> None:
    homeless = {module.split(".")[1] for module in house() if "." in module} - set(FLOOR_OF) - WIRING
    assert not homeless, f"no floor in FLOORS: {sorted(homeless)}; give it one, and the README's map a line"


def test_imports_run_downwards_only() -> None:
    broken = [
        sentence
        for module, (source, is_package) in house().items()
        for sentence in violations(source, module, is_package=is_package)
    ]
    assert not broken, "\n" + "\n".join(broken)


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert not (modules := circle(import_graph(house()))), " -> ".join(modules)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("swarmd.game.round", "import swarmd.daemon"),
        ("swarmd.game.round", "from swarmd import cli"),
        ("swarmd.game.round", "from swarmd.assembly import make_trainer"),
        ("swarmd.training.trainer", "from swarmd.tasks.mix import TaskMix"),
        ("swarmd.training.trainer", "from ..tasks.mix import TaskMix"),
        ("swarmd.training.trainer", "from .. import network"),
        ("swarmd.training.trainer", "def late():\n    from swarmd.network.link import Link"),
        ("swarmd.system.child", "import importlib\nimportlib.import_module('swarmd.tasks.scorer')"),
        ("swarmd.config.loading", "from swarmd.system import paths"),
        ("swarmd.network.admission", "import torch.nn.functional as F"),
        ("swarmd.tasks.scorer", "def late():\n    import web3"),
        ("swarmd.system.memory", "if True:\n    from torch import cuda"),
    ],
)
def test_the_rule_catches(module: str, source: str) -> None:
    (found,) = violations(source, module)
    assert found.startswith(module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("swarmd.cli", "from swarmd import __version__, daemon"),
        ("swarmd.game.round", "from swarmd.training.trainer import GRPOTrainer"),
        ("swarmd.training.trainer", "from . import grpo\nfrom .models import load_model\nimport torch"),
        ("swarmd.network.admission", "from swarmd.tasks.provenance import Provenance"),
        ("swarmd.tasks.scorer", "from swarmd.system import link\nimport json"),
    ],
)
def test_the_rule_lets_through(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_a_circle_is_caught_inside_a_room_and_through_its_package() -> None:
    direct = {
        "swarmd.game.a": ("from swarmd.game.b import B", False),
        "swarmd.game.b": ("def late():\n    from swarmd.game import a", False),
    }
    assert {"swarmd.game.a", "swarmd.game.b"} <= set(circle(import_graph(direct)))
    through_package = {
        "swarmd.game": ("from .a import A", True),
        "swarmd.game.a": ("from swarmd.game import A", False),
    }
    assert circle(import_graph(through_package))
    assert not circle(import_graph({**direct, "swarmd.game.b": ("import json", False)}))
