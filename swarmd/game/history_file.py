"""The sqlite file under the curves: opened with care, replaced when damaged, done without when it must be.

Curves are worth less than a running node. A damaged file is moved aside and begun anew; where the disk
refuses (full, read-only) rows are dropped with a warning, or kept in memory when the file cannot be opened.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

from swarmd.system.events import event

_MEMORY = ":memory:"
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH)
# Of the I/O errors those that speak of the file's contents; others come from a full or failing disk too.
_DAMAGE_IO = (sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_DATA, sqlite3.SQLITE_IOERR_CORRUPTFS)

# The module decodes names in the schema by itself, and strictly.
_FAILURES = (sqlite3.DatabaseError, UnicodeDecodeError)

_log = logging.getLogger("swarmd")


class _DamagedFile(Exception):
    pass


class HistoryFile:
    """Runs queries on a file with the tables `tables` (name -> column definitions, by column name).

    For one thread. Never raises for the state of the file or the disk.
    """

    def __init__(self, path: Path, tables: dict[str, dict[str, str]], version: int) -> None:
        self._path = path
        self._tables = tables
        self._version = version
        self._warned = ""
        self._connection = self._open()

    def close(self) -> None:
        self._connection.close()

    def run(self, query: str, *values: object) -> list[sqlite3.Row]:
        """The rows of a query; none where it failed."""
        try:
            return self._connection.execute(query, values).fetchall()
        except _FAILURES as error:
            if _is_damage(error):
                self._connection.close()
                self._connection = self._replace(str(error))
            elif str(error) != self._warned:
                # Once: a full disk refuses five times a second.
                self._warned = str(error)
                _log.warning("%s: %s; the curves get a gap", self._path, error)
            return []

    def _open(self) -> sqlite3.Connection:
        try:
            return self._prepared(str(self._path))
        except _DamagedFile as damage:
            return self._replace(str(damage))
        except _FAILURES as error:
            return self._replace(str(error)) if _is_damage(error) else self._in_memory(str(error))

    def _prepared(self, path: str) -> sqlite3.Connection:
        """An open, checked connection. Raises _DamagedFile and _FAILURES."""
        connection = _connect(path)
        try:
            # NORMAL syncs when the log is written back, not at each row: a power cut costs rows, no more.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, self._version):
                raise _DamagedFile(f"its format is {version}, not {self._version}")
            # Not quick_check: that passes over the indexes.
            verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if verdict != "ok":
                raise _DamagedFile(str(verdict).splitlines()[-1])
            # Tables that came with a later version are added to a file of an earlier one, which keeps all it has.
            for table, columns in self._tables.items():
                definition = ", ".join(f"{name} {kind}" for name, kind in columns.items())
                connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({definition})")
            connection.execute(f"PRAGMA user_version = {self._version}")
            for table, columns in self._tables.items():
                connection.execute(f"SELECT {', '.join(columns)} FROM {table} LIMIT 0")
        except (_DamagedFile, *_FAILURES):
            connection.close()
            raise
        return connection

    def _replace(self, reason: str) -> sqlite3.Connection:
        aside = self._path.with_name(self._path.name + ".damaged")
        event(
            "history_damaged",
            f"{self._path} is damaged: {reason}; it is now called {aside.name} and the curves begin anew",
            priority=4,
            path=str(self._path),
            reason=reason,
        )
        try:
            # The log and its index belong to the damaged file and would be read into the new one.
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            os.replace(self._path, aside)
            return self._prepared(str(self._path))
        except (OSError, _DamagedFile, *_FAILURES) as error:
            return self._in_memory(str(error))

    def _in_memory(self, reason: str) -> sqlite3.Connection:
        _log.warning("%s: %s; the curves of this run are lost when it ends", self._path, reason)
        return self._prepared(_MEMORY)


class HistoryReader:
    """Runs queries on the file without ever changing it; beside a writer, or after it."""

    def __init__(self, path: Path) -> None:
        try:
            self._connection: sqlite3.Connection | None = _connect(str(path), readonly=True)
        except sqlite3.DatabaseError:
            self._connection = None  # no file: a node that has not run has no curves

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def run(self, query: str, *values: object) -> list[sqlite3.Row]:
        """The rows of a query; none where it failed."""
        if self._connection is None:
            return []
        try:
            return self._connection.execute(query, values).fetchall()
        except _FAILURES as error:
            _log.warning("the curves cannot be read: %s", error)
            return []


def _connect(path: str, readonly: bool = False) -> sqlite3.Connection:
    if path == _MEMORY:
        connection = sqlite3.connect(path, isolation_level=None)
    else:
        uri = Path(path).absolute().as_uri()
        if readonly:
            # Without a log nobody writes. Opened the ordinary way sqlite would make one all the same, and leave it to
            # the node as the reader's: an administrator's, which the node could not write.
            uri += "?mode=ro" if os.path.exists(f"{path}-wal") else "?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=2.0)
    connection.row_factory = sqlite3.Row
    # A flipped bit in a text must not raise while reading.
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    return connection


def _is_damage(error: sqlite3.DatabaseError | UnicodeDecodeError) -> bool:
    if isinstance(error, UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _DAMAGE or code in _DAMAGE_IO
