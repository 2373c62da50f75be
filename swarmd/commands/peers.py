"""What `swarmd peers` tells: who is seen in the swarm, what was admitted and rejected and why, and who is shut out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swarmd.awaited import not_yet_in, still_in
from swarmd.config import Config, ConfigErrors, load_config
from swarmd.monitor.status import ENDED, StatusError, read_status
from swarmd.network.addresses import is_circuit
from swarmd.network.peers_report import NoReport, PeersReport, read_peers
from swarmd.network.refusals import Reason
from swarmd.swarming import in_a_swarm


class NoPeers(Exception):
    """There is nothing to tell of peers; the message says why and what to do."""


IN_NO_SWARM = (
    "this node is in no swarm; `swarmd found NAME` makes one, `swarmd join INVITE` joins one, and then the node has to "
    "be started anew"
)

_SURPLUS = Reason.QUOTA_PEER.value


def peers(directory: Path, config: Path | None, config_is_its: bool) -> tuple[PeersReport, str]:
    """The peers of the node that writes into this runtime or state directory, or did last; and that these are of
    another swarm than the configured one, "" where they are not.

    config: None for the default one. config_is_its: the node's own, and not only what is there for a node of which
    nothing but the directory was named. Raises NoPeers.
    """
    try:
        status = read_status(directory)
        runs, in_swarm = status["state"] not in ENDED, bool(status.get("network"))
    except StatusError:
        status, runs, in_swarm = {}, False, False
    its = _readable(config) if config_is_its else None
    if its is not None and (why := not_yet_in(status, its)):
        raise NoPeers(why)
    # While the node runs, what it was started with holds, whatever the files say by now.
    if not (in_swarm if runs else not config_is_its or _may_be_in_a_swarm(config)):
        raise NoPeers(IN_NO_SWARM)
    try:
        return read_peers(directory), "" if its is None else still_in(status, its)
    except NoReport as error:
        if not runs and not _may_be_in_a_swarm(config):
            raise NoPeers(IN_NO_SWARM) from None
        why = "the node has only just begun; ask again" if runs else (
            "the node has not run in its swarm yet; start it, or name its directory with --state DIR"
        )
        raise NoPeers(f"{error}: {why}") from None


def _may_be_in_a_swarm(config: Path | None) -> bool:
    found = _readable(config)
    return found is None or in_a_swarm(found)  # where it is unknown, what the node left behind tells


def _readable(config: Path | None) -> Config | None:
    """None for one that is damaged, or not to be read by this user."""
    try:
        return load_config(config, os.environ)
    except ConfigErrors:
        return None


def peer_lines(told: PeersReport) -> Iterator[str]:
    """The report for people."""
    connected = sum(row["connected"] for row in told.peers)
    count = f"{len(told.peers)} peer{'s' * (len(told.peers) != 1)}, {connected} connected"
    when = f"{'as of' if told.running else 'the node is not running; as it was at'} {told.time}"
    if not told.peers:
        yield f"{count}; {when}"
        return
    yield f"{count}; {when}{f'; counts since {told.since}' if told.since else ''}"
    yield ""
    yield f"{'name':28}  {'connected':9}  {'dialect':9}  {'round':>8}  {'admitted':>8}  {'rejected':>8}  reputation"
    for row in told.peers:
        yield (
            f"{row['name']:28}  {_connected(row):9}  {row['dialect'] or '-':9}  "
            f"{_or_dash(row['last_round']):>8}  {row['admitted']:>8}  {sum(row['rejected'].values()):>8}  "
            f"{'-' if row['reputation'] is None else format(row['reputation'], '.3f')}"
            f"{', quarantined' if row['quarantined'] else ''}"
        )
        yield f"  {row['peer_id']}{_details(row)}"
    if any(_SURPLUS in row["rejected"] for row in told.peers):
        yield ""
        yield (f"{_SURPLUS}: groups beyond what this node takes of one peer in a round "
               "(network.limits.groups_per_peer, fewer where a peer shows only some of its tasks); that harms nobody")


def _connected(row: dict[str, Any]) -> str:
    if not row["connected"]:
        return "no"
    return "by relay" if row["addresses"] and all(map(is_circuit, row["addresses"])) else "yes"


def _details(row: dict[str, Any]) -> str:
    details = []
    if row["addresses"]:
        details.append(f" at {', '.join(row['addresses'])}")
    if row["clock_skew_s"] is not None:
        details.append(f" clock {row['clock_skew_s']:+.2f} s")
    if row["rejected"]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(row["rejected"].items()))
        details.append(f" rejected: {reasons}")
    return ";".join(details)


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
