"""Section `watchdog`: how long each phase may go without getting on before the node counts as hung."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval

from swarmd.config.values import Section, Unit

Patience = Annotated[float, Interval(ge=1.0, le=604_800.0), Unit("seconds")]


class Watchdog(Section):
    """Seconds. They bound a single step, not a phase: a phase that gets on may last as long as it needs to. The
    defaults leave room for the largest model that fits a slow machine."""

    start: Patience = 1800.0
    """Loading the model, opening the tasks, restoring the checkpoint; while a model is fetched, the time in which
    not a byte arrives."""

    coordinate: Patience = 300.0
    """Asking for the round; waiting for the clock is no hang."""

    generate: Patience = 1800.0
    """One more token for all completions that are sampled together, or reading their prompts."""

    share: Patience = 600.0
    """Exchanging a round with the swarm."""

    admit: Patience = 600.0
    """One batch of answers to be scored."""

    train: Patience = 3600.0
    """One micro-batch, forward and backward, or the optimizer's step."""

    checkpoint: Patience = 1800.0
    """Writing or reading a checkpoint."""

    evaluate: Patience = 3600.0
    """As for generate, with the prompts of an evaluation, which are more at once."""

    between: Patience = 300.0
    """What is done between two phases."""
