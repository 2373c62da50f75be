"""Sections `market`, `judge` and `hub`: whom the node tells of its work."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval

from swarmd.config.values import ContractAddress, Contradiction, FileReference, HubId, Section, Unit, Url


def _a_market_is_a_contract(market: Market) -> Contradiction | None:
    if not market.enabled or market.contract is not None:
        return None
    return Contradiction(("market.enabled",), "true needs market.contract")


def _a_push_has_a_target_and_a_token(hub: Hub) -> Contradiction | None:
    missing = [f"hub.{key}" for key in ("repo", "token_file") if getattr(hub, key) is None]
    if hub.push_every == 0 or not missing:
        return None
    return Contradiction(("hub.push_every",), f"pushing to the hub needs {' and '.join(missing)}")


class Market(Section):
    rules = (_a_market_is_a_contract,)

    enabled: bool = False
    """Take part in the prediction market."""

    contract: ContractAddress | None = None
    """Address of the market's contract."""


class Judge(Section):
    url: Url | None = None
    """A judge that asks questions after each evaluation; null: none."""


class Hub(Section):
    rules = (_a_push_has_a_target_and_a_token,)

    push_every: Annotated[int, Interval(ge=0, le=1_000_000), Unit("rounds")] = 0
    """Rounds between two uploads of the model; 0: never. Not read by this version."""

    repo: HubId | None = None
    """Repository to upload to. Not read by this version."""

    token_file: FileReference | None = None
    """File with the hub's token; read by `swarmd model pull`, which the node runs to fetch its model."""

    endpoint: Url | None = None
    """Another server with the hub's interface; null: huggingface.co. Not read by this version."""
