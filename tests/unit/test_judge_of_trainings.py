"""The judge of what nodes have trained on (tests.integration.audit) believes signatures, not who took a record down."""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from pathlib import Path

import pytest

from swarmd.network.dialects import OutgoingGroup
from swarmd.network.dialects.own import OwnDialect
from swarmd.tasks.mix import TaskMix
from swarmd.tasks.mix_files import preset
from swarmd.tasks.provenance import task_seed
from tests.hostile.authors import authors
from tests.integration.audit import Judge

SWARM, ROUND, EXPIRES = "somewhere", 7, 1_900_000_000.0
DATASETS = "embedded"


@pytest.mark.parametrize("noted", [ROUND, ROUND + 1])
def test_a_record_counts_for_the_round_that_its_peer_has_signed(tmp_path: Path, noted: int) -> None:
    """Whatever round it was sent as: a hostile node sends true records as those of other rounds, and a node that takes
    one as what it is has done no wrong."""
    author, dialect = authors(1)[0], OwnDialect(SWARM, shards=32)
    task = TaskMix(preset(DATASETS)).draw(task_seed(SWARM, ROUND, author.peer_id, 0))
    value = dialect.encode([OutgoingGroup(task, 0, ("1", "2"), (0.0, 0.0))], ROUND, author, EXPIRES).value
    line = {
        "round": noted, "key": dialect.key_for(ROUND, author.peer_id), "subkey": author.peer_id, "expires": EXPIRES,
        "value": base64.b64encode(value).decode(),
    }  # fmt: skip
    sent = tmp_path / "sent.jsonl"
    sent.write_text(json.dumps(line) + "\n")
    tasks = Path(str(files("swarmd.tasks") / "presets" / f"{DATASETS}.yaml"))
    assert Judge(SWARM, 32, tasks, [sent], {}, ()).signed == 1
    for wrong in (
        {"key": dialect.key_for(ROUND + 1, author.peer_id)}, {"subkey": authors(2)[1].peer_id},
        {"expires": EXPIRES + 1}, {"value": base64.b64encode(value[:-1] + b"x").decode()},
    ):  # fmt: skip
        sent.write_text(json.dumps({**line, **wrong}) + "\n")
        assert Judge(SWARM, 32, tasks, [sent], {}, ()).signed == 0, wrong
