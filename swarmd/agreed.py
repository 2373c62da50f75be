"""Whether the configuration is still what the swarm agreed on: found and join note the agreement's hash in the drop-in,
and a file or variable that goes over the drop-in can change it later without anybody noticing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swarmd import swarm_drop_in
from swarmd.config import DEFAULT_PATH, Config
from swarmd.config.files import drop_ins, own_folder
from swarmd.config.loading import written
from swarmd.system.events import event

KEYS = (
    "swarm.id", "swarm.dialect", "swarm.shards", "coordinator.epoch", "coordinator.round_seconds", "tasks.datasets",
    "tasks.environment",
)  # fmt: skip
"""What all nodes of a swarm have alike."""

_SHOWN = 12


@dataclass(frozen=True)
class Comparison:
    """drop_in: what the node is a member by. agreed, here: hashes of the agreement, as noted there and as this
    configuration makes it; None where nothing is noted, and where it was not made. overruled: "KEY in PLACE" of what
    goes over the drop-in with another value."""

    drop_in: Path
    agreed: str | None
    here: str | None
    overruled: tuple[str, ...]

    @property
    def disagreement(self) -> str:
        """In what this node differs from its swarm, in words for people; "" where it does not, or nothing is noted."""
        if self.agreed is None or (not self.overruled and self.here in (None, self.agreed)):
            return ""
        others = f"; set over the swarm's settings: {', '.join(self.overruled)}" if self.overruled else (
            f"; {self.drop_in} was changed by hand, or the versions of swarmd or reasoning-gym differ"
        )
        hashes = f" ({self.here[:_SHOWN]})" if self.here else ""
        return f"this node would make other tasks or rounds{hashes} than its swarm ({self.agreed[:_SHOWN]}){others}"

    @property
    def fix(self) -> str:
        """What mends a disagreement."""
        if self.overruled:
            return "take it out there and start the node anew"
        return "join anew with an invite of the swarm, or install the version of swarmd that the swarm runs"


def compare(config: Config, config_path: Path | None, environ: Mapping[str, str]) -> Comparison:
    """Holds the configuration, which was read from config_path (None: the default one), against the note.

    A bootnode makes no tasks, so the library for them is not loaded for it, and the keys alone are compared.

    Raises OSError where the drop-in cannot be read, ConfigurationError where the tasks cannot be made.
    """
    main = DEFAULT_PATH if config_path is None else config_path
    drop_in = next((file for file in drop_ins(main)[0] if file.name == swarm_drop_in.NAME),
                   own_folder(main) / swarm_drop_in.NAME)
    agreed = swarm_drop_in.agreement_in(drop_in)
    keys: tuple[str, ...] = KEYS
    here = None
    if config.swarm.role == "bootnode":
        keys = tuple(key for key in KEYS if not key.startswith("tasks."))
    elif agreed is not None:
        from swarmd.network.agreement import agreement_of

        here = agreement_of(config).hash
        if here == agreed:
            keys = ("swarm.id",)  # which the hash does not hold
    overruled = [place for key in keys if (place := _overruled(key, drop_in, config_path, environ))]
    return Comparison(drop_in, agreed, here, tuple(overruled))


def _overruled(key: str, drop_in: Path, config_path: Path | None, environ: Mapping[str, str]) -> str | None:
    now = written(config_path, environ, key)
    if now is None or now.place.startswith(f"{drop_in}:"):
        return None
    agreed = written(drop_in, {}, key)  # of that file alone: no drop-ins lie beside a drop-in
    section, _, name = key.partition(".")
    value = agreed.value if agreed is not None else getattr(getattr(Config(), section), name)
    return None if now.value == value else f"{key} in {now.place}"


def warn_of_disagreement(config: Config, config_path: Path | None, environ: Mapping[str, str]) -> str:
    """Writes a warning where this member of a swarm differs from what the swarm agreed on; returns what it says, "" for
    nothing.

    The node runs on: it may be the others who have to follow, and its own groups teach it all the same.
    Raises ConfigurationError where the tasks cannot be made.
    """
    try:
        found = compare(config, config_path, environ)
    except OSError:
        return ""  # a membership by hand, or a drop-in of another user: nothing is known
    if not found.disagreement:
        return ""
    message = f"{found.disagreement}. All nodes of a swarm have the same {', '.join(KEYS)}; {found.fix}"
    event("disagreement", message, priority=4, agreed=found.agreed, here=found.here or "")
    return message
