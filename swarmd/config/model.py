"""Section `model`: what is trained, and where it is computed."""

from __future__ import annotations

from typing import Annotated, Literal

from swarmd.config.values import Allowed, Auto, Contradiction, Section, matching

ModelName = Annotated[
    str,
    matching(
        r"embedded|auto"
        r"|\.{0,2}/[^\x00-\x1f\x7f]{0,4095}"
        r"|[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
    ),
    Allowed("embedded, auto, a folder (/PATH or ./PATH) or a model of the Hugging Face hub (OWNER/NAME)"),
]
Revision = Annotated[
    str,
    matching(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}"),
    Allowed("a commit, tag or branch of the hub's repository"),
]


def _only_a_hub_model_has_a_revision(model: Model) -> Contradiction | None:
    from_hub = model.name not in ("embedded", "auto") and not model.name.startswith((".", "/"))
    if model.revision is None or from_hub:
        return None
    return Contradiction(
        ("model.revision", "model.name"),
        f"only a model of the hub (OWNER/NAME) has revisions, and model.name is {model.name}",
    )


class Model(Section):
    rules = (_only_a_hub_model_has_a_revision,)

    name: ModelName = "embedded"
    """The model: the embedded one, the best that fits (auto), a folder, or one of the hub."""

    dtype: Auto | Literal["float32", "bfloat16"] = "auto"
    """Number format of the weights."""

    revision: Revision | None = None
    """Commit, tag or branch of a hub model; null: the newest."""

    device: Auto | Literal["cpu", "cuda"] = "auto"
    """Where it is computed; auto takes a GPU if there is one."""
