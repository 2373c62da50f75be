"""GenRL's two classes that travel, as plain data: what they hold is whatever their sender put there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from swarmd.network.strict_bounds import not_decodable

TYPE_KEY = "__type__"


@dataclass(frozen=True)
class WorldState:
    """genrl.state.WorldState."""

    environment_states: Any
    opponent_states: Any = None
    personal_states: Any = None


@dataclass(frozen=True)
class Payload:
    """genrl.communication.communication.Payload: a task (world_state), the answers to it (actions)."""

    world_state: Any = None
    actions: Any = None
    metadata: Any = None


def to_map(value: Any) -> Any:
    """How GenRL 0.3 writes an object of the two into msgpack: a map with its class's name first."""
    if isinstance(value, Payload):
        return {
            TYPE_KEY: "Payload",
            "world_state": value.world_state,
            "actions": value.actions,
            "metadata": value.metadata,
        }
    if isinstance(value, WorldState):
        return {
            TYPE_KEY: "WorldState",
            "environment_states": value.environment_states,
            "opponent_states": value.opponent_states,
            "personal_states": value.personal_states,
        }
    raise TypeError(f"a {type(value).__name__} cannot be written for GenRL")


_FIELDS: dict[str, tuple[type[Payload] | type[WorldState], frozenset[str], frozenset[str]]] = {
    "Payload": (Payload, frozenset(), frozenset({"world_state", "actions", "metadata"})),
    "WorldState": (WorldState, *(frozenset({"environment_states", "opponent_states", "personal_states"}),) * 2),
}
"""For each name: the class, the fields that must be there, and all that may be, as in GenRL's own constructors."""


def from_map(mapping: dict[str, Any]) -> Any:
    """The object that a map of GenRL 0.3 stands for, or the map itself. Raises Refused for any other class."""
    if TYPE_KEY not in mapping:
        return mapping
    name = mapping.pop(TYPE_KEY)
    if not isinstance(name, str) or name not in _FIELDS:
        raise not_decodable("an object of an unknown class")
    made, needed, allowed = _FIELDS[name]
    if not needed <= mapping.keys() <= allowed:
        raise not_decodable(f"a {name} with other fields than GenRL's")
    return made(**mapping)
