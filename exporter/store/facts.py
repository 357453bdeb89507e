"""Facts that are read from the ledger to decide by: statements that are built once, and rows turned into records.

Each is asked for with every poll, so they read no more columns than somebody judges by.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, func, or_, select

from exporter.model import HealState, Outcome
from exporter.store.records import (
    HOUR,
    LATE,
    AccountRecord,
    Attempt,
    Counts,
    DidRecord,
    EndedAttempt,
    Status,
)
from exporter.store.rows import EVERYBODY
from exporter.store.tables import heal_attempts, heal_credentials, heal_dids, heal_refusals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import ColumnElement, Connection, RowMapping

    from exporter.store.stamps import StampReader

RECENT: Final = 50  # ended attempts that the breaker looks at
_NONE: Final = 2**31 - 1  # an id that no row goes beyond, as no column could hold it
_TABLE: Final = heal_attempts.c
_MINE: Final = (_TABLE.credential == bindparam("credential")) & (_TABLE.id != bindparam("but"))
_IS_OPEN: Final = _TABLE.status != Status.ENDED
_SENT_AT: Final = func.coalesce(_TABLE.sent_at, _TABLE.claimed_at)
_STAMPS: Final = (_TABLE.claimed_at, _TABLE.sent_at, _TABLE.answered_at, _TABLE.ended_at, _TABLE.observed_at)


def _within(column: ColumnElement[float], name: str) -> ColumnElement[bool]:
    """Return the condition for rows of a time: since a moment, or with an id that only later rows have."""
    return (column > bindparam(f"{name}_after")) | (_TABLE.id > bindparam(f"{name}_id"))


_CREDENTIALS: Final = select(heal_credentials).where(
    heal_credentials.c.credential.in_([bindparam("credential"), EVERYBODY])
)
_REFUSED: Final = select(heal_refusals.c.fingerprint).where(heal_refusals.c.credential == bindparam("credential"))
_OPEN: Final = select(heal_attempts).where(_IS_OPEN).order_by(_TABLE.id)
_SENT: Final = select(_SENT_AT).where(
    _MINE, _within(_SENT_AT, "sent"), _TABLE.sent_at.is_not(None) | (_TABLE.status == Status.CLAIMED)
)
_WOULD: Final = select(_TABLE.claimed_at).where(
    _MINE, _within(_TABLE.claimed_at, "would"), _TABLE.outcome == Outcome.WOULD_SEND
)
_RECENT: Final = (
    select(_TABLE.id, _TABLE.account, _TABLE.outcome, _TABLE.ended_at)
    .where(_MINE, _TABLE.status == Status.ENDED, _TABLE.feeds.is_(True) | (_TABLE.outcome == Outcome.SUCCEEDED))
    .order_by(_TABLE.id.desc())  # by the order of claims, which no clock can change
    .limit(RECENT)
)
_DIDS: Final = select(heal_dids)
_DID: Final = select(heal_dids).where(heal_dids.c.number == bindparam("number"))
_COUNTING: Final = select(_TABLE.id, _TABLE.number, _TABLE.charged, _TABLE.outcome, _TABLE.claimed_at).where(
    or_(
        _TABLE.charged.is_(True) & _within(_TABLE.claimed_at, "charged"),
        (_TABLE.outcome == Outcome.WOULD_SEND) & _within(_TABLE.claimed_at, "would"),
    )
)
_COUNTING_OF: Final = _COUNTING.where(_TABLE.number == bindparam("number"))
_OPEN_OF: Final = _OPEN.where(_TABLE.number == bindparam("number"))
_NEW: Final = select(_TABLE.id, _TABLE.status, *_STAMPS).where(
    (_TABLE.id > bindparam("highest")) | _TABLE.id.in_(bindparam("known", expanding=True))
)
_STILL_OPEN: Final = select(_TABLE.id, _TABLE.status, *_STAMPS).where(_IS_OPEN)
_HIGHEST: Final = select(func.max(_TABLE.id))


class FactReader:
    """Reader of the ledger's facts, inside a transaction of the ledger's.

    `window` is `heal.attempts_window` in seconds. With `stamps`, times are read by them; without, they are believed.
    """

    def __init__(self, window: float, stamps: StampReader | None) -> None:
        self.window = window
        self._stamps = stamps

    def notice(self, connection: Connection) -> None:
        """Have the reader of stamps see which attempts are new, before any of their times is read."""
        stamps = self._stamps
        if stamps is None:
            return
        if stamps.looked:
            rows = connection.execute(_NEW, {"highest": stamps.highest, "known": stamps.open_rows}).all()
            highest = max((row[0] for row in rows), default=stamps.highest)
        else:
            rows = connection.execute(_STILL_OPEN).all()
            highest = connection.execute(_HIGHEST).scalar_one() or 0
        stamps.look(max(highest, stamps.highest), ((row[0], row[1] != Status.ENDED, tuple(row[2:])) for row in rows))

    def open_attempts(self, connection: Connection) -> list[Attempt]:
        """Return the open attempts of all accounts, oldest first."""
        return [self._local(attempt_of(row)) for row in connection.execute(_OPEN).mappings()]

    def account(
        self, connection: Connection, credential: str, now: float, opened: list[Attempt], but: int | None = None
    ) -> AccountRecord:
        """Return the facts of a credential, as they are without the attempt `but`; `opened` are all open attempts."""
        known = {
            row["credential"]: row for row in connection.execute(_CREDENTIALS, {"credential": credential}).mappings()
        }
        everybody, own = known.get(EVERYBODY), known.get(credential)
        times = self._times(now) | {"credential": credential, "but": -1 if but is None else but}
        facts = AccountRecord(
            credential=credential,
            paused=everybody["paused"] if everybody else None,
            resumed_at=everybody["resumed_at"] if everybody else 0.0,
            resume_mark=everybody["resumed_at"] if everybody else 0.0,
            latched=own["latched"] if own else None,
            latched_at=own["latched_at"] if own else 0.0,
            refused=frozenset(connection.execute(_REFUSED, {"credential": credential}).scalars()),
            key_paused_at=own["key_paused_at"] if own else 0.0,
            key_paused_for=own["key_paused_for"] if own else 0.0,
            forbidden_at=own["forbidden_at"] if own else 0.0,
            open=tuple(each for each in opened if each.credential == credential and each.id != but),
            sent=tuple(connection.execute(_SENT, times).scalars()),
            would=tuple(connection.execute(_WOULD, times).scalars()),
            recent=tuple(
                EndedAttempt(number, account, Outcome(outcome), ended_at)
                for number, account, outcome, ended_at in connection.execute(_RECENT, times)
            ),
        )
        facts = self._stamps.account(facts) if self._stamps else facts
        return replace(
            facts, recent=tuple(sorted(facts.recent, key=lambda each: (each.ended_at, each.id), reverse=True))
        )

    def records(
        self, connection: Connection, now: float, opened: list[Attempt]
    ) -> tuple[dict[str, DidRecord], dict[str, Counts]]:
        """Return by number what is known of DIDs, and their attempts that count."""
        records = {row["number"]: self._local_record(row) for row in connection.execute(_DIDS).mappings()}
        if self._stamps:
            self._stamps.all_listed()
        return records, self._counts(connection.execute(_COUNTING, self._times(now)).all(), opened, records)

    def did(self, connection: Connection, number: str, blank: DidRecord, now: float) -> tuple[DidRecord, Counts]:
        """Return what is known of one DID, and its attempts that count."""
        row = connection.execute(_DID, {"number": number}).mappings().one_or_none()
        record = self._local_record(row) if row else replace(blank, version=0, state=HealState.IDLE)
        opened = [self._local(attempt_of(each)) for each in connection.execute(_OPEN_OF, {"number": number}).mappings()]
        rows = connection.execute(_COUNTING_OF, self._times(now) | {"number": number}).all()
        return record, self._counts(rows, opened, {number: record}).get(number, Counts())

    def _counts(
        self,
        rows: Iterable[Any],
        opened: list[Attempt],
        records: Mapping[str, DidRecord],
    ) -> dict[str, Counts]:
        counts = {each.number: Counts(open=each) for each in opened}
        for row, number, charged, outcome, claimed_at in rows:
            known, at = counts.get(number, Counts()), self._local_time(claimed_at)
            forgotten = records[number].forgotten_id if number in records else 0
            if charged and row > forgotten:
                known = replace(known, charged=(*known.charged, at))
            if outcome == Outcome.WOULD_SEND:
                known = replace(known, would_at=max(known.would_at, at))
            counts[number] = known
        return counts

    def _times(self, now: float) -> dict[str, float]:
        """Return since when rows may count, by what they count for."""
        earliest = self._stamps.earliest if self._stamps else now
        spans = {"sent": HOUR + LATE, "would": HOUR, "charged": self.window}
        ids = {name: self._stamps.highest_before(span) if self._stamps else _NONE for name, span in spans.items()}
        return {f"{name}_after": earliest - span for name, span in spans.items()} | {
            f"{name}_id": each for name, each in ids.items()
        }

    def _local_time(self, stamp: float) -> float:
        return self._stamps.local(stamp) if self._stamps else stamp

    def _local(self, attempt: Attempt) -> Attempt:
        return self._stamps.attempt(attempt) if self._stamps else attempt

    def _local_record(self, row: RowMapping) -> DidRecord:
        record = record_of(row)
        if self._stamps is None:
            return record
        self._stamps.note(record.number, record.version, record.since, listed=True)
        return self._stamps.record(record)


def attempt_of(row: RowMapping) -> Attempt:
    """Return the attempt that a row is."""
    values = dict(row)
    return Attempt(
        **{
            **values,
            "status": Status(values["status"]),
            "outcome": Outcome(values["outcome"]) if values["outcome"] else None,
            "issues": tuple(values["issues"]),
            "heal_issues": tuple(values["heal_issues"] or ()),
            "steps": tuple(values["steps"]),
        }
    )


def record_of(row: RowMapping) -> DidRecord:
    """Return what a row says of a DID."""
    values = dict(row)
    return DidRecord(
        **{**values, "state": HealState(values["state"]), "heal_issues": tuple(values["heal_issues"] or ())}
    )
