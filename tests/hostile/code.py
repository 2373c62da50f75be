"""Code for each of the scorers of reasoning-gym that evaluate text, and records that carry it to a node.

Each text is one that some of these scorers would run: `eval` takes an expression, sympy's parser one too, or a string
in one. Whoever runs it makes a file (`marker`), or writes scores of its own where a worker of the scorer process does.
"""

from __future__ import annotations

from typing import Any

from swarmd.network.admission_rules import MOST_SLOTS, RawRecord
from swarmd.network.dialects import Dialect, OutgoingGroup, dialect_for
from swarmd.tasks.dataset_settings import IRREPRODUCIBLE
from swarmd.tasks.mix import DatasetSpec, TaskMix
from swarmd.tasks.provenance import Provenance, Task, task_seed
from swarmd.tasks.scorable import REPLACED
from tests.hostile.authors import ROUND, SWARM_ID, Author, published
from tests.hostile.own import CODE

EVALUATING = tuple(sorted(REPLACED))
"""The datasets whose scorers in reasoning-gym evaluate text."""
IN_A_MIX = tuple(sorted(REPLACED - IRREPRODUCIBLE.keys()))
"""Those of them that a swarm can have tasks of: all but one."""

WRONG = "<answer>nobody knows</answer>"
_RECORD_BYTES = 65_536  # as many as are read: the false metadata take their room

_FORGED = "[__import__('os').write(3, bytes([number]) + b'\\0' * 10 + b'\\xf0?') for number in range(64)]"
"""A score of 1 for any answer of a batch, as a worker would report it."""


def mix_of_all() -> TaskMix:
    """Takes two seconds: one of them is slow to make tasks of."""
    return TaskMix([DatasetSpec(name) for name in IN_A_MIX])


def open_dialect(name: str) -> Dialect:
    return dialect_for(name, SWARM_ID, shards=4, most_bytes=_RECORD_BYTES)


def code_for(marker: str) -> str:
    return CODE.format(marker=marker)


def answers_of_code(marker: str) -> tuple[str, ...]:
    """Completions that are code, whatever a scorer expects: a value, a list, a formula, a string, text around it."""
    code = code_for(marker)
    quoted = code.replace("'", '"')
    texts = (
        code,
        f"[{code}]",
        f"[[{code}]]",
        f"[str({code})]",
        f"{code} or 24",
        f"x + {code}",
        f"'{quoted}'",
        f'sin("{code}")',
        f"(lambda: {code})()",
        f"[{code} for x in [1]]",
        f"().__class__.__base__.__subclasses__() and {code}",
        _FORGED,
    )
    return tuple(f"<answer>{text}</answer>" for text in texts)


def false_metadata(dataset: str, marker: str) -> dict[str, Any]:
    """Metadata that name a scorer, and hold code wherever one of them reads."""
    code = code_for(marker)
    texts = {
        "problem": code, "integrand": code, "variable": code, "string": code, "direction": code, "target": code,
        "polynomial_expr": code, "expression": code, "result": code, "solution": code,
    }  # fmt: skip
    lists = {"numbers": [code], "valid_answers": [code], "sorted_numbers": [code], "matrix": [[code]]}
    return {"source_dataset": dataset, "source_index": 1, **texts, **lists}


def slot_of(dataset: str, mix: TaskMix, author: Author) -> int:
    """A slot at which the author is to work on a task of this dataset."""
    return next(
        slot for slot in range(MOST_SLOTS)
        if mix.draw(task_seed(SWARM_ID, ROUND, author.peer_id, slot)).provenance.dataset == dataset
    )  # fmt: skip


def record_of(
    dialect: Dialect, author: Author, task: Task, slot: int, completions: tuple[str, ...], **said: Any
) -> RawRecord:
    """A signed record of one group. said: answer and metadata, of which a record in swarmd's own dialect has none."""
    told = Task(task.provenance, task.question, said.get("answer", task.answer), said.get("metadata", task.metadata))
    return published(dialect, author, [OutgoingGroup(told, slot, completions)])


def elsewhere(provenance: Provenance, dataset: str) -> Provenance:
    """The place in another dataset."""
    return Provenance(provenance.environment, dataset, provenance.config_hash, provenance.seed, provenance.index)
