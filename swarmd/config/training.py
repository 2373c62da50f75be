"""Section `training`: how a round learns. Defaults of the clipping follow DAPO (arXiv 2503.14476)."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Interval

from swarmd.config.values import Auto, Because, Contradiction, Section, Unit


def _the_lower_clip_does_not_exceed_the_upper(training: Training) -> Contradiction | None:
    if training.clip_low <= training.clip_high:
        return None
    return Contradiction(
        ("training.clip_low", "training.clip_high"),
        f"must not be greater than training.clip_high, which is {training.clip_high:g}",
    )


def _no_more_own_groups_are_used_than_made(training: Training) -> Contradiction | None:
    if training.own_samples is None or training.own_samples <= training.tasks_per_round:
        return None
    return Contradiction(
        ("training.own_samples", "training.tasks_per_round"),
        f"cannot exceed training.tasks_per_round, which is {training.tasks_per_round}",
    )


def _a_round_has_something_to_train_on(training: Training) -> Contradiction | None:
    if training.own_samples != 0 or training.peer_samples != 0:
        return None
    return Contradiction(
        ("training.own_samples", "training.peer_samples"),
        "training.own_samples and training.peer_samples are both 0, so there is nothing to train on",
    )


def _a_micro_batch_holds_a_completion(training: Training) -> Contradiction | None:
    if "auto" in (training.micro_batch_tokens, training.max_new_tokens):
        return None
    if int(training.micro_batch_tokens) >= int(training.max_new_tokens):
        return None
    return Contradiction(
        ("training.micro_batch_tokens", "training.max_new_tokens"),
        f"must be at least training.max_new_tokens, which is {training.max_new_tokens}",
    )


class Training(Section):
    rules = (
        _the_lower_clip_does_not_exceed_the_upper,
        _no_more_own_groups_are_used_than_made,
        _a_round_has_something_to_train_on,
        _a_micro_batch_holds_a_completion,
    )

    tasks_per_round: Annotated[int, Interval(ge=1, le=4096)] = 24
    """Tasks the node draws and answers in a round."""

    group_size: Annotated[
        int, Interval(ge=2, le=256), Because("GRPO compares the completions of a group, so it needs two")
    ] = 8
    """Completions of each task."""

    max_new_tokens: Auto | Annotated[int, Interval(ge=1, le=32768), Unit("tokens")] = "auto"
    """Longest completion, in tokens; auto: what the model and its tasks need."""

    temperature: Annotated[
        float,
        Interval(ge=0.05, le=5.0),
        Because("near 0 all completions of a group are the same and teach nothing"),
    ] = 1.0
    """Sampling temperature, in training and in evaluation."""

    learning_rate: Auto | Annotated[float, Interval(gt=0.0, le=1.0)] = "auto"
    """Step size of the optimizer after the warm-up; auto: by the model's size."""

    warmup_rounds: Annotated[int, Interval(ge=0, le=100_000), Unit("rounds")] = 20
    """Rounds in which the learning rate rises to its value."""

    own_samples: Annotated[int, Interval(ge=0, le=4096)] | None = None
    """Own groups used in a round; null: all."""

    peer_samples: Auto | Annotated[int, Interval(ge=0, le=4096)] = "auto"
    """Peers' groups used in a round; auto: as many as own ones."""

    clip_low: Annotated[float, Interval(gt=0.0, lt=1.0)] = 0.2
    """How far below 1 the probability ratio of a token may move in one update. On own completions the ratio is 1 but
    for rounding, as a round makes one step on fresh ones; it is peers' groups that will be bounded."""

    clip_high: Annotated[float, Interval(gt=0.0, le=10.0)] = 0.28
    """How far above 1 it may move."""

    max_grad_norm: Annotated[float, Interval(gt=0.0, le=1000.0)] = 1.0
    """The gradient is scaled down to this norm."""

    weight_decay: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.0
    """Decoupled weight decay of AdamW."""

    beta1: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.9
    """AdamW's decay of the gradient's mean."""

    beta2: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.99
    """AdamW's decay of the gradient's square."""

    micro_batch_tokens: Auto | Annotated[int, Interval(ge=1, le=16_777_216), Unit("tokens")] = "auto"
    """Tokens in one forward pass, prompt and completions together; less takes less memory."""

    seed: Annotated[int, Interval(ge=0, le=2**63 - 1)] | None = None
    """Seed of sampling and rounding; null: drawn once and remembered in the state directory. At the first start of
    a state directory it also fixes the order of the node's tasks, so two nodes of one swarm must not share it."""

    evaluate_every: Auto | Annotated[int, Interval(ge=1, le=1_000_000), Unit("rounds")] = "auto"
    """Rounds between two evaluations on held-out tasks; auto: so that they take a small share of the time."""

    evaluate_samples: Annotated[int, Interval(ge=1, le=100_000)] = 500
    """Held-out tasks in one evaluation."""

    on_collapse: Literal["rollback", "stop", "ignore"] = "rollback"
    """What to do when the held-out score falls far under its best: return to the best checkpoint with a lower
    learning rate, stop the node, or only tell."""

    checkpoint_every: Annotated[int, Interval(ge=1, le=100_000), Unit("rounds")] = 1
    """Rounds between two checkpoints; a crash loses at most so many, a power cut also the checkpoints of the last
    30 seconds, which are not synced yet."""

    keep_checkpoints: Annotated[
        int, Interval(ge=2, le=1000), Because("when the last is damaged, the one before is used")
    ] = 3
    """Checkpoints kept."""

    threads: Auto | Annotated[int, Interval(ge=1, le=1024)] = "auto"
    """CPU threads of the computation; auto: one for a model under 10 million parameters, else torch's choice."""
