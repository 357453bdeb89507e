"""States of DIDs and their changes, so that "since when" and "how often" survive a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, insert, select, update

from exporter.store.records import Transition
from exporter.store.rows import EVERYBODY, lock
from exporter.store.tables import did_states, did_transitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from exporter.store.engine import Database

Known = dict[str, tuple[str, float, int]]  # by number: state, since when, how many changes


class History:
    """What the polls saw. Methods block; all raise `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, account: str, connection: str) -> Known:
        """Return what was known of a target's DIDs last."""
        with self._database.transaction() as database:
            return _known(database, account, connection)

    def write(self, account: str, connection: str, seen: Sequence[Transition], gone: Iterable[str] = ()) -> int:
        """Keep changes of state of one target's DIDs, each once however many replicas saw it; forget who left.

        Returns how many changes were new.
        """
        here = (did_states.c.account == account) & (did_states.c.connection == connection)
        with self._database.transaction() as database:
            lock(database, EVERYBODY)
            known = _known(database, account, connection)
            fresh: list[Transition] = []
            for change in seen:
                state, since, changes = known.get(change.number, (None, 0.0, -1))
                if state != change.new and change.at >= since:
                    fresh.append(
                        Transition(account, connection, change.number, change.at, state, change.new, change.issues)
                    )
                    known[change.number] = (change.new, change.at, changes + 1)
            self._write_states(database, here, fresh, known)
            if fresh:
                database.execute(insert(did_transitions), [_row(change) for change in fresh])
            leaving = [{"gone": number} for number in gone]
            if leaving:
                database.execute(delete(did_states).where(here, did_states.c.number == bindparam("gone")), leaving)
        return len(fresh)

    def of(self, number: str, limit: int = 1000) -> list[Transition]:
        """Return a DID's changes of state, newest first."""
        table = did_transitions.c
        query = select(did_transitions).where(table.number == number).order_by(table.at.desc(), table.id.desc())
        with self._database.transaction(reading=True) as database:
            return [
                Transition(
                    account=row["account"],
                    connection=row["connection"],
                    number=row["number"],
                    at=row["at"],
                    old=row["old"],
                    new=row["new"],
                    issues=tuple(row["issues"]),
                )
                for row in database.execute(query.limit(limit)).mappings()
            ]

    def prune(self, before: float) -> int:
        """Forget changes before a Unix time. Returns how many."""
        with self._database.transaction() as database:
            count: int = database.execute(delete(did_transitions).where(did_transitions.c.at < before)).rowcount
            return count

    @staticmethod
    def _write_states(database: Connection, here: object, fresh: Sequence[Transition], known: Known) -> None:
        first = [change for change in fresh if change.old is None]
        if first:
            rows = [
                {
                    "account": change.account,
                    "connection": change.connection,
                    "number": change.number,
                    **dict(zip(("state", "since", "changes"), known[change.number], strict=True)),
                }
                for change in first
            ]
            database.execute(insert(did_states), rows)
        later = [
            {"which": change.number, **dict(zip(("state", "since", "changes"), known[change.number], strict=True))}
            for change in fresh
            if change.old is not None
        ]
        if later:
            database.execute(update(did_states).where(here, did_states.c.number == bindparam("which")), later)  # type: ignore[arg-type]


def _known(database: Connection, account: str, connection: str) -> Known:
    table = did_states.c
    query = select(table.number, table.state, table.since, table.changes)
    rows = database.execute(query.where(table.account == account, table.connection == connection))
    return {number: (state, since, changes) for number, state, since, changes in rows}


def _row(change: Transition) -> dict[str, object]:
    return {
        "account": change.account,
        "connection": change.connection,
        "number": change.number,
        "at": change.at,
        "old": change.old,
        "new": change.new,
        "issues": list(change.issues),
    }
