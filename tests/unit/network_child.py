"""A network process that misbehaves as its settings say (`model`), and writes down what it is told (in `state`).

Run by test_network_process in place of the real one: what it does here the real one would do only when a stranger has
got hold of it, or when it is broken.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from swarmd.network.settings import NetworkState
from swarmd.system.child import adopt_parent
from swarmd.system.link import LinkClosed, LinkTimeout

GOOD = NetworkState().to_message()
ANSWERS: dict[str, Any] = {
    "no map": [1, 2],
    "no id": {"result": GOOD},
    "no state": {"id": 0, "result": 5},
    "half a state": {"id": 0, "result": {"connected": 1}},
}


def main() -> int:
    link = adopt_parent()
    settings = link.receive(60.0)
    told, manner = Path(settings["state"]) / "told", settings["model"]
    link.send({"state": GOOD}, 10.0)
    print("<4>a warning of the child", file=sys.stderr, flush=True)
    first = not told.exists()
    while True:
        try:
            message = link.receive(60.0)
        except (LinkClosed, LinkTimeout):
            return 1
        with open(told, "a") as file:
            file.write(json.dumps(message) + "\n")
        if message["call"] == "stop":
            return 0
        if first and manner == "hangs":
            time.sleep(60.0)
        if message["call"] == "ping":
            # The one that takes its place is well.
            link.send(ANSWERS[manner] if first and manner in ANSWERS else {"id": 0, "result": GOOD}, 10.0)
        elif message["call"] == "echo":
            link.send({"id": message["id"], "result": message["text"]}, 10.0)


if __name__ == "__main__":
    sys.exit(main())
