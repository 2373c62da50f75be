"""What the tests of attacked swarms share: how a node fared, and trainings that are falsified for the judge to find."""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration import audited, saved
from tests.integration.node import Preloaded
from tests.integration.swarm import Member

FALSE = (
    "rewards", "one reward", "task", "completion", "author", "replay", "old round", "weight",
    "completion in the gradient",
)  # fmt: skip
"""What can be falsified."""
_HEARD_SECONDS = 180.0
"""In which each lie is heard: it is told again every few rounds, but a slow machine looks at a part of them only."""


@contextmanager
def audited_members(folder: Path, number: int) -> Iterator[tuple[list[Member], Path]]:
    """So many members, not started yet, and where those write down what they train on (see `audited`); ended behind."""
    trained = folder / "trained"
    trained.mkdir()
    with pytest.MonkeyPatch.context() as changes:
        changes.setenv(audited.FOLDER, str(trained))
        preloaded = Preloaded("tests.integration.audited")
        members = [Member(folder, each, preloaded) for each in range(number)]
        try:
            yield members, trained
        finally:
            for member in members:
                member.stop()
            preloaded.close()


def rounds_since(member: Member, first: int) -> int:
    """In how many rounds since this one it has trained on peers' groups."""
    return sum(groups > 0 for _, _, groups in member.peers_of_rounds(first - 1))


def refusals(state: Path, first: int) -> Counter[str]:
    """What a node's curves tell that it has refused since this round, at whichever step, by reason."""
    total: Counter[str] = Counter()
    for number, refused, peers in saved.rows(state, "round, refused, peers", "exchanges"):
        if number >= first:
            total.update(json.loads(refused))
            for reasons in json.loads(peers).values():
                total.update({reason: count for reason, count in reasons.items() if reason != "used"})
    return total


def unheard(refused: Counter[str], reasons: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """For which of these nothing was refused; any one of the reasons of a tuple will do."""
    return [some for some in reasons if not any(refused[reason] for reason in some)]


def wait_until_heard(members: Sequence[Member], first: int, reasons: Sequence[tuple[str, ...]]) -> None:
    """Until one member or another has refused something for each of these reasons since that round.

    After some time also without that: then the test that asks for the reasons fails, and says which are missing.
    """
    end = time.monotonic() + _HEARD_SECONDS
    while time.monotonic() < end:
        refused = sum((refusals(member.state, first) for member in members), Counter[str]())
        if not unheard(refused, reasons):
            return
        time.sleep(0.5)


def falsified(what: str, lines: list[dict[str, Any]], names: set[str]) -> list[dict[str, Any]]:
    """The same lines with one thing changed in the first round that has a group with a signal of one of these peers."""
    lines = copy.deepcopy(lines)
    line = next(line for line in lines if line["rows"] and any(_is_of(group, names) for group in line["groups"]))
    group = next(group for group in line["groups"] if _is_of(group, names))
    match what:
        case "rewards":
            group["rewards"] = [1.0 - reward for reward in group["rewards"]]
        case "one reward":
            group["rewards"][0] += 0.01
        case "task":
            group["prompt"] = [{"role": "user", "content": "What is 1 + 1?"}]
        case "completion":
            group["completions"][0] = "<answer>0815</answer>"
        case "author":
            group["agent"] = "QmNobodyHasEverHeardOfThisPeerNorSignedInItsName"
        case "replay":
            lines.append(line)
        case "old round":
            lines.append({**line, "round": line["round"] + 2})
        case "weight":
            line["rows"][0][2] += 0.5
        case "completion in the gradient":
            line["rows"][0][1] = line["rows"][0][1][::-1]
    return lines


def _is_of(group: dict[str, Any], names: set[str]) -> bool:
    return group["agent"] in names and len(set(group["rewards"])) > 1
