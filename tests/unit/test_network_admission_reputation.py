"""What is held against a peer, for how long, and what the file of it survives."""

import json
import os
from pathlib import Path

import pytest

from swarmd.network.refusals import Reason
from swarmd.network.reputation import FIRST_QUARANTINE, GOOD, HARD, LONGEST_QUARANTINE, Reputation, Standing
from tests.hostile.authors import NOW

PEER, OTHER = "Qm" + "a" * 44, "Qm" + "b" * 44
HOUR = 3600.0


def shut_out_for(reputation: Reputation, peer: str, now: float) -> float:
    """Seconds, to the nearest one below two days; 0 for a peer that is listened to."""
    return next((float(s) for s in range(172_800) if not reputation.quarantined(peer, now + s)), -1.0)


def test_a_newcomer_is_believed_and_what_is_good_keeps_it_so() -> None:
    reputation = Reputation(None)
    assert reputation.score(PEER, NOW) == 1.0
    reputation.report(PEER, GOOD, NOW, 10)
    assert reputation.score(PEER, NOW) == 1.0


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in HARD])
def test_what_can_be_an_accident_or_anothers_doing_leaves_no_trace(reason: Reason) -> None:
    reputation = Reputation(None)
    reputation.report(PEER, reason, NOW, 1000)
    assert reputation.score(PEER, NOW) == 1.0 and not reputation.quarantined(PEER, NOW) and len(reputation) == 0


def test_three_false_tasks_shut_a_peer_out_and_nobody_else() -> None:
    reputation = Reputation(None)
    reputation.report(PEER, Reason.OTHER_TASK, NOW, 2)
    assert not reputation.quarantined(PEER, NOW)
    reputation.report(PEER, Reason.OTHER_TASK, NOW)
    assert reputation.quarantined(PEER, NOW) and not reputation.quarantined(OTHER, NOW)
    assert shut_out_for(reputation, PEER, NOW) == FIRST_QUARANTINE


def test_each_quarantine_is_longer_than_the_one_before_up_to_a_day() -> None:
    reputation, now, lengths = Reputation(None), NOW, []
    for _ in range(9):
        reputation.report(PEER, Reason.OTHER_TASK, now, 5)
        lengths.append(shut_out_for(reputation, PEER, now))
        now += lengths[-1] + 1
    assert lengths[1] > 1.9 * lengths[0] and lengths[2] > 1.8 * lengths[1]
    assert lengths == sorted(lengths) and lengths[-1] <= LONGEST_QUARANTINE


def test_after_a_quarantine_a_peer_begins_with_nothing_against_it() -> None:
    reputation = Reputation(None)
    reputation.report(PEER, Reason.OTHER_TASK, NOW, 3)
    after = NOW + FIRST_QUARANTINE + 1
    reputation.report(PEER, Reason.OTHER_TASK, after, 2)
    assert not reputation.quarantined(PEER, after)


def test_half_is_forgotten_in_twelve_hours() -> None:
    reputation = Reputation(None)
    reputation.report(PEER, Reason.OTHER_TASK, NOW, 2)
    assert reputation.score(PEER, NOW) == pytest.approx(1 / 3)
    assert reputation.score(PEER, NOW + 12 * HOUR) == pytest.approx(1 / 2)
    reputation.report(PEER, Reason.OTHER_TASK, NOW + 12 * HOUR)  # 1 + 1 are not three
    assert not reputation.quarantined(PEER, NOW + 12 * HOUR)


def test_a_few_implausible_groups_among_many_good_ones_do_not_shut_a_peer_out() -> None:
    reputation = Reputation(None)
    reputation.report(PEER, GOOD, NOW, 1000)
    reputation.report(PEER, Reason.IMPLAUSIBLE, NOW, 100)
    assert not reputation.quarantined(PEER, NOW)
    reputation.report(OTHER, GOOD, NOW, 20)
    reputation.report(OTHER, Reason.IMPLAUSIBLE, NOW, 100)
    assert reputation.quarantined(OTHER, NOW)


def test_a_clock_that_jumps_back_locks_nobody_out_for_ever() -> None:
    reputation = Reputation(None)
    reputation.report(PEER, Reason.OTHER_TASK, NOW, 3)
    assert not reputation.quarantined(PEER, NOW - 400 * 24 * HOUR)
    assert reputation.score(PEER, NOW - 400 * 24 * HOUR) <= 1.0


def test_the_number_of_peers_is_bounded_and_the_last_seen_stay() -> None:
    reputation = Reputation(None)
    for number in range(5000):
        reputation.report(f"peer {number}", GOOD, NOW + number)
    assert len(reputation) == 4096
    reputation.note_signed("peer 4999", NOW + 5000)
    assert reputation.has_signed("peer 4999") and not reputation.has_signed("peer 1")


def test_it_is_kept_in_a_file_that_others_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "reputation.json"
    reputation = Reputation(path)
    reputation.report(PEER, Reason.OTHER_TASK, NOW, 3)
    reputation.note_signed(OTHER, NOW)
    reputation.save()
    assert path.stat().st_mode & 0o777 == 0o600
    again = Reputation(path)
    assert again.quarantined(PEER, NOW + 1) and again.has_signed(OTHER) and not again.has_signed(PEER)
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    path = tmp_path / "reputation.json"
    Reputation(path).save()
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0" * 900, b"{", b"[]", b"null", b"5", b'{"format": 2, "peers": {}}', b'{"format": 1}',
        b'{"format": 1, "peers": []}', b"[" * 100_000, b"\xff\xfe", b'{"format": 1, "peers": {"a": 5}}',
        b'{"format": 1, "peers": {"a": {"good": 1' + b"0" * 5000 + b"}}}", b" " * 5_000_000,
    ],
)  # fmt: skip
def test_a_damaged_file_is_as_good_as_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "reputation.json"
    path.write_bytes(content)
    reputation = Reputation(path)
    assert len(reputation) == 0
    reputation.report(PEER, GOOD, NOW)
    reputation.save()
    assert len(Reputation(path)) == 1


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", "1e300", "true", "null", '"x"', "1" + "0" * 400])
def test_an_entry_that_makes_no_sense_is_left_out_and_the_others_stay(value: str, tmp_path: Path) -> None:
    good = vars(Standing(good=5.0, seen=NOW))
    bad = json.dumps({**good, "bad": 0}).replace('"bad": 0', f'"bad": {value}')
    path = tmp_path / "reputation.json"
    path.write_text(f'{{"format": 1, "peers": {{"{PEER}": {json.dumps(good)}, "{OTHER}": {bad}}}}}')
    assert len(Reputation(path)) == 1


def test_a_disk_that_takes_nothing_costs_no_more_than_the_memory_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "gone"
    reputation = Reputation(folder / "reputation.json")
    reputation.report(PEER, GOOD, NOW)
    reputation.save()
    assert "cannot be written" in caplog.text
    os.mkdir(folder)
    reputation.save()
    assert len(Reputation(folder / "reputation.json")) == 1
