"""peers-seen.json in the runtime directory: who was seen in the swarm and what came of it, for `swarmd peers`.

The network process writes it every few seconds. A command that reads it needs no way to talk to the process, and it
tells of a stopped node too. It is not peers.json, by which the node finds its swarm again (remembered_peers).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarmd.monitor.report_file import lives, process_age, process_mark, read_report, write_report
from swarmd.network.names import name_of

if TYPE_CHECKING:
    from swarmd.network.admission import Admission
    from swarmd.network.dht_node import PeerSeen

FILE = "peers-seen.json"
MOST_PEERS = 1024

_FORMAT = 1
_LONGEST_TEXT = 256
_MOST_ADDRESSES = 4
_MOST_REASONS = 64


class NoReport(Exception):
    """There is no report of peers; the message says why."""


@dataclass(frozen=True)
class PeersReport:
    """time: when it was written, ISO 8601 UTC. since: when the network process that wrote it began, and with it all
    counts; "" where that is not told. running: that process still runs.

    peers: a map each, with the keys of `swarmd peers --json`.
    """

    time: str
    since: str
    running: bool
    peers: list[dict[str, Any]]


def rows(admission: Admission | None, seen: Iterable[PeerSeen], now: float) -> list[dict[str, Any]]:
    """A map for each peer, 1024 at most: first those whose records could be read, the last one first; then those that
    are only connected; then those under whose name nothing readable came.

    admission: None for a bootnode, which reads no records and has no opinion of anybody. now: seconds since 1970.
    """
    present = {peer.peer_id: peer for peer in seen}
    refused: Mapping[str, Mapping[str, int]] = admission.refused if admission is not None else {}
    met = {row["peer_id"]: row for row in admission.peers(now)} if admission is not None else {}
    # Under "" is booked what came under no peer's name.
    others = [peer for peer in dict.fromkeys((*present, *filter(None, refused))) if peer not in met]
    found = []
    for peer_id in [*met, *others][:MOST_PEERS]:
        here = present.get(peer_id)
        found.append(
            {
                **(met.get(peer_id) or _unread(peer_id, refused.get(peer_id, {}), admission, now)),
                "connected": here is not None,
                "addresses": list(here.addresses[:_MOST_ADDRESSES]) if here is not None else [],
                "clock_skew_s": round(here.skew_s, 3) if here is not None and here.skew_s is not None else None,
            }
        )
    return found


def _unread(
    peer_id: str, refused: Mapping[str, int], admission: Admission | None, now: float
) -> dict[str, Any]:
    """Of a peer none of whose records could be read, or has come."""
    known = admission.reputation if admission is not None else None
    return {
        "peer_id": peer_id,
        "name": name_of(peer_id),
        "dialect": None,
        "last_round": None,
        "admitted": 0,
        "rejected": dict(refused),
        "reputation": None if known is None else round(known.score(peer_id, now), 3),
        "quarantined": known is not None and known.quarantined(peer_id, now),
    }


def write_peers(directory: Path, peers: list[dict[str, Any]], now: float) -> None:
    """Replaces the report in this directory. Readable by all, as the status is: whoever is on this machine can see its
    connections anyway. Raises OSError."""
    times = {"time": _shown(now), "since": _shown(now - process_age())}
    write_report(directory / FILE, {"format": _FORMAT, **times, "process": process_mark(), "peers": peers})


def read_peers(directory: Path) -> PeersReport:
    """The last report in a state or runtime directory; entries that make no sense are left out, and nobody is
    connected to a process that has ended. Raises NoReport."""
    path = directory / FILE
    try:
        document = read_report(path)
    except FileNotFoundError:
        raise NoReport(f"{path} does not exist") from None
    except OSError as error:
        raise NoReport(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise NoReport(f"{path} is no report of peers: {error}") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise NoReport(f"{path} is no report of peers of this version")
    time, listed = document.get("time"), document.get("peers")
    if not isinstance(time, str) or len(time) > _LONGEST_TEXT or not isinstance(listed, list):
        raise NoReport(f"{path} is no report of peers")
    running, since = lives(document.get("process")), document.get("since")
    peers = [row for entry in listed[:MOST_PEERS] if (row := _checked(entry, running)) is not None]
    return PeersReport(time, str(since) if _is_text(since) else "", running, peers)


def remove_report(directory: Path) -> None:
    """What a node tells of a swarm that it has left is removed. Raises OSError."""
    (directory / FILE).unlink(missing_ok=True)


def _checked(entry: Any, running: bool) -> dict[str, Any] | None:
    """A row with every key and nothing else; None where it is none."""
    if not isinstance(entry, dict):
        return None
    rejected, addresses = entry.get("rejected"), entry.get("addresses")
    texts = (entry.get("peer_id"), entry.get("name"), entry.get("dialect") or "")
    if not all(map(_is_text, texts)) or not isinstance(rejected, dict) or not isinstance(addresses, list):
        return None
    if not _is_count(entry.get("admitted")) or not all(map(_is_count, rejected.values())):
        return None
    return {
        "peer_id": entry["peer_id"],
        "name": entry["name"],
        "dialect": entry.get("dialect") or None,
        "last_round": entry["last_round"] if _is_count(entry.get("last_round")) else None,
        "admitted": entry["admitted"],
        "rejected": {str(reason)[:_LONGEST_TEXT]: rejected[reason] for reason in list(rejected)[:_MOST_REASONS]},
        "reputation": _number(entry.get("reputation")),
        "quarantined": entry.get("quarantined") is True,
        "connected": running and entry.get("connected") is True,
        "addresses": [address for address in addresses if _is_text(address)][:_MOST_ADDRESSES],
        "clock_skew_s": _number(entry.get("clock_skew_s")),
    }


def _shown(seconds: float) -> str:
    """A time since 1970 in ISO 8601 UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None
