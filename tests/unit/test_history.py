"""The curves: what is written is read, what was lost is forgotten, and a broken file never stops the node."""

import math
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmd.game.history import BASE_ROUND, Curves, HeldoutRow, History, RoundRow

# Many examples: in memory where there is such a place.
FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
ROOT = Path(__file__).resolve().parents[2]


def row(round: int, reward: float | None = 0.5, loss: float | None = 0.1) -> RoundRow:
    return RoundRow(
        round=round,
        time=1_700_000_000.0 + round,
        reward=reward,
        signal_share=0.75,
        loss=loss,
        grad_norm=1.5,
        tokens=640,
        tokens_per_s=3200.0,
        seconds={"generate": 0.1, "train": 0.05},
        rss_bytes=500_000_000,
    )


def score(round: int, sampled: float) -> HeldoutRow:
    return HeldoutRow(round, 1_700_000_000.0, sampled, sampled + 0.1, 512, {"sums": sampled, "gcd": 0.25})


def rounds_in(path: Path) -> list[int]:
    with sqlite3.connect(path) as connection:
        return [round for (round,) in connection.execute("SELECT round FROM rounds ORDER BY round")]


def test_rounds_are_read_back_by_a_new_process_as_they_were_recorded(tmp_path: Path) -> None:
    history = History(tmp_path / "state.sqlite")
    assert history.last() is None
    assert history.mean_100() is None
    history.record_round(row(0))
    history.record_round(row(1, reward=0.25))
    history.close()
    history = History(tmp_path / "state.sqlite")
    assert history.last() == row(1, reward=0.25)
    assert history.mean_100() == 0.375


def test_the_mean_is_over_the_last_hundred_rounds_only(tmp_path: Path) -> None:
    history = History(tmp_path / "state.sqlite")
    for round in range(150):
        history.record_round(row(round, reward=0.0 if round < 50 else 1.0))
    assert history.mean_100() == 1.0


def test_a_loss_that_is_not_finite_is_no_number(tmp_path: Path) -> None:
    history = History(tmp_path / "state.sqlite")
    history.record_round(row(0, loss=math.nan))
    history.record_round(row(1, loss=math.inf))
    last = history.last()
    assert last is not None
    assert last.loss is None


def test_heldout_tells_base_last_and_best(tmp_path: Path) -> None:
    history = History(tmp_path / "state.sqlite")
    assert history.heldout().base is None
    for round, sampled in ((BASE_ROUND, 0.34), (49, 0.44), (99, 0.42)):
        history.record_heldout(score(round, sampled))
    found = history.heldout()
    assert (found.base, found.last, found.best) == (score(BASE_ROUND, 0.34), score(99, 0.42), score(49, 0.44))


def test_rounds_that_were_lost_are_forgotten_and_the_base_score_stays(tmp_path: Path) -> None:
    history = History(tmp_path / "state.sqlite")
    history.record_heldout(score(BASE_ROUND, 0.3))
    for round in range(10):
        history.record_round(row(round))
        history.record_heldout(score(round, 0.4 + round / 100))
    history.truncate_after(6)
    last = history.last()
    assert last is not None and last.round == 6
    assert history.heldout().best == score(6, 0.46)
    history.truncate_after(BASE_ROUND)
    assert history.last() is None
    assert history.heldout().last == score(BASE_ROUND, 0.3)


def test_a_round_repeated_after_a_crash_has_one_row(tmp_path: Path) -> None:
    history = History(tmp_path / "state.sqlite")
    for reward in (0.1, 0.2):
        history.record_round(row(3, reward=reward))
    assert rounds_in(tmp_path / "state.sqlite") == [3]
    assert history.mean_100() == 0.2


def test_facts_outlive_the_process(tmp_path: Path) -> None:
    history = History(tmp_path / "state.sqlite")
    assert history.fact("node_id") is None
    history.remember("node_id", "a1")
    history.remember("node_id", "b2")
    history.close()
    assert History(tmp_path / "state.sqlite").fact("node_id") == "b2"


