"""The status in words, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from swarmd.monitor.status import BOOTNODE, ENDED

_MIB = 1024 * 1024
_REACHABLE = {
    True: "they can call this node", False: "none of them can call this node",
    None: "none has tried to call this node yet",
}  # fmt: skip


def status_lines(status: dict[str, Any]) -> Iterator[str]:
    """The lines of `swarmd status`, of a status as `read_status` gives it; what is not known is left out."""
    phase = f", phase {status['phase']}" if status.get("phase") else ""
    state = status["state"]
    if status.get("role") == BOOTNODE:
        state, phase = ("serving" if state == "training" else state), ", bootnode"
    yield f"state       {state}{phase}, up {_duration(status.get('uptime_s') or 0)}"
    if model := status.get("model"):
        yield f"model       {model['name']}, {model['parameters'] / 1e6:.1f} M parameters, {model['plan']}"
    if status.get("round") is not None:
        done = "" if status.get("role") == BOOTNODE else f" ({status['rounds_done']} since the start)"
        yield f"round       {status['round']}{done}"
    reward = status.get("reward") or {}
    if reward.get("last") is not None:
        yield (f"reward      {reward['last']:.3f} in the last round, {_number(reward.get('mean_100'))} over 100; "
               f"{_share(status.get('signal_share'))} of the groups had signal")
    heldout = status.get("heldout") or {}
    if heldout.get("last") is not None:
        after = f"after round {heldout['round']}" if heldout["round"] >= 0 else "before training"
        yield (f"held-out    {heldout['last']:.3f} {after}; base {_number(heldout.get('base'))}, "
               f"best {_number(heldout.get('best'))}")
    if status.get("tokens_per_s") is not None:
        yield f"speed       {status['tokens_per_s']:.0f} tokens/s"
    yield from _network_lines(status)
    peers = status.get("peers") or {}
    if status.get("role") != BOOTNODE and (peers.get("seen") or status.get("admitted") or status.get("rejected")):
        rejected = ", ".join(f"{reason} {count}" for reason, count in sorted((status.get("rejected") or {}).items()))
        yield (f"peers       {peers.get('seen') or 0} seen, {peers.get('used') or 0} used; "
               f"{status.get('admitted') or 0} groups admitted since the start"
               + (f", rejected: {rejected}" if rejected else ""))
    memory = status.get("memory") or {}
    if memory.get("used"):
        yield (f"memory      {memory['used'] // _MIB} MiB of {memory['limit'] // _MIB} MiB, peak "
               f"{memory['peak'] // _MIB} MiB, predicted {memory['predicted'] // _MIB} MiB")
    if checkpoint := status.get("checkpoint"):
        yield f"checkpoint  round {checkpoint['round']}, {checkpoint['time']}, {checkpoint['path']}"
    if state in ENDED:
        return  # and so have they
    for name, child in (status.get("children") or {}).items():
        yield f"child       {name}: pid {child['pid']}, replaced {child['restarts']} times"


def _network_lines(status: dict[str, Any]) -> Iterator[str]:
    """Of a node in a swarm: who is there, and whether others can call it; of one that has ended, who it was."""
    network = status.get("network")
    if not network:
        return
    yield f"swarm       {network['swarm'] or network['swarm_id']}"
    yield f"node        {status.get('name') or '-'} ({status.get('peer_id') or '-'})"
    if network.get("disagreement"):
        yield f"agreement   none: {network['disagreement']}"
    if status["state"] in ENDED:
        return
    if network["problem"]:
        yield f"network     down: {network['problem']}"
        return
    known = f", {network['known']} published lately" if status.get("role") != BOOTNODE else ""
    skew = network["clock_skew_s"]
    clock = "" if skew is None else f"; their clocks are {abs(skew):.2f} s {'ahead of' if skew > 0 else 'behind'} ours"
    peers = f"{network['connected']} peer{'s' * (network['connected'] != 1)} connected"
    yield f"network     {peers}{known}; {_REACHABLE[network['reachable']]}{clock}"
    for address in network["addresses"]:
        yield f"address     {address}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours
            else f"{minutes} min {rest} s" if minutes else f"{rest} s")
