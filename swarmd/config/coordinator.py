"""Section `coordinator`: who says which round it is, and who is told of rewards."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Interval

from swarmd.config.values import ContractAddress, Contradiction, FileReference, Name, Section, Unit, Url

_NEEDS = {
    "wallet": ("contract", "rpc_url_file", "key_file"),
    "modal": ("contract", "rpc_url_file", "proxy_url", "org_id"),
}


def _a_chain_coordinator_has_all_it_needs(coordinator: Coordinator) -> Contradiction | None:
    needs = _NEEDS.get(coordinator.kind, ())
    missing = [f"coordinator.{key}" for key in needs if getattr(coordinator, key) is None]
    if not missing:
        return None
    return Contradiction(("coordinator.kind",), f"{coordinator.kind} needs {' and '.join(missing)}")


class Coordinator(Section):
    rules = (_a_chain_coordinator_has_all_it_needs,)

    kind: Literal["solo", "clock", "wallet", "modal"] = "solo"
    """solo: alone, one round after the other; clock: rounds by the time of day, the same for all nodes of a
    swarm; wallet and modal: rounds of a contract, with an own key or through the login proxy."""

    round_seconds: Annotated[float, Interval(ge=1.0, le=86_400.0), Unit("seconds")] = 300.0
    """Length of a round of the clock, in seconds; the same in the whole swarm."""

    epoch: Annotated[float, Interval(ge=0.0, le=4_102_444_800.0), Unit("seconds")] = 0.0
    """When round 0 of the clock began, in seconds since 1970; the same in the whole swarm."""

    contract: ContractAddress | None = None
    """Address of the swarm's contract."""

    rpc_url_file: FileReference | None = None
    """File with the URL of the chain's RPC server, which often carries a key."""

    key_file: FileReference | None = None
    """File with the private key of the wallet."""

    proxy_url: Url | None = None
    """URL of the login proxy."""

    org_id: Name | None = None
    """The account's organisation id at the login proxy."""
