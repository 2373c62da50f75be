"""GenRL's communication for a node that has nobody to talk to."""

from __future__ import annotations

from typing import Any

from genrl.communication.communication import Communication


class Alone(Communication):
    """Gathers its own object only. Having no peers is a normal state, not a fault."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id

    def get_id(self) -> str:
        return self._node_id

    def all_gather_object(self, obj: Any, *args: Any, **kwargs: Any) -> dict[str | int, Any]:
        return {self._node_id: obj}
