"""Section `tasks`: where the tasks come from."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Interval, Len
from pydantic import Discriminator, Field, Tag

from swarmd.config.values import Allowed, Auto, Contradiction, Section, matching

DatasetName = Annotated[
    str, matching(r"[a-z][a-z0-9_]{0,63}"), Allowed("the name of a dataset in lower case, such as chain_sum")
]
PresetName = Annotated[str, matching(r"[a-z][a-z0-9-]{0,63}")]


def _a_dataset_stands_once_in_a_mix(tasks: Tasks) -> Contradiction | None:
    if isinstance(tasks.datasets, str):
        return None
    names: set[str] = set()
    for index, dataset in enumerate(tasks.datasets):
        if dataset.name in names:
            return Contradiction(
                (f"tasks.datasets[{index}].name",), f"{dataset.name} stands twice in the mix"
            )
        names.add(dataset.name)
    return None


class Dataset(Section):
    name: DatasetName
    """The dataset's name in its environment."""

    weight: Annotated[float, Interval(gt=0.0, le=1e6)] = 1.0
    """How often it is drawn, relative to the other weights."""

    config: dict[str, Any] = Field(default_factory=dict)
    """The dataset's own settings."""


class Tasks(Section):
    rules = (_a_dataset_stands_once_in_a_mix,)

    environment: Annotated[
        str,
        matching(r"[A-Za-z_][A-Za-z0-9_-]{0,63}|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*){0,15}:[A-Za-z_]\w*"),
        Allowed("reasoning_gym, an installed environment's name, or package.module:factory"),
    ] = "reasoning_gym"
    """What makes and scores the tasks."""

    datasets: Annotated[
        Annotated[PresetName, Tag("preset")]
        | Annotated[tuple[Dataset, ...], Field(strict=False), Len(1, 1000), Tag("list")],
        Discriminator(lambda value: "list" if isinstance(value, (list, tuple)) else "preset"),
        Allowed("embedded, another preset's name, or a list of datasets, each with name, weight and config"),
    ] = "embedded"
    """The mix of tasks: a preset, or a list."""

    system_prompt: (
        Auto | Annotated[str, matching(r"(?s:.{0,8000})"), Allowed("a text of at most 8000 characters")]
    ) = "auto"
    """The instruction before each task; auto: what the model was made with or the environment asks for."""
