"""Do hostile peers harm? Seven honest nodes with three hostile peers, and without.

    python -m tests.bench.hostile --out hostile.md      as many rounds as --rounds, in --work; may be broken off
    python -m tests.bench.hostile --out hostile.md      the same again: goes on where it was
    python -m tests.bench.hostile --out hostile.md --minutes 0    only the tables and the plot of what there is

Each node has weights, optimizer, tasks and a key of its own, all in one process. A round is the daemon's, with the
default configuration: tasks (ReasoningData), groups (GRPOTrainer), a record of them, signed (OwnDialect), all others'
records through an Admission of its own (sift, admit; its reputation lasts, over restarts too, what it has seen of
copies until the next evaluation), the tasks made anew (PeerGroups), scores, selection (selection.select), a GRPO step
with the measure of plausibility, and what came of it back to the reputation. What is not as in a swarm: records pass
from hand to hand, so that nothing is lost; a round always lasts 300 s by the clock that quarantines are measured with;
scoring is in this process.

Arms; the seven start with the same weights and have the same tasks and noise in all of them, and only they are scored:

- clean: three honest nodes more.
- hostile: three hostile peers, each with its behaviours in turns, one a round. The forger: damaged records, bombs,
  others' tasks, claimed answers and rewards, copies, replays, ragged groups, others' names, two records in a round,
  late ones. The poisoner: well-formed records with trash before or behind right answers, one right answer among
  gibberish, false answers alone, great length, control tokens, several answers in a completion, answers in an odd
  form. The insider: nothing that a rule could find. Answers of the model they all began with, picked so that only 7
  is right, of tasks chosen among its draws, or so that only one digit is, or that the best is half right, of all its
  draws; and answers of a model that is trained to be wrong.
- alone: each of the seven without any peer.
- believing, a control which shows that the experiment can fail: the same three, and nodes that believe what peers say
  of question and answer, as GenRL's do; no admission, no plausibility.
- insiders: three insiders. What those can do of whom all records are in order.

In every round, whatever of peers a trainer is given is looked at by hostile_audit: whether it is that peer's task, made
anew by reasoning-gym itself, with the rewards of its scorer, and with the text in that peer's record.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from swarmd.network.reputation import REPUTATION_FILE
from swarmd.system.startup import prepare_process

prepare_process()
# The runs are to be the same on every machine, and small matrices gain nothing from a GPU.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from tests.bench import hostile_report  # noqa: E402  (the environment comes first)
from tests.bench.hostile_swarm import ARMS, HONEST, OTHERS, Swarm, common, yardstick  # noqa: E402
from tests.bench.sapo_swarm import add  # noqa: E402
from tests.bench.turns import PROGRESS_FILE, play_all, progress_of, say, settled, told, write  # noqa: E402

ROUNDS, EVERY, SEEDS, HELDOUT = 60, 20, (1, 2, 3), 500
START = "start"
"""Stands for an arm in the job that scores the weights all arms begin with."""


@dataclass(frozen=True)
class Turn:
    """Some rounds of a run: from where it is to round `to`, then the held-out score."""

    folder: str
    arm: str
    seed: int
    to: int
    heldout: int


def main() -> int:
    options = parse()
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    if not settled(work, {"every": options.every, "heldout": options.heldout}):
        return 1
    if options.minutes is None or options.minutes > 0:
        play_all(iter(turns_of(options, work)), play, options.workers, options.minutes)
    runs = hostile_report.load(work, options.seeds)
    if runs is None:
        say("nothing to report yet: clean and hostile have not both been scored after their first turn")
        return 1
    lines = "\n".join(hostile_report.markdown(runs))
    print(lines)
    if options.out:
        out = Path(options.out)
        out.write_text(lines + "\n")
        hostile_report.plot(runs, out.with_suffix(".svg"))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.hostile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of each run (default: {ROUNDS})")
    parser.add_argument("--every", type=int, default=EVERY, help=f"rounds between evaluations (default: {EVERY})")
    parser.add_argument("--heldout", type=int, default=HELDOUT, help=f"held-out tasks (default: {HELDOUT})")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help=f"default: {SEEDS}")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), help="to be played (default: all)")
    parser.add_argument("--minutes", type=float, help="begin no turn that would not end by then")
    parser.add_argument("--workers", type=int, default=2, help="processes at once, of one thread each (default: 2)")
    parser.add_argument("--work", default=".run/hostile", help="where the runs are kept (default: .run/hostile)")
    parser.add_argument("--out", metavar="FILE.md", help="write the tables there, and the plot beside it (.svg)")
    return parser.parse_args()


def turns_of(options: argparse.Namespace, work: Path) -> Iterator[Turn]:
    """Those that are still to be played."""
    folder = str(work)
    for seed in options.seeds:
        if not (work / f"{START}-{seed}.json").exists():
            yield Turn(folder, START, seed, 0, options.heldout)
    for last in (False, True):
        for to in range(options.every, options.rounds + 1, options.every):
            for seed in options.seeds:
                for arm in (arm for arm in options.arms if ARMS[arm].last == last):
                    if progress_of(work / f"{arm}-{seed}").round < to:
                        yield Turn(folder, arm, seed, to, options.heldout)


def play(turn: Turn) -> str:
    """Plays a turn in a worker; a line that tells of it. A turn that is broken off is played again from its start."""
    begun, cpu = time.monotonic(), time.process_time()
    work = Path(turn.folder)
    if turn.arm == START:
        sampled, greedy = yardstick(turn.heldout).scores(Swarm(common(), ARMS["alone"], turn.seed).nodes)
        write(work / f"{START}-{turn.seed}.json", {"round": 0, "sampled": sampled, "greedy": greedy})
        return f"seed {turn.seed}, before training: {told(sampled, greedy)}"
    folder = work / f"{turn.arm}-{turn.seed}"
    progress = progress_of(folder)
    before, kept = folder / f"round-{progress.round}", folder / f"round-{turn.to}"
    shutil.rmtree(kept, ignore_errors=True)
    for number in range(HONEST + OTHERS):
        (kept / str(number)).mkdir(parents=True)
        if (reputation := before / str(number) / REPUTATION_FILE).exists():
            shutil.copy(reputation, kept / str(number) / REPUTATION_FILE)
    swarm = Swarm(common(), ARMS[turn.arm], turn.seed, kept)
    for number, counters in enumerate(progress.counters):
        swarm.trainers[number].restore(before / str(number), counters)
    counts: dict[str, float] = {}
    for round in range(progress.round, turn.to):
        add(counts, swarm.play(round))
    sampled, greedy = yardstick(turn.heldout).scores(swarm.nodes)
    swarm.save()
    progress.counters = [trainer.save(kept / str(number)) for number, trainer in enumerate(swarm.trainers)]
    progress.round = turn.to
    row = {"round": turn.to, "sampled": sampled, "greedy": greedy, "counts": counts, "shut_out": swarm.shut_out}
    progress.curve.append(row)
    progress.cpu_seconds += time.process_time() - cpu
    write(folder / PROGRESS_FILE, asdict(progress))
    if before != kept:
        shutil.rmtree(before, ignore_errors=True)
    wrong = sum(count for name, count in counts.items() if "/violation: " in name)
    seconds = time.monotonic() - begun
    return (
        f"seed {turn.seed}, {ARMS[turn.arm].title}, round {turn.to}: {told(sampled, greedy)}; {wrong:.0f} violations; "
        f"{seconds:.0f} s"
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
