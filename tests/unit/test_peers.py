"""What is told of peers: written by the network process, read by a command that trusts nothing in it."""

import json
import os
import random
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from swarmd.commands.peers import NoPeers, peer_lines, peers
from swarmd.monitor.report_file import process_mark
from swarmd.monitor.status import NetworkStatus, Status, StatusFile
from swarmd.network.admission_rules import RawRecord
from swarmd.network.dht_node import PeerSeen
from swarmd.network.names import name_of
from swarmd.network.peers_report import FILE, MOST_PEERS, NoReport, read_peers, rows, write_peers
from tests.hostile.admitting import admission, attacker, dialect_named, others, victim
from tests.hostile.authors import NOW, ROUND, Author, honest

KEYS = ["peer_id", "name", "dialect", "last_round", "admitted", "rejected", "reputation", "quarantined"]
KEYS += ["connected", "addresses", "clock_skew_s"]
HOSTILE = "\x1b[2J\n owned"


def good(author: Author) -> RawRecord:
    return honest(dialect_named("swarmd"), author, random.Random(author.peer_id))


def seen(peer_id: str, *addresses: str, skew: float | None = None) -> PeerSeen:
    return PeerSeen(peer_id, addresses, True, skew)


def test_first_come_those_with_records_then_the_merely_connected_then_those_who_sent_rubbish() -> None:
    admitting = admission(dialect_named("swarmd"))
    admitting.admit([good(author) for author in (attacker, victim)], ROUND, NOW)
    admitting.report(attacker.peer_id, "implausible", NOW, 40)
    stranger, rubbish = others[0].peer_id, others[1].peer_id
    admitting._verdicts.accounts.refuse(rubbish, "not-decodable", 7)
    admitting._verdicts.accounts.refuse("no peer id", "not-decodable", 7)
    address = "/ip4/192.0.2.7/tcp/38751"
    found = rows(admitting, [seen(stranger, address, skew=0.1234), seen(victim.peer_id)], NOW)
    assert [list(row) for row in found] == [KEYS] * 4
    assert {row["peer_id"] for row in found[:2]} == {attacker.peer_id, victim.peer_id}
    assert [row["peer_id"] for row in found[2:]] == [stranger, rubbish]
    by_id = {row["peer_id"]: row for row in found}
    assert by_id[attacker.peer_id]["quarantined"] and by_id[attacker.peer_id]["rejected"] == {"implausible": 40}
    assert by_id[victim.peer_id]["connected"] and by_id[victim.peer_id]["admitted"] > 0
    assert by_id[stranger] == {
        "peer_id": stranger, "name": name_of(stranger), "dialect": None, "last_round": None, "admitted": 0,
        "rejected": {}, "reputation": 1.0, "quarantined": False, "connected": True, "addresses": [address],
        "clock_skew_s": 0.123,
    }  # fmt: skip
    assert by_id[rubbish]["rejected"] == {"not-decodable": 7} and not by_id[rubbish]["connected"]


def test_a_bootnode_tells_who_is_connected_and_has_no_opinion() -> None:
    (row,) = rows(None, [seen(victim.peer_id)], NOW)
    assert (row["connected"], row["reputation"], row["quarantined"], row["rejected"]) == (True, None, False, {})


def test_the_report_is_bounded_whoever_connects(tmp_path: Path) -> None:
    crowd = [seen(f"Qm{'1' * 40}{number:04d}".replace("0", "2"), "/ip4/192.0.2.7/tcp/1") for number in range(5000)]
    found = rows(None, crowd, NOW)
    assert len(found) == MOST_PEERS
    write_peers(tmp_path, found, NOW)
    assert len(read_peers(tmp_path).peers) == MOST_PEERS and (tmp_path / FILE).stat().st_size < 1 << 20


def test_what_was_written_is_read_and_readable_by_all(tmp_path: Path) -> None:
    found = rows(None, [seen(victim.peer_id, skew=1.0)], NOW)
    before = os.umask(0o077)
    try:
        write_peers(tmp_path, found, 1_700_000_000.0)
    finally:
        os.umask(before)
    told = read_peers(tmp_path)
    assert (told.time, told.running, told.peers) == ("2023-11-14T22:13:20Z", True, found)
    age = 1_700_000_000.0 - datetime.fromisoformat(told.since).timestamp()
    assert age > 0 and abs(age - (time.time() - psutil.Process().create_time())) < 3
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o644 and os.listdir(tmp_path) == [FILE]


def damaged(directory: Path, **changed: Any) -> Path:
    row = {**rows(None, [seen(victim.peer_id, "/ip4/192.0.2.7/tcp/1")], NOW)[0], **changed.pop("row", {})}
    document = {"format": 1, "time": "2026-01-01T00:00:00Z", "process": process_mark(), "peers": [row], **changed}
    (directory / FILE).write_text(json.dumps(document))
    return directory


def test_nobody_is_connected_to_a_process_that_has_ended(tmp_path: Path) -> None:
    assert read_peers(damaged(tmp_path)).peers[0]["connected"] is True
    told = read_peers(damaged(tmp_path, process={"pid": 1, "started_ticks": -1}))
    assert not told.running and told.peers[0]["connected"] is False


@pytest.mark.parametrize(
    "row",
    [{"peer_id": 7}, {"peer_id": "x" * 1000}, {"name": None}, {"rejected": []}, {"rejected": {"a": "b"}},
     {"rejected": {"a": True}}, {"admitted": -1}, {"admitted": 1.5}, {"addresses": {}}],
)  # fmt: skip
def test_an_entry_that_makes_no_sense_is_left_out(tmp_path: Path, row: dict[str, Any]) -> None:
    assert read_peers(damaged(tmp_path, row=row)).peers == []


