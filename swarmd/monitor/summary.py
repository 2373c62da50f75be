"""The status in one line: what `systemctl status` shows, and the journal when the watchdog bites."""

from __future__ import annotations

from collections.abc import Iterator

from swarmd.monitor.status import BOOTNODE, Status

_MIB = 1024 * 1024


def summary(status: Status, notice: str = "") -> str:
    """One line for people. notice: what they should know besides, such as a reload that was refused."""
    return "; ".join([*_parts(status), *filter(None, [notice])])


def _parts(status: Status) -> Iterator[str]:
    if status.role == BOOTNODE:
        yield from _bootnode_parts(status)
        return
    where = ", ".join([*([] if status.round is None else [f"round {status.round}"]), *filter(None, [status.phase])])
    if status.state == "stopping":
        yield f"stopping: finishing {where}" if where else "stopping"
        return
    yield f"{status.state}: {where}" if where else status.state
    scores = []
    if status.reward.last is not None:
        mean = "" if status.reward.mean_100 is None else f" ({status.reward.mean_100:.3f} over 100)"
        scores.append(f"reward {status.reward.last:.3f}{mean}")
    if status.heldout.last is not None:
        best = "" if status.heldout.best is None else f" (best {status.heldout.best:.3f})"
        scores.append(f"held-out {status.heldout.last:.3f}{best}")
    if scores:
        yield ", ".join(scores)
    if status.tokens_per_s is not None:
        yield f"{status.tokens_per_s:.0f} tokens/s"
    if status.memory.used:
        yield f"memory {status.memory.used // _MIB} of {status.memory.limit // _MIB} MiB"
    if seen := status.peers.seen:
        yield f"{seen} peer{'s' * (seen != 1)}, {status.peers.used} used"
    elif status.state != "degraded":  # why a degraded node is alone, such as "0 peers", the notice says
        yield "alone"


def _bootnode_parts(status: Status) -> Iterator[str]:
    state = "serving" if status.state == "training" else status.state
    yield f"bootnode, {state}" if status.round is None else f"bootnode, {state}: round {status.round}"
    if status.network is not None:
        yield f"{status.network.connected} peer{'s' * (status.network.connected != 1)} connected"
