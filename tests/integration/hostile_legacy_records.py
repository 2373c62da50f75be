"""What hostile members of a legacy swarm publish: as GenRL's nodes, which cannot sign, and as swarmd's, which do.

Their names cost nothing there: whoever does not sign has a new one for each record.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from swarmd.network.dialects import OutgoingGroup
from swarmd.network.dialects.genrl_01 import Genrl01Dialect
from swarmd.network.dialects.genrl_03 import Genrl03Dialect
from swarmd.network.dialects.genrl_payload import GenrlDialect
from swarmd.network.dialects.provenance_mark import FIELD, write_mark
from swarmd.network.genrl_objects import Payload
from swarmd.network.signing import Signer, trailer_start
from swarmd.tasks.provenance import Provenance, Task
from tests.hostile.authors import Sample, authors, prose, table, table_questions
from tests.hostile.code import EVALUATING, answers_of_code, code_for, false_metadata
from tests.hostile.legacy import legacy_samples, payload, signed
from tests.hostile.mutations import mutations
from tests.integration.dht_nodes import new_peer_id
from tests.integration.hostile_records import DAMAGED_AT_ONCE, FLOOD, OLD, Forger, Kind, Sent

SAMPLES_AT_ONCE = 64
LEARNED_FROM = "basic_arithmetic"
"""A dataset of the table whose answers the embedded model could have written."""
_NO_RECORDS = ("wrong shapes", "bombs", "oversize")  # the samples are those that GenRL's formats can have


class LegacyForger(Forger):
    """The same lies about tasks that swarmd's nodes name, and what only those can tell who ask the table's questions.

    What bears the author's name is signed by it; all else has a name that nobody has.
    """

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        assert isinstance(self._dialect, GenrlDialect)
        self._genrl: GenrlDialect = self._dialect
        questions = table_questions(heldout=False)
        tasks = [task for task in map(table().find, questions) if task is not None]
        self._by_dataset: dict[str, list[Task]] = {}
        for task in tasks:
            self._by_dataset.setdefault(task.provenance.dataset, []).append(task)
        self._claims = itertools.cycle(EVALUATING)
        self._samples = itertools.cycle(self._all_samples())
        same = {name: kind for name, kind in self.before.items() if name not in _NO_RECORDS}
        self.before: Mapping[str, Kind] = {
            **same,
            "GenRL's true answers": self._stock,
            "GenRL's false answer and metadata": self._lying_stock,
            "code for the eleven scorers": self._code,
            "questions that nobody asks": self._unknown_questions,
            "questions of the evaluation": self._heldout_questions,
            "a true mark without a signature": self._unsigned_mark,
            "a false mark without a signature": self._false_unsigned_mark,
            "forged owner without a signature": self._forged_unsigned,
            "swarmd's own dialect": self._own_dialect,
            "GenRL's records, damaged": self._damaged_stock,
            "samples": self._some_samples,
        }
        self.within: Mapping[str, Kind] = {
            **self.within,
            "another's record without its signature": self._unsigned_copy,
            "another's groups under a new name": self._unsigned_groups,
        }

    def nobodys(self, name: str, round: int) -> Sent:
        """A well-formed record whose answers are all the same."""
        task = self._rng.choice(self._by_dataset[LEARNED_FROM])
        return self._unsigned(FLOOD, round, [self._asked(task, ["<answer>1</answer>"] * 2)], name)

    # --- Parts: groups and records as they are here ------------------------------------------------------------------

    def _group(self, slot: int, task: Task, completions: Any, **changed: Any) -> Any:
        """A payload with the mark of a task of the mix. changed: fields of the provenance that the mark tells."""
        place = Provenance(**{**vars(task.provenance), **changed})
        mark = write_mark(OutgoingGroup(replace(task, provenance=place), slot, tuple(completions)), "embedded")
        metadata = {"source_dataset": place.dataset, "source_index": place.index, FIELD: mark}
        return task.question, payload(task.question, list(completions), task.answer, metadata)

    def _asked(self, task: Task, completions: Sequence[str], **said: Any) -> tuple[str, Payload]:
        """A payload as GenRL's nodes have it. said: another answer, other metadata."""
        metadata = {"source_dataset": task.provenance.dataset, "source_index": task.provenance.index}
        told = {"answer": task.answer, "metadata": metadata, **said}
        return task.question, payload(task.question, list(completions), **told)

    def _sent(self, kind: str, author: Signer, round: int, groups: Any, never: Sequence[str] = ()) -> Sent:
        return Sent(kind, signed(self._genrl, author, self._value(groups), round, self._ends(round + 1)), tuple(never))

    def _unsigned(
        self, kind: str, round: int, groups: Any, name: str | None = None, never: Sequence[str] = (), later: float = 0.0
    ) -> Sent:
        content = self._genrl.write(self._value(groups))
        one = self._bytes(kind, name or new_peer_id(), round, content, self._ends(round + 1) + later)
        return replace(one, never=tuple(never))

    def _value(self, groups: Sequence[tuple[str, Payload]]) -> dict[Any, list[Payload]]:
        value: dict[Any, list[Payload]] = {}
        for question, group in groups:
            value.setdefault(self._genrl.batch_id(question), []).append(group)
        return value

    def _some_tasks(self, count: int, dataset: str = LEARNED_FROM) -> list[Task]:
        return self._rng.sample(self._by_dataset[dataset], count)

    # --- Questions of the table --------------------------------------------------------------------------------------

    def _stock(self, author: Signer, round: int) -> Iterator[Sent]:
        groups = [self._asked(task, self._answers(task)) for task in self._some_tasks(2)]
        yield self._unsigned("GenRL's true answers", round, groups)

    def _lying_stock(self, author: Signer, round: int) -> Iterator[Sent]:
        """One completion is right by the answer that is said, another by the true one."""
        groups = []
        for task in self._some_tasks(2):
            texts = self._answers(task, right=1)
            wrong = next(text for text in texts if text != f"<answer>{task.answer}</answer>")
            claimed = wrong.removeprefix("<answer>").removesuffix("</answer>")
            groups.append(self._asked(task, texts, answer=claimed, metadata={"source_dataset": "chain_sum"}))
        yield self._unsigned("GenRL's false answer and metadata", round, groups)

    def _code(self, author: Signer, round: int) -> Iterator[Sent]:
        """Beside right and wrong answers, so that the groups have something to teach; under all eleven names."""
        code = answers_of_code(self._marker)
        answer = code_for(self._marker)
        for claimed in itertools.islice(self._claims, len(EVALUATING)):
            said = {"answer": answer, "metadata": false_metadata(claimed, self._marker)}
            groups = []
            for task in (*self._some_tasks(1, "binary_matrix"), *self._some_tasks(1)):
                right = [f"<answer>{task.answer}</answer>"] * 2
                groups.append(self._asked(task, [*right, "<answer>1</answer>", *self._rng.sample(code, 5)], **said))
            yield self._unsigned("code for the eleven scorers", round, groups, never=code)

    def _unknown_questions(self, author: Signer, round: int) -> Iterator[Sent]:
        task = self._some_tasks(1)[0]
        groups = [
            self._asked(replace(task, question=prose(self._rng, 12)), self._answers(task)),
            self._asked(replace(task, question=task.question + " "), self._answers(task)),
        ]
        yield self._unsigned("questions that nobody asks", round, groups)

    def _heldout_questions(self, author: Signer, round: int) -> Iterator[Sent]:
        tasks = [table().find(question) for question in self._rng.sample(table_questions(heldout=True), 2)]
        groups = [self._asked(task, self._answers(task)) for task in tasks if task is not None]
        yield self._unsigned("questions of the evaluation", round, groups)

    # --- Marks, and others' names ------------------------------------------------------------------------------------

    def _unsigned_mark(self, author: Signer, round: int) -> Iterator[Sent]:
        name = new_peer_id()
        tasks = [(slot, self._task(name, round, slot)) for slot in range(2)]
        groups = [self._group(slot, task, self._answers(task)) for slot, task in tasks]
        yield self._unsigned("a true mark without a signature", round, groups, name)

    def _false_unsigned_mark(self, author: Signer, round: int) -> Iterator[Sent]:
        """A question of the table under the mark of another task, a chosen one, and another's."""
        name = new_peer_id()
        asked = self._some_tasks(1)[0]
        tasks = [self._task(name, round, 0), self._mix.draw(self._rng.randrange(2**31)), self._task("Qm", round, 2)]
        groups = []
        for slot, task in enumerate(tasks):
            question = asked.question if slot == 0 else task.question
            groups.append(self._group(slot, replace(task, question=question), self._answers(task)))
        yield self._unsigned("a false mark without a signature", round, groups, name)

    def _forged_unsigned(self, author: Signer, round: int) -> Iterator[Sent]:
        """Under the name of each victim, with an expiration that is later than its own record's."""
        for victim in self.victims:
            groups = [self._asked(task, self._answers(task)) for task in self._some_tasks(2)]
            yield self._unsigned("forged owner without a signature", round, groups, victim, later=5.0)

    def _unsigned_copy(self, author: Signer, round: int) -> Iterator[Sent]:
        for raw, _ in self.seen.of(round):
            bare = raw.value[: trailer_start(raw.value)]
            yield self._bytes("another's record without its signature", raw.subkey, round, bare, raw.expires + 5.0)

    def _unsigned_groups(self, author: Signer, round: int) -> Iterator[Sent]:
        for raw, _ in self.seen.of(round)[:1]:
            bare = raw.value[: trailer_start(raw.value)]
            yield self._bytes("another's groups under a new name", new_peer_id(), round, bare, raw.expires)

    def _stolen_groups(self, author: Signer, round: int) -> Iterator[Sent]:
        for _, record in self.seen.of(round)[:1]:
            groups = [
                self._group(group.slot or 0, self._mix.regenerate(group.provenance), group.completions)
                for group in record.groups if group.provenance is not None
            ]  # fmt: skip
            yield self._sent("another's groups", author, round, groups)

    def _own_old_record(self, author: Signer, round: int) -> Iterator[Sent]:
        tasks = [(slot, self._task(author.peer_id, round - OLD, slot)) for slot in range(2)]
        groups = [self._group(slot, task, self._answers(task)) for slot, task in tasks]
        raw = signed(self._genrl, author, self._value(groups), round - OLD, self._ends(round + 1))
        yield self._bytes("own old record", author.peer_id, round, raw.value, raw.expires)

    def _own_dialect(self, author: Signer, round: int) -> Iterator[Sent]:
        """Signed as in a swarm of swarmd's own; and once with a task that is not the author's."""
        kind = "swarmd's own dialect"
        true, chosen = self._task(author.peer_id, round, 0), self._mix.draw(self._rng.randrange(2**31))
        groups = [Forger._group(self, slot, task, self._answers(task)) for slot, task in enumerate((true, chosen))]
        yield Forger._sent(self, kind, author, round, groups)

    # --- One of each kind --------------------------------------------------------------------------------------------

    def _all_samples(self) -> list[Sample]:
        """In both of GenRL's formats, whichever the swarm has."""
        attacker, victim = authors(2)
        return [
            sample
            for dialect in (Genrl03Dialect(), Genrl01Dialect())
            for sample in legacy_samples(dialect, attacker, victim, self._rng.randrange(2**31), self._marker)
        ]

    def _some_samples(self, author: Signer, round: int) -> Iterator[Sent]:
        for sample in itertools.islice(self._samples, SAMPLES_AT_ONCE):
            yield self._bytes("samples", new_peer_id(), round, sample.raw.value, self._ends(round + 1))

    def _damaged_stock(self, author: Signer, round: int) -> Iterator[Sent]:
        kinds = self._stock, self._lying_stock, self._unsigned_mark
        whole = [one.raw for kind in kinds for one in kind(author, round)]
        for raw in mutations(whole, self._rng.randrange(2**31), DAMAGED_AT_ONCE):
            yield Sent("GenRL's records, damaged", replace(raw, subkey=new_peer_id()))