@pytest.mark.parametrize("changed", [{"format": 2}, {"peers": None}, {"time": 7}, {"time": "x" * 1000}])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(NoReport):
        read_peers(damaged(tmp_path, **changed))


def test_no_link_is_followed_and_no_pipe_waited_for(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    damaged(elsewhere)
    (tmp_path / FILE).symlink_to(elsewhere / FILE)
    with pytest.raises(NoReport, match="cannot be read"):
        read_peers(tmp_path)
    (tmp_path / FILE).unlink()
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(NoReport, match="not a regular file"):
        read_peers(tmp_path)


def test_numbers_that_json_does_not_know_and_texts_that_steer_a_terminal_do_no_harm(tmp_path: Path) -> None:
    row = {"reputation": float("nan"), "clock_skew_s": float("inf"), "name": HOSTILE, "dialect": HOSTILE}
    (told,) = read_peers(damaged(tmp_path, row=row)).peers
    assert (told["reputation"], told["clock_skew_s"]) == (None, None)
    json.dumps(told, allow_nan=False)
    assert list(peer_lines(read_peers(tmp_path)))  # cli prints them through one_line


def test_a_node_in_no_swarm_is_told_how_to_get_into_one(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("")
    for its_own in (True, False):
        with pytest.raises(NoPeers, match="swarmd found NAME.*swarmd join INVITE"):
            peers(tmp_path, config, its_own)
    # A node that runs without a swarm, beside what an earlier one left.
    damaged(tmp_path)
    StatusFile(tmp_path / "status.json").write(Status("training"))
    with pytest.raises(NoPeers, match="in no swarm"):
        peers(tmp_path, config, False)


def test_a_running_node_counts_as_what_it_was_started_as_and_a_stopped_one_as_what_it_left(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("")
    damaged(tmp_path)
    StatusFile(tmp_path / "status.json").write(Status("training", network=NetworkStatus("pair", "0" * 32)))
    assert len(peers(tmp_path, config, True)[0].peers) == 1
    StatusFile(tmp_path / "status.json").write(Status("stopped"))
    assert len(peers(tmp_path, config, False)[0].peers) == 1
    with pytest.raises(NoPeers):
        peers(tmp_path, config, True)


def in_swarm(name: str, swarm_id: str) -> str:
    return f"coordinator: {{kind: clock}}\nswarm: {{name: {name}, id: '{swarm_id}'}}\n"


@pytest.mark.parametrize(
    ("state", "wanted"),
    [("training", "has joined the swarm pair .* to be started anew"), ("starting", "is starting in the swarm pair")],
)
def test_a_node_that_has_joined_and_not_come_there_yet_is_told_so(tmp_path: Path, state: str, wanted: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(in_swarm("pair", "a" * 32))
    damaged(tmp_path)  # of an earlier run
    StatusFile(tmp_path / "status.json").write(Status(state))
    with pytest.raises(NoPeers, match=wanted):
        peers(tmp_path, config, True)


def test_peers_of_a_swarm_that_the_node_has_left_are_told_as_such_until_the_restart(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    damaged(tmp_path)
    StatusFile(tmp_path / "status.json").write(Status("training", network=NetworkStatus("pair", "a" * 32)))
    still = f"the running node is still in the swarm pair ({'a' * 32}) until it is started anew; by its configuration "
    for text, wanted in (
        (in_swarm("pair", "a" * 32), ""),
        ("", still + "it is in no swarm"),
        (in_swarm("trio", "b" * 32), still + f"it is in the swarm trio ({'b' * 32})"),
    ):
        config.write_text(text)
        assert peers(tmp_path, config, True)[1] == wanted
        assert peers(tmp_path, config, False)[1] == "", "whose configuration that is, is not known"


def test_the_lines_say_who_when_and_why(tmp_path: Path) -> None:
    row = {"dialect": "swarmd", "last_round": 41, "admitted": 120, "rejected": {"expired": 2, "copied": 1},
           "reputation": 0.5, "quarantined": True, "clock_skew_s": -0.256}  # fmt: skip
    first, _, _, line, details = peer_lines(read_peers(damaged(tmp_path, row=row)))
    assert first == "1 peer, 1 connected; as of 2026-01-01T00:00:00Z"
    assert line.split()[-7:] == ["yes", "swarmd", "41", "120", "3", "0.500,", "quarantined"]
    assert details == f"  {victim.peer_id} at /ip4/192.0.2.7/tcp/1; clock -0.26 s; rejected: copied 1, expired 2"
    relayed = {"addresses": ["/ip4/192.0.2.7/tcp/1/p2p/QmRelay/p2p-circuit"]}
    *_, line, _ = peer_lines(read_peers(damaged(tmp_path, row={**row, **relayed})))
    surplus = {**row, "rejected": {"quota-peer": 840}}
    first, *_, empty, last = peer_lines(read_peers(damaged(tmp_path, row=surplus, since="2025-12-31T23:00:00Z")))
    assert first == "1 peer, 1 connected; as of 2026-01-01T00:00:00Z; counts since 2025-12-31T23:00:00Z"
    assert empty == "" and last.startswith("quota-peer: groups beyond") and "harms nobody" in last
    assert line.split()[-8:-5] == ["by", "relay", "swarmd"]
