"""Rows that were read before and are still true: a look at a store that nobody changed asks it for nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from sqlalchemy import Connection, Select


class RowCache:
    """Cache of query results. It is valid as long as the store has the same revision."""

    def __init__(self) -> None:
        self._revision: str | None = None
        self._results: dict[Hashable, tuple[Mapping[str, float], Sequence[Any]]] = {}
        self.noticed = False  # whether what is new in this revision was taken in, to the end

    def at(self, revision: str | None) -> bool:
        """Use it for a store of a revision. Returns whether it was used for the same one before."""
        same = revision is not None and revision == self._revision
        if not same:
            self.clear()
            self._revision = revision
        return same

    def clear(self) -> None:
        """Forget everything."""
        self._revision = None
        self._results.clear()
        self.noticed = False

    def get(self, key: Hashable, bounds: Mapping[str, float]) -> Sequence[Any] | None:
        """Return a result that has all rows within some lower bounds, and maybe more; `None` where there is none."""
        known = self._results.get(key)
        if known is None or any(known[0][name] > bound for name, bound in bounds.items()):
            return None
        return known[1]

    def put(self, key: Hashable, bounds: Mapping[str, float], rows: Sequence[Any]) -> None:
        """Remember a result."""
        self._results[key] = bounds, rows


class Rows:
    """Reader of the rows of one transaction. With a cache, a result that is in it is not asked for again."""

    def __init__(self, connection: Connection, cache: RowCache | None = None) -> None:
        self.connection = connection
        self._cache = cache

    @property
    def unchanged(self) -> bool:
        """Whether nothing was changed since what is new was taken in."""
        return self._cache is not None and self._cache.noticed

    def note_taken_in(self) -> None:
        """Note that what is new was taken in."""
        if self._cache:
            self._cache.noticed = True

    def all(
        self, query: Select[Any], parameters: Mapping[str, Any] | None = None, bounds: Mapping[str, float] | None = None
    ) -> Sequence[Any]:
        """Return the rows of a query. `bounds` are those of its parameters below which it returns no row.

        Rows below them may be among what is returned, where they were once asked for.
        """
        parameters, bounds = parameters or {}, bounds or {}
        key = (query, *parameters.items())
        rows = self._cache.get(key, bounds) if self._cache else None
        if rows is None:
            rows = self.connection.execute(query, {**parameters, **bounds}).all()
            if self._cache:
                self._cache.put(key, bounds, rows)
        return rows
