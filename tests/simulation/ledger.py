"""The ledger, read past the product with raw SQL."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

_JSON = ("issues", "body", "steps", "readiness_before", "readiness")


class Reader(Protocol):
    """A way to read a store."""

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return rows by name of column; none where there is no such table."""


class SqliteReader:
    """Reads a file, which may be gone."""

    def __init__(self, path: str) -> None:
        self._path = path

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return rows by name of column; none where there is no such table."""
        try:
            with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as connection:
                cursor = connection.execute(sql)
                names = [column[0] for column in cursor.description]
                return [dict(zip(names, row, strict=True)) for row in cursor]
        except sqlite3.OperationalError:
            return []


class Watch:
    """Tells what changed in the attempts since the last look."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._open: set[int] = set()
        self._last = 0
        self._kept: tuple[set[int], int] = (set(), 0)

    def forget(self) -> None:
        """Begin anew, as on another store."""
        self._open, self._last = set(), 0

    def away(self) -> None:
        """Begin anew for as long as another store is in its place."""
        self._kept = (self._open, self._last)
        self.forget()

    def back(self) -> None:
        """Go on where it was when it went."""
        self._open, self._last = self._kept

    def changes(self) -> Sequence[dict[str, Any]]:
        """Return the rows that are new or were open at the last look."""
        known = ",".join(map(str, sorted(self._open))) or "0"
        rows = self._reader.query(f"SELECT * FROM heal_attempts WHERE id > {self._last} OR id IN ({known}) ORDER BY id")  # noqa: S608 - numbers
        for row in rows:
            for name in _JSON:
                if isinstance(row.get(name), str):
                    row[name] = json.loads(row[name])
            self._last = max(self._last, row["id"])
            if row["status"] == "ended":
                self._open.discard(row["id"])
            else:
                self._open.add(row["id"])
        return rows
