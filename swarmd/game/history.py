"""The curves of a node, in `state.sqlite`: a row a round, a row an evaluation, and a few facts by name.

The file may be read while the node writes it, and stays small: rounds come several times a second for months,
so older rows are thinned out as new ones come.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swarmd.game import history_exchange
from swarmd.game.history_exchange import ExchangeRow
from swarmd.game.history_file import HistoryFile, HistoryReader

HISTORY_FILE = "state.sqlite"
"""Its name in the state directory."""

BASE_ROUND = -1
"""The round of the held-out score that the model had before any training."""

_VERSION = 1
_TABLES = {
    "rounds": {
        "id": "INTEGER PRIMARY KEY",
        "round": "INTEGER NOT NULL UNIQUE",
        "time": "REAL",
        "reward": "REAL",
        "signal_share": "REAL",
        "loss": "REAL",
        "grad_norm": "REAL",
        "tokens": "INTEGER",
        "tokens_per_s": "REAL",
        "seconds": "TEXT",
        "rss_bytes": "INTEGER",
    },
    "heldout": {
        "round": "INTEGER PRIMARY KEY",
        "time": "REAL",
        "sampled": "REAL",
        "greedy": "REAL",
        "samples": "INTEGER",
        "datasets": "TEXT",
    },
    "facts": {"key": "TEXT PRIMARY KEY", "value": "TEXT NOT NULL"},
    # Came later. The format keeps its number: an older version reads such a file as well, and loses nothing.
    "exchanges": history_exchange.TABLE,
}
# (the newest rows that a rule leaves alone, of the older ones each Nth stays): some 350,000 rows after ten
# years of five rounds a second.
_THINNING = ((100_000, 100), (10_000_000, 10_000))
_ROUND_COLUMNS = ", ".join(name for name in _TABLES["rounds"] if name != "id")
_HELDOUT_COLUMNS = ", ".join(_TABLES["heldout"])
_THIN_EVERY = 256  # rows between two runs of the rules


@dataclass(frozen=True)
class RoundRow:
    """One round. time: Unix seconds; reward, signal_share: of own groups, the latter 0..1; seconds: by phase;
    exchange: with the swarm, None without one.

    A number that is not finite is kept as None.
    """

    round: int
    time: float
    reward: float | None
    signal_share: float | None
    loss: float | None
    grad_norm: float | None
    tokens: int
    tokens_per_s: float | None
    seconds: Mapping[str, float]
    rss_bytes: int
    exchange: ExchangeRow | None = None


@dataclass(frozen=True)
class HeldoutRow:
    """One evaluation after `round` (BASE_ROUND: of the base model).

    sampled: mean reward at the training temperature; greedy: at temperature 0; datasets: `sampled` of each.
    """

    round: int
    time: float
    sampled: float
    greedy: float | None
    samples: int
    datasets: Mapping[str, float]


@dataclass(frozen=True)
class HeldoutSummary:
    base: HeldoutRow | None
    last: HeldoutRow | None
    best: HeldoutRow | None


class Curves:
    """What can be read, in this process or another (`Curves.of`). Reading never fails: no file, no rows."""

    def __init__(self, file: HistoryFile | HistoryReader) -> None:
        self._file = file

    @classmethod
    def of(cls, path: Path) -> Curves:
        """The curves in `path`, for reading only; for every thread and process but the node's own."""
        return Curves(HistoryReader(path))

    def close(self) -> None:
        self._file.close()

    def last(self) -> RoundRow | None:
        rows = self._file.run(f"SELECT {_ROUND_COLUMNS} FROM rounds ORDER BY round DESC LIMIT 1")
        return _round_row(rows[0], self.exchange(int(_number(rows[0]["round"]) or 0))) if rows else None

    def exchange(self, round: int) -> ExchangeRow | None:
        """What came from whom in a round; None for one without a swarm, and for those of long ago."""
        if not self._file.run("SELECT 1 FROM sqlite_master WHERE name = 'exchanges'"):
            return None  # a file of an older version, which its node has not opened since
        query = f"SELECT {history_exchange.COLUMNS} FROM exchanges WHERE round = ?"
        rows = self._file.run(query, round)
        return history_exchange.exchange_row(rows[0]) if rows else None

    def mean_100(self) -> float | None:
        """Mean reward of the last hundred rounds."""
        query = "SELECT avg(reward) AS mean FROM (SELECT reward FROM rounds ORDER BY round DESC LIMIT 100)"
        rows = self._file.run(query)
        return _number(rows[0]["mean"]) if rows else None

    def heldout(self) -> HeldoutSummary:
        """The held-out scores of the base model, of the last evaluation and of the best one."""
        return HeldoutSummary(
            base=self._heldout_row("AND round = ?", BASE_ROUND),
            last=self._heldout_row("ORDER BY round DESC LIMIT 1"),
            best=self._heldout_row("ORDER BY sampled DESC, round LIMIT 1"),
        )

    def fact(self, key: str) -> str | None:
        """A remembered value (node id, chosen model, ...)."""
        rows = self._file.run("SELECT value FROM facts WHERE key = ?", key)
        return str(rows[0]["value"]) if rows else None

    def _heldout_row(self, choice: str, *values: object) -> HeldoutRow | None:
        query = f"SELECT {_HELDOUT_COLUMNS} FROM heldout WHERE typeof(sampled) = 'real' {choice}"
        rows = self._file.run(query, *values)
        return _heldout_row(rows[0]) if rows else None


