"""The whole configuration, and the rules between its sections."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Self

from pydantic import Field, model_validator

from swarmd.config.coordinator import Coordinator
from swarmd.config.memory import Memory
from swarmd.config.model import Model
from swarmd.config.monitor import Log, Monitor
from swarmd.config.network import Network
from swarmd.config.reporting import Hub, Judge, Market
from swarmd.config.swarm import Swarm
from swarmd.config.tasks import Tasks
from swarmd.config.training import Training
from swarmd.config.values import Contradiction, Section, raise_contradictions
from swarmd.config.watchdog import Watchdog


def _a_clock_belongs_to_a_swarm(swarm: Swarm, coordinator: Coordinator) -> Contradiction | None:
    if coordinator.kind != "clock" or swarm.id is not None:
        return None
    return Contradiction(("coordinator.kind",), "clock needs swarm.id; swarmd found and swarmd join set both")


def _a_bootnode_serves_a_swarm(swarm: Swarm, coordinator: Coordinator) -> Contradiction | None:
    if swarm.role != "bootnode" or coordinator.kind != "solo":
        return None
    return Contradiction(
        ("swarm.role", "coordinator.kind"),
        "a bootnode serves a swarm, but coordinator.kind is solo; use coordinator.kind: clock",
    )


def _a_bootnode_can_be_reached(swarm: Swarm, network: Network) -> Contradiction | None:
    if swarm.role != "bootnode" or network.listen:
        return None
    return Contradiction(("network.listen", "swarm.role"), "a bootnode must listen on an address")


def _gathering_ends_within_the_round(network: Network, coordinator: Coordinator) -> Contradiction | None:
    if coordinator.kind != "clock" or network.gather_seconds == "auto":
        return None
    if network.gather_seconds < coordinator.round_seconds:
        return None
    return Contradiction(
        ("network.gather_seconds", "coordinator.round_seconds"),
        f"waiting for peers would take the whole round of {coordinator.round_seconds:g} seconds; leave it auto",
    )


def _who_trains_alone_has_no_peers(swarm: Swarm, coordinator: Coordinator) -> Contradiction | None:
    if not swarm.peers or coordinator.kind != "solo":
        return None
    return Contradiction(
        ("swarm.peers", "coordinator.kind"),
        "peers are given, but coordinator.kind is solo, which trains alone; take swarm.peers out, or use "
        "coordinator.kind: clock",
    )


def _who_trains_alone_uses_own_groups(training: Training, coordinator: Coordinator) -> Contradiction | None:
    if training.own_samples != 0 or coordinator.kind != "solo":
        return None
    return Contradiction(
        ("training.own_samples", "coordinator.kind"),
        "no own groups are used, but coordinator.kind is solo, where there are no others",
    )


def _a_market_is_entered_with_an_account(market: Market, coordinator: Coordinator) -> Contradiction | None:
    if not market.enabled or coordinator.kind in ("wallet", "modal"):
        return None
    return Contradiction(
        ("market.enabled", "coordinator.kind"),
        f"the market needs coordinator.kind wallet or modal, and it is {coordinator.kind}",
    )


def _the_memory_plan_fits_the_weights(model: Model, memory: Memory) -> Contradiction | None:
    if (model.dtype, memory.plan) not in (("float32", "bf16-sr"), ("bfloat16", "fp32")):
        return None
    return Contradiction(
        ("memory.plan", "model.dtype"),
        f"the plan {memory.plan} does not train {model.dtype} weights; leave model.dtype auto",
    )


_RULES_BETWEEN_SECTIONS: tuple[Callable[..., Contradiction | None], ...] = (
    _a_clock_belongs_to_a_swarm,
    _a_bootnode_serves_a_swarm,
    _a_bootnode_can_be_reached,
    _gathering_ends_within_the_round,
    _who_trains_alone_has_no_peers,
    _who_trains_alone_uses_own_groups,
    _a_market_is_entered_with_an_account,
    _the_memory_plan_fits_the_weights,
)


def contradictions_between(sections: Mapping[str, Section]) -> Iterator[Contradiction]:
    """The broken rules among the given sections.

    A rule's parameters name the sections it looks at; a rule that lacks one, because it is itself broken, is
    left out.
    """
    for rule in _RULES_BETWEEN_SECTIONS:
        names = tuple(inspect.signature(rule).parameters)
        if all(name in sections for name in names):
            found = rule(**{name: sections[name] for name in names})
            if found is not None:
                yield found


class Config(Section):
    """Every setting of the node. `Config()` is what runs where nothing is configured."""

    swarm: Swarm = Field(default_factory=Swarm)
    """Which swarm the node belongs to."""

    network: Network = Field(default_factory=Network)
    """Addresses, identity and limits."""

    model: Model = Field(default_factory=Model)
    """What is trained."""

    training: Training = Field(default_factory=Training)
    """How a round learns."""

    tasks: Tasks = Field(default_factory=Tasks)
    """Where the tasks come from."""

    memory: Memory = Field(default_factory=Memory)
    """How much memory is used."""

    coordinator: Coordinator = Field(default_factory=Coordinator)
    """Who says which round it is."""

    market: Market = Field(default_factory=Market)
    """The prediction market."""

    judge: Judge = Field(default_factory=Judge)
    """The judge."""

    hub: Hub = Field(default_factory=Hub)
    """The Hugging Face hub: its token, and the upload of the model."""

    monitor: Monitor = Field(default_factory=Monitor)
    """Status page and metrics."""

    log: Log = Field(default_factory=Log)
    """What is written to the journal."""

    watchdog: Watchdog = Field(default_factory=Watchdog)
    """When the node counts as hung."""

    @model_validator(mode="after")
    def _keeps_the_rules_between_sections(self) -> Self:
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        raise_contradictions(contradictions_between(sections))
        return self
