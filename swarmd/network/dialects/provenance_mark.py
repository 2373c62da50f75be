"""Where a task of a legacy record comes from, as one word in its metadata that GenRL nodes pass over.

It is one text and no map, because GenRL nodes put the metadata of all peers into one table: a field that is of another
type in another record would stop their training.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

from swarmd.network.dialects.dialect import OutgoingGroup, family, is_family, logprobs_of, quantised
from swarmd.network.refusals import Refused
from swarmd.tasks.provenance import SEEDS, Provenance

FIELD = "swarmd"
"""Its name in the metadata."""

_VERSION = "1"
_FIELDS = 9
_MOST_CHARS = 2048
_MOST_NAME = 128
_MOST_SLOT = 64 * 4096
_NONE = "-"


@dataclass(frozen=True)
class Mark:
    """What it says. model: the family of the sender's model, "" if unsaid."""

    slot: int
    provenance: Provenance
    model: str
    mean_logprobs: tuple[float, ...] | None


def write_mark(group: OutgoingGroup, model: str) -> str:
    """The mark of a group: nine fields with a space between them, names with their odd characters quoted."""
    task = group.task.provenance
    steps = quantised(group.mean_logprobs)
    logprobs = _NONE if steps is None else ",".join(str(-step) for step in steps)
    names = [quote(name, safe="/:") for name in (task.environment, task.dataset, task.config_hash)]
    fields = [_VERSION, group.slot, *names, task.seed, task.index, quote(family(model), safe="/:"), logprobs]
    return " ".join(map(str, fields))


def read_mark(text: object, completions: int) -> Mark | None:
    """What a mark says, None for anything that is none: such a record is one of a GenRL node's. Raises nothing."""
    if not isinstance(text, str) or len(text) > _MOST_CHARS:
        return None
    fields = text.split(" ")
    if len(fields) != _FIELDS or fields[0] != _VERSION:
        return None
    slot, seed, index = (_number(field) for field in (fields[1], fields[5], fields[6]))
    try:
        environment, dataset, config_hash, model = (unquote(fields[n], errors="strict") for n in (2, 3, 4, 7))
        logprobs = None if fields[8] == _NONE else logprobs_of(_steps(fields[8]), completions)
    except (UnicodeDecodeError, Refused):
        return None
    if slot is None or seed is None or index is None or not (slot < _MOST_SLOT and seed < SEEDS and 0 < index < SEEDS):
        return None
    if not all(0 < len(name) <= _MOST_NAME for name in (environment, dataset, config_hash)) or not is_family(model):
        return None
    return Mark(slot, Provenance(environment, dataset, config_hash, seed, index), model, logprobs)


def _number(text: str) -> int | None:
    """int() alone would take signs, underscores, blanks and the digits of other scripts."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def _steps(text: str) -> list[int | None]:
    """Written without their sign, which is the same for all."""
    return [None if (number := _number(part)) is None else -number for part in text.split(",")]
