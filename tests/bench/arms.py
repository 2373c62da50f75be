"""What is compared, and what one run of it gives. Plain data: this module imports neither torch nor GenRL."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        key: its name on the command line.
        title: its name in the table.
        genrl: GenRL's trainer, else swarmd's.
        our_rate: GenRL with swarmd's learning rate instead of its own default.
        one_step: GenRL with one optimizer step a round, as swarmd takes, instead of one for every two completions.
    """

    key: str
    title: str
    genrl: bool = True
    our_rate: bool = False
    one_step: bool = False


SWARMD = Arm("swarmd", "swarmd", genrl=False)
ARMS = {
    arm.key: arm
    for arm in (
        SWARMD,
        Arm("genrl", "GenRL, its defaults"),
        Arm("genrl-rate", "GenRL, swarmd's rate", our_rate=True),
        Arm("genrl-step", "GenRL, swarmd's rate, 1 step", our_rate=True, one_step=True),
    )
}
RESULT_FILE = "result.json"
DEFAULT_ARMS = ("swarmd", "genrl", "genrl-rate")


@dataclass(frozen=True)
class RunSpec:
    """One run in a process of its own.

    Attributes:
        tasks: of a round; None: the configuration's default.
        folder: where it leaves its result and weights.
    """

    arm: str
    seed: int
    rounds: int
    tasks: int | None
    folder: str


@dataclass(frozen=True)
class RunResult:
    """What a run tells.

    Attributes:
        round_seconds, cpu_seconds: wall and CPU time of each round that was finished.
        phase_seconds: for each round its seconds by phase: tasks, data, generate, score, train, step (the
            optimizer's, not counted in train).
        baseline_bytes: resident memory with everything imported and the model loaded, before the first round.
        peak_bytes: most resident memory during the rounds (VmHWM, reset before them).
        learning_rate: as the trainer had it.
        steps: optimizer steps.
        moved: L2 norm of the change of all weights, relative to theirs.
        rewards: mean reward of each round.
        error: traceback of what went wrong, "" when nothing did.
    """

    arm: str
    seed: int
    round_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    phase_seconds: list[dict[str, float]] = field(default_factory=list)
    baseline_bytes: int = 0
    peak_bytes: int = 0
    learning_rate: float = 0.0
    steps: int = 0
    moved: float = 0.0
    rewards: list[float] = field(default_factory=list)
    error: str = ""
