"""Do peers help? SAPO's experiment (arXiv 2509.08721) in miniature, with the embedded model.

    python -m tests.bench.sapo --out sapo.md            as many rounds as --rounds, in --work; may be broken off
    python -m tests.bench.sapo --out sapo.md            the same again: goes on where it was
    python -m tests.bench.sapo --out sapo.md --minutes 0    only the table and the plot of what there is

Four nodes, each with weights, optimizer and tasks of its own, in one process. A round is the daemon's: every node draws
its tasks (ReasoningData), samples a group of 8 completions of each, and takes in its peers' groups (PeerGroups: the
task made anew, of the peer the plain text alone), scores all with the scorer's functions, selects (selection.select)
and makes one GRPO step (GRPOTrainer). What is not as in a swarm: groups pass from hand to hand, so nothing is late,
lost or hostile, admission's rules are not run, and a node takes 6 groups of each peer where the default is 4; scoring
is in this process.

Every arm samples the same number of groups a node and round, 16, so that tokens are equal; the arms differ in what is
trained on (own/peers'):

- 8/0: 8 of the own 16, drawn blindly. SAPO's baseline, which cannot pass over groups that teach nothing.
- 6/2, 4/4, 2/6: that many own and peers' groups, all of them with signal (rewards that differ).
- 8/0 filtered, a control: 8 own ones with signal. What filtering does by itself, at as many groups as with peers.
- 4/4 frozen peers, a control: as 4/4, but the peers' tasks are answered by the untrained model. What fresh tasks and
  text of others do by themselves, without peers that learn.
- all own, no peers: every own group with signal. What a node alone does by default; it costs no more sampling.
- all own + peers': that, and all of the peers' groups with signal that were taken. What a node in a swarm does.

All arms of a seed start with the same weights, and draw the same tasks with the same noise. Runs go on in turns, some
rounds each, and are kept after each turn; what the table says is of the last round that all runs have reached.
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

from swarmd.system.startup import prepare_process

prepare_process()
# The runs are to be the same on every machine, and small matrices gain nothing from a GPU.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from tests.bench import sapo_report  # noqa: E402  (the environment comes first)
from tests.bench.sapo_swarm import ARMS, Swarm, add, common, yardstick  # noqa: E402
from tests.bench.turns import PROGRESS_FILE, play_all, progress_of, say, settled, told, write  # noqa: E402

ROUNDS, EVERY, SEEDS, HELDOUT = 100, 20, (1, 2, 3), 500
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
    runs = sapo_report.load(work, options.seeds)
    if runs is None:
        say("nothing to report yet: not every run has been scored after its first turn")
        return 1
    lines = "\n".join(sapo_report.markdown(runs))
    print(lines)
    if options.out:
        out = Path(options.out)
        out.write_text(lines + "\n")
        sapo_report.plot(runs, out.with_suffix(".svg"))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.sapo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of each run (default: {ROUNDS})")
    parser.add_argument("--every", type=int, default=EVERY, help=f"rounds between evaluations (default: {EVERY})")
    parser.add_argument("--heldout", type=int, default=HELDOUT, help=f"held-out tasks (default: {HELDOUT})")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help=f"default: {SEEDS}")
    parser.add_argument("--minutes", type=float, help="begin no turn that would not end by then")
    parser.add_argument("--workers", type=int, default=2, help="processes at once, of one thread each (default: 2)")
    parser.add_argument("--work", default=".run/sapo", help="where the runs are kept (default: .run/sapo)")
    parser.add_argument("--out", metavar="FILE.md", help="write the table there, and the plot beside it (.svg)")
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
                for arm in (arm.key for arm in ARMS.values() if arm.last == last):
                    if progress_of(work / f"{arm}-{seed}").round < to:
                        yield Turn(folder, arm, seed, to, options.heldout)


def play(turn: Turn) -> str:
    """Plays a turn in a worker; a line that tells of it. A turn that is broken off leaves no trace."""
    begun, cpu = time.monotonic(), time.process_time()
    work = Path(turn.folder)
    if turn.arm == START:
        sampled, greedy = yardstick(turn.heldout).scores(Swarm(common(), ARMS["8-0"], turn.seed).nodes)
        write(work / f"{START}-{turn.seed}.json", {"round": 0, "sampled": sampled, "greedy": greedy})
        return f"seed {turn.seed}, before training: {told(sampled, greedy)}"
    folder = work / f"{turn.arm}-{turn.seed}"
    progress = progress_of(folder)
    swarm = Swarm(common(), ARMS[turn.arm], turn.seed)
    before = folder / f"round-{progress.round}"
    for number, counters in enumerate(progress.counters):
        swarm.nodes[number].trainer.restore(before / str(number), counters)
    counts: dict[str, float] = {}
    for round in range(progress.round, turn.to):
        add(counts, swarm.play(round))
    sampled, greedy = yardstick(turn.heldout).scores(swarm.nodes)
    progress.counters = []
    for number, node in enumerate(swarm.nodes):
        kept = folder / f"round-{turn.to}" / str(number)
        kept.mkdir(parents=True, exist_ok=True)
        progress.counters.append(node.trainer.save(kept))
    progress.round = turn.to
    progress.curve.append({"round": turn.to, "sampled": sampled, "greedy": greedy, "counts": counts})
    progress.cpu_seconds += time.process_time() - cpu
    write(folder / PROGRESS_FILE, asdict(progress))
    shutil.rmtree(before, ignore_errors=True)
    seconds = time.monotonic() - begun
    return f"seed {turn.seed}, {ARMS[turn.arm].title}, round {turn.to}: {told(sampled, greedy)}; {seconds:.0f} s"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
