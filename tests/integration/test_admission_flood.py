"""A hundred thousand hostile records: no exception, bounded memory, and the honest ones still used."""

import tracemalloc

import pytest

from swarmd.network.refusals import Reason
from tests.hostile.admitting import DIALECTS, admission, attacker, dialect_named
from tests.hostile.authors import NOW, ROUND
from tests.hostile.corpus import corpus_samples
from tests.hostile.flood import base, flood
from tests.hostile.mutations import mutations

RECORDS = {"swarmd": 50_000, "genrl-0.3": 25_000, "genrl-0.1": 25_000}
MIB = 2**20
MANY = {
    "P26": Reason.COMPLETION_TOO_LONG, "P29": Reason.TOO_MANY_COMPLETIONS, "P30": Reason.TOO_MANY_GROUPS,
}  # fmt: skip
"""Of the corpus, what is well formed, small enough to be read, and too much of something."""


@pytest.mark.parametrize("name", DIALECTS)
def test_a_flood_of_hostile_records_raises_nothing_and_loses_no_honest_one(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = flood(name, RECORDS[name], seed=5)
    with capsys.disabled():
        print(f"\n{name}: {result.records} records, {result.rate:.0f}/s, {result.growth / MIB:+.1f} MiB resident")
    assert result.records == RECORDS[name]
    assert not result.wrong, result.wrong[:5]
    assert result.honest_lost == 0
    assert len(result.refused) >= 15, "the flood met too few of the rules to prove anything"
    # Of what comes as far as its task most has lost its dataset or its settings; each other kind has a test of its own.
    assert {Reason.NOT_DECODABLE, Reason.WRONG_SHAPE, Reason.UNKNOWN_TASK} <= set(result.refused)
    assert result.growth < 24 * MIB
    assert result.peers <= 1024


@pytest.mark.parametrize("name", DIALECTS)
def test_a_call_needs_little_more_memory_than_its_records(name: str) -> None:
    dialect = dialect_named(name)
    found = list(mutations(base(name, 7), 7, 2000))
    admitting = admission(dialect)
    admitting.admit(found[:50], ROUND, NOW)  # what is imported and made once is not counted
    tracemalloc.start()
    try:
        admitting.admit(found, ROUND, NOW)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * MIB


@pytest.mark.parametrize("name", DIALECTS)
def test_what_is_too_much_of_something_is_in_the_flood_and_refused_as_that(name: str) -> None:
    dialect = dialect_named(name)
    flooded = {raw.value for raw in base(name, 5) if isinstance(raw.value, bytes)}
    found = {}
    for sample in corpus_samples(dialect, attacker.peer_id):
        case = sample.kind.partition(" ")[0]
        if case in MANY:
            admitting = admission(dialect)
            assert admitting.admit([sample.raw], ROUND, NOW) == [] and sample.raw.value in flooded
            found[case] = set(admitting.totals)
    assert found == {case: {reason} for case, reason in MANY.items()}
