"""Facts that are read from the ledger to decide by: statements that are built once, and rows turned into records.

Each is asked for with every poll, so they read no more columns than somebody judges by.
"""

from __future__ import annotations

from bisect import bisect_right
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

    from sqlalchemy import ColumnElement, Select

    from exporter.store.cache import Rows
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


def _is_within(row: Any, at: float, name: str, bounds: Mapping[str, float]) -> bool:  # noqa: ANN401 - a row
    """Whether that condition holds for a row, which may have been read with earlier bounds."""
    return at > bounds[f"{name}_after"] or row.id > bounds[f"{name}_id"]


_CREDENTIALS: Final = select(heal_credentials).where(
    heal_credentials.c.credential.in_([bindparam("credential"), EVERYBODY])
)
_REFUSED: Final = select(heal_refusals.c.fingerprint).where(heal_refusals.c.credential == bindparam("credential"))
_OPEN: Final = select(heal_attempts).where(_IS_OPEN).order_by(_TABLE.id)
_SENT: Final = select(_TABLE.id, _SENT_AT.label("at")).where(
    _MINE, _within(_SENT_AT, "span"), _TABLE.sent_at.is_not(None) | (_TABLE.status == Status.CLAIMED)
)
_WOULD: Final = select(_TABLE.id, _TABLE.claimed_at.label("at")).where(
    _MINE, _within(_TABLE.claimed_at, "span"), _TABLE.outcome == Outcome.WOULD_SEND
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
_IN_ORDER: Final = (
    select(_TABLE.id, _TABLE.claimed_at).where(_TABLE.claimed_at > bindparam("after")).order_by(_TABLE.id)
)
_OTHER_NUMBERS: Final = (
    select(_TABLE.number)
    .where(_TABLE.did_id == bindparam("did_id"), _TABLE.number != bindparam("number"))
    .order_by(_TABLE.number)
    .distinct()
)
_HIGHEST: Final = select(func.max(_TABLE.id))


class ClaimOrder:
    """Order of the claims within a span of time, which no clock can change: none was made before those with lower ids.

    So the stamp of a replica whose clock was behind is read as no earlier than that of the claim before it.
    """

    def __init__(self, claims: Iterable[tuple[int, float]]) -> None:
        """`claims` are ids and times by id, within the span and not in the future."""
        self._ids: list[int] = []
        self._latest: list[float] = []
        for row, at in claims:
            self._ids.append(row)
            self._latest.append(max(at, self._latest[-1]) if self._latest else at)

    @property
    def first(self) -> int:
        """The id from which on all claims were made within the span."""
        return self._ids[0] if self._ids else _NONE

    def time(self, row: int, stamp: float) -> float:
        """Return the stamp of a row, or the latest of the claims before it where that is later."""
        before = bisect_right(self._ids, row)
        return max(stamp, self._latest[before - 1]) if before else stamp


class FactReader:
    """Reader of the ledger's facts, inside a transaction of the ledger's.

    `window` is `heal.attempts_window` in seconds. With `stamps`, times are read by them; without, they are believed.
    """

    def __init__(self, window: float, stamps: StampReader | None) -> None:
        self.window = window
        self._stamps = stamps

    def notice(self, rows: Rows) -> None:
        """Have the reader of stamps see which attempts are new, before any of their times is read."""
        stamps = self._stamps
        if stamps is None:
            return
        if stamps.looked and rows.unchanged:
            stamps.look_again()
            return
        if stamps.looked:
            found = rows.connection.execute(_NEW, {"highest": stamps.highest, "known": stamps.open_rows}).all()
            highest = max((row[0] for row in found), default=stamps.highest)
        else:
            found = rows.connection.execute(_STILL_OPEN).all()
            highest = rows.connection.execute(_HIGHEST).scalar_one() or 0
        stamps.look(max(highest, stamps.highest), ((row[0], row[1] != Status.ENDED, tuple(row[2:])) for row in found))
        rows.note_taken_in()

    def open_attempts(self, rows: Rows) -> list[Attempt]:
        """Return the open attempts of all accounts, oldest first, with their times as they were written."""
        return [attempt_of(row._asdict()) for row in rows.all(_OPEN)]

    def local(self, attempts: Iterable[Attempt]) -> list[Attempt]:
        """Return attempts with their times as this process reads them."""
        return [self._stamps.attempt(each) for each in attempts] if self._stamps else list(attempts)

    def account(
        self, rows: Rows, credential: str, now: float, opened: list[Attempt], but: int | None = None
    ) -> AccountRecord:
        """Return the facts of a credential, as they are without the attempt `but`; `opened` are all open attempts."""
        known = {row.credential: row for row in rows.all(_CREDENTIALS, {"credential": credential})}
        everybody, own = known.get(EVERYBODY), known.get(credential)
        mine = {"credential": credential, "but": -1 if but is None else but}
        facts = AccountRecord(
            credential=credential,
            paused=everybody.paused if everybody else None,
            resumed_at=everybody.resumed_at if everybody else 0.0,
            resume_mark=everybody.resumed_at if everybody else 0.0,
            latched=own.latched if own else None,
            latched_at=own.latched_at if own else 0.0,
            refused=frozenset(row[0] for row in rows.all(_REFUSED, {"credential": credential})),
            key_paused_at=own.key_paused_at if own else 0.0,
            key_paused_for=own.key_paused_for if own else 0.0,
            forbidden_at=own.forbidden_at if own else 0.0,
            open=tuple(each for each in opened if each.credential == credential and each.id != but),
            sent=self._times_of(rows, _SENT, mine, now, HOUR + LATE),
            would=self._times_of(rows, _WOULD, mine, now, HOUR),
            recent=tuple(
                EndedAttempt(number, account, Outcome(outcome), ended_at)
                for number, account, outcome, ended_at in rows.all(_RECENT, mine)
            ),
        )
        facts = self._stamps.account(facts) if self._stamps else facts
        return replace(
            facts, recent=tuple(sorted(facts.recent, key=lambda each: (each.ended_at, each.id), reverse=True))
        )

    def records(self, rows: Rows, now: float, opened: list[Attempt]) -> tuple[dict[str, DidRecord], dict[str, Counts]]:
        """Return by number what is known of DIDs, and their attempts that count."""
        records = {row.number: self._local_record(row) for row in rows.all(_DIDS)}
        if self._stamps:
            self._stamps.all_listed()
        return records, self._counts(rows, (_COUNTING, {}), now, opened, records)

    def did(self, rows: Rows, number: str, blank: DidRecord, now: float) -> tuple[DidRecord, Counts]:
        """Return what is known of one DID, and its attempts that count."""
        row = next(iter(rows.all(_DID, {"number": number})), None)
        record = self._local_record(row) if row else replace(blank, version=0, state=HealState.IDLE)
        opened = self.local(attempt_of(each._asdict()) for each in rows.all(_OPEN_OF, {"number": number}))
        counts = self._counts(rows, (_COUNTING_OF, {"number": number}), now, opened, {number: record})
        return record, counts.get(number, Counts())

    def did_by_any_number(self, rows: Rows, number: str, did_id: int | None, now: float) -> tuple[DidRecord, Counts]:
        """Return what is known of a DID, and its attempts that count, also by other numbers with the same `did_id`.

        As where the API spells its number in another way than before: the stricter record counts, and all attempts do.
        """
        record, counts = self.did(rows, number, DidRecord(number), now)
        others = rows.all(_OTHER_NUMBERS, {"number": number, "did_id": did_id}) if did_id is not None else ()
        for other in others:
            known, tried = self.did(rows, other.number, DidRecord(other.number), now)
            record = _stricter(record, known)
            counts = Counts(
                open=counts.open or tried.open,
                charged=(*counts.charged, *tried.charged),
                would_at=max(counts.would_at, tried.would_at),
            )
        return record, counts

    def _times_of(
        self, rows: Rows, query: Select[Any], mine: Mapping[str, Any], now: float, span: float
    ) -> tuple[float, ...]:
        """Return the times of a query's rows, as this process reads them, of no more than so many seconds ago."""
        order = self._order(rows, now, span)
        bounds = self._since(now, order, span=span)
        return tuple(
            self._local_time(row.id, order.time(row.id, row.at))
            for row in rows.all(query, mine, bounds)
            if _is_within(row, row.at, "span", bounds)
        )

    def _counts(
        self,
        rows: Rows,
        query: tuple[Select[Any], Mapping[str, Any]],
        now: float,
        opened: list[Attempt],
        records: Mapping[str, DidRecord],
    ) -> dict[str, Counts]:
        """Return by number the attempts that count, of those that a query returns or that are open."""
        counts = {each.number: Counts(open=each) for each in opened}
        order = self._order(rows, now, self.window)
        bounds = self._since(now, order, charged=self.window) | self._since(now, ClaimOrder(()), would=HOUR)
        for row in rows.all(*query, bounds):
            known = counts.get(row.number, Counts())
            at = self._local_time(row.id, order.time(row.id, row.claimed_at))
            forgotten = records[row.number].forgotten_id if row.number in records else 0
            if row.charged and row.id > forgotten and _is_within(row, row.claimed_at, "charged", bounds):
                counts[row.number] = replace(known, charged=(*known.charged, at))
            elif row.outcome == Outcome.WOULD_SEND and _is_within(row, row.claimed_at, "would", bounds):
                counts[row.number] = replace(known, would_at=max(known.would_at, at))
        return counts

    def _order(self, rows: Rows, now: float, span: float) -> ClaimOrder:
        """Return the order of claims within a span, for as long as this process has not seen all of them itself."""
        if self._stamps and self._stamps.has_looked_for(span):
            return ClaimOrder(())
        latest = self._stamps.earliest if self._stamps else now
        after = latest - span
        found = rows.all(_IN_ORDER, {}, {"after": after})
        return ClaimOrder((row.id, row.claimed_at) for row in found if after < row.claimed_at <= latest)

    def _since(self, now: float, order: ClaimOrder, **spans: float) -> dict[str, float]:
        """Return since when rows may count, by what they count for and for how many seconds."""
        earliest = self._stamps.earliest if self._stamps else now
        ids = {name: self._stamps.highest_before(span) if self._stamps else _NONE for name, span in spans.items()}
        return {f"{name}_after": earliest - span for name, span in spans.items()} | {
            f"{name}_id": min(each, order.first - 1) for name, each in ids.items()
        }

    def _local_time(self, row: int, stamp: float) -> float:
        return self._stamps.local_of(row, stamp) if self._stamps else stamp

    def _local_record(self, row: Any) -> DidRecord:  # noqa: ANN401 - SQLAlchemy's row
        record = record_of(row._asdict())
        if self._stamps is None:
            return record
        self._stamps.note(record.number, record.version, record.since, listed=True)
        return self._stamps.record(record)


def _stricter(record: DidRecord, other: DidRecord) -> DidRecord:
    """Return a record, or how it would be if what is known of the same DID by another number were known by this one."""
    rank = {HealState.QUARANTINED: 2, HealState.BACKOFF: 1}
    mine, theirs = ((rank.get(each.state, 0), each.until) for each in (record, other))
    if theirs <= mine or not theirs[0]:
        return record
    reason = f"{other.reason} (under another number with the same did_id)"
    return replace(record, state=other.state, until=other.until, reason=reason)


def attempt_of(values: Mapping[Any, Any]) -> Attempt:
    """Return the attempt that a row is."""
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


def record_of(values: Mapping[str, Any]) -> DidRecord:
    """Return what a row says of a DID."""
    return DidRecord(
        **{**values, "state": HealState(values["state"]), "heal_issues": tuple(values["heal_issues"] or ())}
    )
