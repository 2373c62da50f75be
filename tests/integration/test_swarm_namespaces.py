"""Three hosts with a bad network between them: 200 ms there and back, a packet in twenty lost each way, one host
behind NAT, and a partition that heals."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import saved
from tests.integration.namespaces import DELAY, LOSS, Internet, missing
from tests.integration.node import until
from tests.integration.swarm import Member, all_train_on

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

ROUND_SECONDS = 8.0
PORT = 38751
# Long enough for the node that is cut off to find out: a peer counts as connected for 40 s after its last word.
CUT_SECONDS = 55.0
HEALED_ROUNDS = 10


class Swarm:
    """The hosts and, in their order, a node on each. The last host is the one behind NAT."""

    def __init__(self, internet: Internet, folder: Path) -> None:
        self.internet = internet
        self.members = []
        for number, host in enumerate(internet.hosts):
            member = Member(folder, number, before=host.before)
            member.settings["log"]={"level":"debug"}; member.settings["network"] = {}  # it listens on the usual port, of all its addresses
            member.write()
            self.members.append(member)


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    with Internet() as internet:
        made = Swarm(internet, tmp_path_factory.mktemp("swarm"))
        try:
            invite = made.members[0].found("trial", "--round-seconds", f"{ROUND_SECONDS:g}")
            for member in made.members[1:]:
                member.command("join", invite)
            for member in made.members:
                member.start()
            yield made
        finally:
            for member in made.members:
                member.stop()
    carried, lost = internet.frames["carried"], internet.frames["lost"]
    print(f"the wires carried {carried} frames and lost {lost}")
    assert carried > 1000 and 0.5 * LOSS < lost / carried < 1.5 * LOSS