class History(Curves):
    """The node's own curves. For one thread; see `history_file` for what happens when the disk refuses."""

    def __init__(self, path: Path, *, thinning: tuple[tuple[int, int], ...] = _THINNING) -> None:
        super().__init__(HistoryFile(path, _TABLES, _VERSION))
        self._thinning = thinning
        self._thinned = [0] * len(thinning)  # the newest row that each rule has judged
        self._rows_to_thinning = _THIN_EVERY

    def record_round(self, row: RoundRow) -> None:
        """Adds a round, in place of an earlier record of the same round."""
        self._file.run(
            f"INSERT OR REPLACE INTO rounds ({_ROUND_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)",
            row.round,
            row.time,
            _number(row.reward),
            _number(row.signal_share),
            _number(row.loss),
            _number(row.grad_norm),
            row.tokens,
            _number(row.tokens_per_s),
            json.dumps(dict(row.seconds)),
            row.rss_bytes,
        )
        if row.exchange is not None:
            self._file.run(history_exchange.INSERT, *history_exchange.values(row.round, row.exchange))
        self._rows_to_thinning -= 1
        if self._rows_to_thinning == 0:
            self._rows_to_thinning = _THIN_EVERY
            self._thin()

    def record_heldout(self, row: HeldoutRow) -> None:
        """Adds an evaluation, in place of an earlier one after the same round."""
        self._file.run(
            f"INSERT OR REPLACE INTO heldout ({_HELDOUT_COLUMNS}) VALUES (?,?,?,?,?,?)",
            row.round,
            row.time,
            _number(row.sampled),
            _number(row.greedy),
            row.samples,
            json.dumps(dict(row.datasets)),
        )

    def truncate_after(self, round: int) -> None:
        """Forgets what came after `round`: at a restore, so that no curve shows a round that was lost.

        The base model's score stays.
        """
        self._file.run("DELETE FROM rounds WHERE round > ?", round)
        self._file.run("DELETE FROM exchanges WHERE round > ?", round)
        self._file.run("DELETE FROM heldout WHERE round > ?", max(round, BASE_ROUND))
        self._thinned = [0] * len(self._thinning)

    def remember(self, key: str, value: str) -> None:
        self._file.run("INSERT OR REPLACE INTO facts (key, value) VALUES (?,?)", key, value)

    def _thin(self) -> None:
        oldest = "SELECT round FROM exchanges ORDER BY round DESC LIMIT 1 OFFSET ?"
        self._file.run(f"DELETE FROM exchanges WHERE round <= ({oldest})", history_exchange.KEPT)
        rows = self._file.run("SELECT max(id) AS newest FROM rounds")
        newest = rows[0]["newest"] if rows else None
        if newest is None:
            return
        for rule, (keep, stride) in enumerate(self._thinning):
            until = newest - keep
            if until > self._thinned[rule]:
                # By row, not by round: a clock may give odd rounds only.
                query = "DELETE FROM rounds WHERE id > ? AND id <= ? AND id % ? <> 0"
                self._file.run(query, self._thinned[rule], until, stride)
                self._thinned[rule] = until


def _number(value: object) -> float | None:
    """A finite number, or None: a loss may be NaN, and sqlite keeps whatever type a damaged column holds."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _numbers(text: object) -> dict[str, float]:
    try:
        found = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        found = {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {str(key): float(value) for key, value in pairs if _number(value) is not None}


def _round_row(row: sqlite3.Row, exchange: ExchangeRow | None) -> RoundRow:
    return RoundRow(
        round=int(_number(row["round"]) or 0),
        time=_number(row["time"]) or 0.0,
        reward=_number(row["reward"]),
        signal_share=_number(row["signal_share"]),
        loss=_number(row["loss"]),
        grad_norm=_number(row["grad_norm"]),
        tokens=int(_number(row["tokens"]) or 0),
        tokens_per_s=_number(row["tokens_per_s"]),
        seconds=_numbers(row["seconds"]),
        rss_bytes=int(_number(row["rss_bytes"]) or 0),
        exchange=exchange,
    )


def _heldout_row(row: sqlite3.Row) -> HeldoutRow:
    return HeldoutRow(
        round=int(_number(row["round"]) or 0),
        time=_number(row["time"]) or 0.0,
        sampled=_number(row["sampled"]) or 0.0,
        greedy=_number(row["greedy"]),
        samples=int(_number(row["samples"]) or 0),
        datasets=_numbers(row["datasets"]),
    )
