"""What people decided by hand, kept so that it can be read afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from exporter.store.tables import operator_actions

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from exporter.store.engine import Database


@dataclass(frozen=True, slots=True)
class Action:
    """What somebody did by hand: `pause`, `resume`, `release`, which is of a number, or `new_store`."""

    at: float
    action: str
    number: str | None
    reason: str


def record_action(connection: Connection, at: float, action: str, number: str | None, reason: str) -> None:
    """Record an action: `pause`, `resume`, `release`, which is of a number, or `new_store`."""
    connection.execute(insert(operator_actions).values(at=at, action=action, number=number, reason=reason))


def actions(database: Database, limit: int = 1000, *, number: str | None = None, since: float = 0.0) -> list[Action]:
    """Return what was done by hand, newest first: with a `number` what was done to that one or to all."""
    table = operator_actions.c
    query = select(table.at, table.action, table.number, table.reason).where(table.at >= since)
    if number is not None:
        query = query.where(table.number.is_(None) | (table.number == number))
    with database.transaction(reading=True) as connection:
        return [Action(*row) for row in connection.execute(query.order_by(table.id.desc()).limit(limit))]


def forget_actions(connection: Connection, before: float) -> None:
    """Forget what was done before a Unix time."""
    connection.execute(delete(operator_actions).where(operator_actions.c.at < before))
