"""Mistakes in environment variables, in drop-ins and in several places."""

from __future__ import annotations

from tests.unit.broken_config import BrokenConfig

LAYERS = (
    BrokenConfig(
        "a variable out of range",
        (
            (
                "environment SWARMD_TRAINING__GROUP_SIZE: training.group_size: must be a whole number "
                "from 2 to 256 (GRPO compares the completions of a group, so it needs two) (got 1)"
            ),
        ),
        environ={"SWARMD_TRAINING__GROUP_SIZE": "1"},
    ),
    BrokenConfig(
        "a variable for no key",
        (
            (
                "environment SWARMD_TRAINING__GROUPSIZE: training.groupsize: unknown key; did you mean "
                "training.group_size?"
            ),
        ),
        environ={"SWARMD_TRAINING__GROUPSIZE": "4"},
    ),
    BrokenConfig(
        "a variable for no section",
        ("environment SWARMD_TRAIN__GROUP_SIZE: train: unknown key; did you mean training?",),
        environ={"SWARMD_TRAIN__GROUP_SIZE": "4"},
    ),
    BrokenConfig(
        "a variable with one underscore",
        (
            (
                "environment SWARMD_TRAINING_GROUP_SIZE: is not of the form SWARMD_SECTION__KEY, with "
                "two underscores; did you mean SWARMD_TRAINING__GROUP_SIZE?"
            ),
        ),
        environ={"SWARMD_TRAINING_GROUP_SIZE": "4"},
    ),
    BrokenConfig(
        "a variable for a section",
        (
            (
                "environment SWARMD_LOG: is not of the form SWARMD_SECTION__KEY, with two underscores; "
                "did you mean SWARMD_LOG__...?"
            ),
        ),
        environ={"SWARMD_LOG": "debug"},
    ),
    BrokenConfig(
        "a variable without a key",
        ("environment SWARMD_LOG__: is not of the form SWARMD_SECTION__KEY, with two underscores",),
        environ={"SWARMD_LOG__": "debug"},
    ),
    BrokenConfig(
        "an empty variable",
        (
            (
                "environment SWARMD_TRAINING__GROUP_SIZE: training.group_size: must be a whole number "
                "from 2 to 256 (GRPO compares the completions of a group, so it needs two) (got nothing)"
            ),
        ),
        environ={"SWARMD_TRAINING__GROUP_SIZE": ""},
    ),
    BrokenConfig(
        "a variable with a list in it",
        (
            (
                "environment SWARMD_TASKS__DATASETS: tasks.datasets[0].weight: must be a number over 0 "
                "and at most 1000000 (got -1)"
            ),
        ),
        environ={"SWARMD_TASKS__DATASETS": "[{name: chain_sum, weight: -1}]"},
    ),
    BrokenConfig(
        "a variable that contradicts the file",
        (
            (
                "config.yaml:2: training.own_samples: cannot exceed training.tasks_per_round, which is 4 "
                "(got 6)"
            ),
        ),
        files={"config.yaml": "training:\n  own_samples: 6\n"},
        environ={"SWARMD_TRAINING__TASKS_PER_ROUND": "4"},
    ),
    BrokenConfig(
        "many mistakes in many places",
        (
            (
                "config.yaml:2: training.seed: must be a whole number from 0 to 9223372036854775807 or "
                "null (got x)"
            ),
            "config.yaml:3: training.group_sise: unknown key; did you mean training.group_size?",
            "config.yaml:5: model.device: must be auto or one of cpu, cuda (got tpu)",
            "config.d/10-a.yaml:2: a value is missing, or a [ or { is not closed",
            "config.d/20-b.yaml:2: log.level: must be one of debug, info, warning, error (got loud)",
            (
                "environment SWARMD_HUB__REPO: hub.repo: must be a repository such as OWNER/NAME or null "
                "(got mine)"
            ),
        ),
        files={
            "config.yaml": "training:\n  seed: x\n  group_sise: 4\nmodel:\n  device: tpu\n",
            "config.d/20-b.yaml": "log:\n  level: loud\n",
            "config.d/10-a.yaml": "log: [\n",
        },
        environ={"SWARMD_HUB__REPO": "mine"},
    ),
    BrokenConfig(
        "a mistake in a drop-in",
        (
            (
                "config.d/50-mine.yaml:3: training.group_size: must be a whole number from 2 to 256 "
                "(GRPO compares the completions of a group, so it needs two) (got 0)"
            ),
        ),
        files={
            "config.yaml": "training:\n  group_size: 4\n",
            "config.d/50-mine.yaml": "# mine\ntraining:\n  group_size: 0\n",
        },
    ),
)
