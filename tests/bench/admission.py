"""What hostile records cost a node: for each kind, by which rule it is refused, the time and the memory that takes.

    python -m tests.bench.admission                all kinds and a flood of 20 000 records of each dialect
    python -m tests.bench.admission --flood 0      the kinds only

How to read it:
- refused by: the reason code; "-" for what is admitted, and scored by the node's own copy of the task.
- µs: of one record alone, from the DHT's bytes to the verdict, mean over the repetitions (process time); records/s: of
  one core, its reciprocal. Every repetition is another Admission, so that nothing is passed over as known.
- peak KiB: the most memory Python took for it meanwhile (tracemalloc), the record itself not counted.
- kinds of which there are several (a field of a wrong type) are one line; the slowest and largest of them counts.
"""

from __future__ import annotations

import argparse
import random
import time
import tracemalloc
from collections.abc import Iterable
from dataclasses import dataclass

from swarmd.system.startup import prepare_process

prepare_process()

from swarmd.network.dialects.genrl_payload import GenrlDialect  # noqa: E402  (the environment comes first)
from swarmd.network.dialects.own import OwnDialect  # noqa: E402
from tests.hostile.admitting import DIALECTS, admission, attacker, dialect_named, others, victim  # noqa: E402
from tests.hostile.authors import NOW, ROUND, Sample, honest  # noqa: E402
from tests.hostile.corpus import corpus_samples  # noqa: E402
from tests.hostile.flood import flood  # noqa: E402
from tests.hostile.legacy import legacy_samples, stock  # noqa: E402
from tests.hostile.own import own_samples  # noqa: E402

KIB = 1024


@dataclass(frozen=True)
class Line:
    """seconds: of one record; peak: bytes."""

    kind: str
    reasons: frozenset[str]
    size: int
    seconds: float
    peak: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=20, help="how often each record is measured")
    parser.add_argument("--flood", type=int, default=20_000, help="records of each dialect in the flood")
    options = parser.parse_args()
    for name in DIALECTS:
        print(
            f"\n{name}\n{'kind of record':<58}{'refused by':<26}{'bytes':>8}{'records/s':>11}{'µs':>9}{'peak KiB':>10}"
        )
        for line in merged(measured(name, sample, options.repeat) for sample in samples(name)):
            reasons = ", ".join(sorted(line.reasons)) or "-"
            figures = f"{line.size:>8}{1 / line.seconds:>11.0f}{line.seconds * 1e6:>9.0f}{line.peak / KIB:>10.1f}"
            print(f"{line.kind[:57]:<58}{reasons[:25]:<26}{figures}")
    for name in DIALECTS if options.flood else ():
        result = flood(name, options.flood, seed=5)
        print(
            f"\n{name}: {result.records} hostile records, {result.rate:.0f}/s, {result.growth / KIB:.0f} KiB more "
            f"resident, {result.honest_lost} honest groups lost, {len(result.wrong)} admitted with another's task"
        )


def samples(name: str) -> Iterable[Sample]:
    """An honest record first, to compare with."""
    dialect, rng = dialect_named(name), random.Random(1)
    yield Sample("honest, 4 groups", honest(dialect, others[0], rng, count=4))
    if isinstance(dialect, OwnDialect):
        yield from own_samples(dialect, attacker, victim, 1, "/nowhere/marker")
    elif isinstance(dialect, GenrlDialect):
        yield Sample("honest, unsigned, 2 questions of the table", stock(dialect, others[0].peer_id, rng))
        yield from legacy_samples(dialect, attacker, victim, 1, "/nowhere/marker")
    yield from corpus_samples(dialect, attacker.peer_id)


def measured(name: str, sample: Sample, repeat: int) -> Line:
    dialect = dialect_named(name)
    admitting = [admission(dialect) for _ in range(repeat + 1)]
    started = time.process_time()
    for one in admitting[1:]:
        one.admit([sample.raw], ROUND, NOW)
    seconds = (time.process_time() - started) / repeat
    tracemalloc.start()
    admitting[0].admit([sample.raw], ROUND, NOW)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = len(sample.raw.value) if isinstance(sample.raw.value, bytes) else 0
    return Line(sample.kind, frozenset(admitting[0].totals), size, seconds, peak)


def merged(lines: Iterable[Line]) -> list[Line]:
    """One line a kind."""
    kinds: dict[str, Line] = {}
    for line in lines:
        known = kinds.get(line.kind, line)
        kinds[line.kind] = Line(
            line.kind,
            known.reasons | line.reasons,
            max(known.size, line.size),
            max(known.seconds, line.seconds),
            max(known.peak, line.peak),
        )
    return list(kinds.values())


if __name__ == "__main__":
    main()