def test_old_rounds_are_thinned_and_new_ones_kept(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    history = History(path, thinning=((500, 10), (2000, 100)))
    for round in range(4096):
        history.record_round(row(round * 2 + 1))  # odd rounds only: rows are counted, not rounds
    ids = [(round - 1) // 2 + 1 for round in rounds_in(path)]
    oldest = [i for i in ids if i <= 4096 - 2000]
    middle = [i for i in ids if 4096 - 2000 < i <= 4096 - 500]
    newest = [i for i in ids if i > 4096 - 500]
    assert oldest == list(range(100, 4096 - 2000 + 1, 100))
    assert middle == list(range(2100, 4096 - 500 + 1, 10))
    assert newest == list(range(4096 - 499, 4097))


def test_thinning_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    for start in range(0, 2048, 512):
        history = History(path, thinning=((100, 10),))
        for round in range(start, start + 512):
            history.record_round(row(round))
        history.close()
    assert len(rounds_in(path)) == 100 + (2048 - 100) // 10


def test_another_process_reads_while_the_node_writes(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    history = History(path)
    history.remember("node_id", "a1")
    read = "import sys; from pathlib import Path; from swarmd.game.history import Curves; "
    read += "c = Curves.of(Path(sys.argv[1])); print(c.last().round, c.fact('node_id'))"
    for round in range(3):
        history.record_round(row(round))
        command = [sys.executable, "-c", read, str(path)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        seen = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert seen.stdout.split() == [str(round), "a1"]


def test_a_reader_makes_no_file_and_finds_nothing_where_there_is_none(tmp_path: Path) -> None:
    curves = Curves.of(tmp_path / "state.sqlite")
    assert curves.last() is None
    assert curves.mean_100() is None
    assert curves.heldout().best is None
    curves.close()
    assert os.listdir(tmp_path) == []


def filled(path: Path) -> None:
    history = History(path)
    for round in range(200):
        history.record_round(row(round))
    history.record_heldout(score(BASE_ROUND, 0.3))
    history.close()


def no_database(path: Path) -> None:
    path.write_bytes(b"not a database at all, but longer than a header of one hundred bytes: " * 3)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def zeroed_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:8192] = bytes(4096)
    path.write_bytes(data)


def other_format(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")


def other_tables(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE rounds RENAME COLUMN reward TO prize")


@pytest.mark.parametrize("damage", [no_database, cut, zeroed_page, other_format, other_tables])
def test_a_damaged_file_is_moved_aside_and_begun_anew(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.sqlite"
    filled(path)
    damage(path)
    before = path.read_bytes()
    history = History(path)
    assert history.last() is None
    history.record_round(row(7))
    history.close()
    assert (tmp_path / "state.sqlite.damaged").read_bytes() == before
    assert rounds_in(path) == [7]


def test_damage_while_the_node_runs_is_survived(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    history = History(path)
    for round in range(50):
        history.record_round(row(round))
    history.close()
    history = History(path)
    history.last()
    with open(path, "r+b") as file:
        file.write(b"\xff" * os.path.getsize(path))
    for round in range(50, 60):
        history.record_round(row(round))
    last = history.last()
    assert last is not None and last.round == 59


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), junk=st.binary(min_size=1, max_size=64))
def test_whatever_is_overwritten_the_node_records_and_reads_on(place: float, junk: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=FAST) as directory:
        record_and_read_over(Path(directory) / "state.sqlite", place, junk)


def record_and_read_over(path: Path, place: float, junk: bytes) -> None:
    filled(path)
    data = bytearray(path.read_bytes())
    start = int(place * len(data))
    data[start : start + len(junk)] = junk
    path.write_bytes(data)
    curves = Curves.of(path)
    curves.last(), curves.mean_100(), curves.heldout(), curves.fact("node_id")
    curves.close()
    history = History(path)
    history.truncate_after(150)
    history.last(), history.mean_100(), history.heldout(), history.fact("node_id")
    for round in range(10_000_000, 10_000_003):  # newer than any round, also a corrupted one of these sizes
        history.record_round(row(round))
    history.close()
    assert {10_000_000, 10_000_001, 10_000_002} <= set(rounds_in(path))


def test_a_directory_that_cannot_be_written_costs_the_curves_and_not_the_node(tmp_path: Path) -> None:
    history = History(tmp_path / "missing" / "state.sqlite")
    history.record_round(row(0))
    assert history.last() == row(0)


FULL_DISK = """
import sys
import tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.unit.test_history import row
from swarmd.game.history import History
directory = Path(sys.argv[1])
history = History(directory / "state.sqlite")
history.record_round(row(0))
(directory / "fill").write_bytes(b"x" * 100_000)
try:
    with open(directory / "fill", "ab", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
except OSError:
    pass
for round in range(1, 2000):
    history.record_round(row(round))
(directory / "fill").unlink()
history.record_round(row(2000))
print(history.last().round)
history.close()
"""


def test_a_full_disk_costs_rows_and_not_the_node(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=1m tmpfs "$1" || exit 99; exec "$2" -c "$3" "$1" "$4"'
    command = ["unshare", "-m", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, FULL_DISK, str(ROOT)]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if outcome.returncode == 99 or "unshare" in outcome.stderr:
        pytest.skip(f"needs root and a mount namespace: {outcome.stderr.strip()}")
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.strip() == "2000"
    assert outcome.stderr.count("the curves get a gap") == 1


def test_reading_a_stopped_nodes_curves_leaves_no_file_behind(tmp_path: Path) -> None:
    history = History(tmp_path / "state.sqlite")
    history.remember("node_id", "abc")
    history.close()
    before = sorted(path.name for path in tmp_path.iterdir())
    curves = Curves.of(tmp_path / "state.sqlite")
    assert curves.fact("node_id") == "abc"
    curves.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == before == ["state.sqlite"]
