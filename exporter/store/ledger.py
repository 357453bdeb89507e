"""The ledger of heals: who may send for a DID is decided here, by rows that only one can insert or change.

A claim and a change to `sent` are two transactions, and no request is made inside of either. Every change names the
state it starts from, and does nothing where another replica was faster. Methods block; call them from a thread of their
own. All raise `StoreError` when the database doesn't answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from sqlalchemy import delete, func, or_, select, true, update

from exporter.model import HealState, Outcome
from exporter.store.engine import transaction
from exporter.store.records import (
    HOUR,
    LATE,
    AccountRecord,
    Attempt,
    Counts,
    DidRecord,
    Look,
    Refused,
    Result,
    Status,
    Wanted,
    Wish,
)
from exporter.store.rows import EVERYBODY, account_row, dialect, lock, upsert
from exporter.store.tables import heal_accounts, heal_attempts, heal_dids, replicas

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Engine, RowMapping

GONE_AFTER: Final = 60.0  # seconds without a sign of life; then a replica's claims are released
FORBIDDEN_WITHIN: Final = 600.0  # seconds; a second 403 within that latches the account
RECENT: Final = 50  # ended attempts that the breaker looks at


Judge = Callable[[AccountRecord, DidRecord, Counts], Iterable[str]]
Next = Callable[[DidRecord, Counts], DidRecord]


class Ledger:
    """The heals of every replica that shares the database. `window` is `heal.attempts_window` in seconds."""

    def __init__(self, engine: Engine, replica: str, window: float) -> None:
        self.replica = replica
        self.window = window
        self._engine = engine

    # Reading

    def account(self, account: str, now: float) -> AccountRecord:
        """Return the facts that an account's guards judge by."""
        with transaction(self._engine) as connection:
            return _account(connection, account, now)

    def records(self, now: float) -> tuple[dict[str, DidRecord], dict[str, Counts]]:
        """Return by number what is known of DIDs, and their attempts that count.

        Those of all accounts: a number is one number, whichever accounts see it.
        """
        with transaction(self._engine) as connection:
            return self._records(connection, now)

    def look(self, account: str, now: float) -> Look:
        """Return what `account` and `records` do, as of one moment."""
        with transaction(self._engine) as connection:
            return Look(_account(connection, account, now), *self._records(connection, now))

    def history(self, number: str | None = None, limit: int = 1000) -> list[Attempt]:
        """Return attempts, newest first."""
        query = select(heal_attempts).order_by(heal_attempts.c.id.desc()).limit(limit)
        if number is not None:
            query = query.where(heal_attempts.c.number == number)
        with transaction(self._engine, reading=True) as connection:
            return [_attempt(row) for row in connection.execute(query).mappings()]

    def page(self, wanted: Wanted, offset: int, limit: int) -> tuple[int, list[Attempt]]:
        """Return how many attempts are wanted, and some of them, newest first."""
        table = heal_attempts.c
        asked = {table.number: wanted.number, table.account: wanted.account, table.outcome: wanted.outcome}
        where = [column == value for column, value in asked.items() if value is not None]
        query = select(heal_attempts).where(*where).order_by(table.id.desc()).offset(offset).limit(limit)
        with transaction(self._engine, reading=True) as connection:
            total = connection.execute(select(func.count()).select_from(heal_attempts).where(*where)).scalar_one()
            return total, [_attempt(row) for row in connection.execute(query).mappings()]

    # The two transactions before a request

    def claim(self, wish: Wish, judge: Judge, now: float) -> Attempt | Refused:
        """Insert the open row for a DID, if nothing speaks against it while the account is locked.

        `judge` names what does. Who gets an `Attempt` may send, after `begin_send`.
        """
        return self._insert(wish, judge, now, {"status": Status.CLAIMED})

    def would_send(self, wish: Wish, judge: Judge, now: float) -> Attempt | Refused:
        """Record what observe mode would have sent, if nothing speaks against it."""
        reason = "observe mode: not sent"
        values = {"status": Status.ENDED, "outcome": Outcome.WOULD_SEND, "ended_at": now, "reason": reason}
        return self._insert(wish, judge, now, values)

    def begin_send(self, attempt: Attempt, judge: Judge, now: float) -> bool:
        """Turn a claim into `sent`. Only then may the request go out, and only by the claim's holder."""
        with transaction(self._engine) as connection:
            lock(connection, attempt.account)
            # The claim itself is no reason against its own request.
            facts, record, counts = self._facts(connection, attempt.account, attempt.number, now, but=attempt.id)
            if any(judge(facts, record, replace(counts, open=None))):
                return False
            return _change(connection, attempt, (Status.CLAIMED,), status=Status.SENT, sent_at=now)

    def _insert(self, wish: Wish, judge: Judge, now: float, values: Mapping[str, Any]) -> Attempt | Refused:
        with transaction(self._engine) as connection:
            lock(connection, wish.account)
            reasons = tuple(judge(*self._facts(connection, wish.account, wish.number, now)))
            if reasons:
                return Refused(reasons)
            row = {
                "number": wish.number,
                "account": wish.account,
                "connection": wish.connection,
                "token": str(uuid4()),
                "replica": self.replica,
                "issues": list(wish.issues),
                "body": dict(wish.body),
                "manual": wish.manual,
                "charged": False,
                "feeds": False,
                "claimed_at": now,
                "steps": [],
                "reason": "",
                "broken_since": wish.broken_since,
                **values,
            }
            # The index on open rows is the last word, whatever was read before.
            query = dialect(connection).insert(heal_attempts).values(**row).on_conflict_do_nothing()
            inserted = connection.execute(query.returning(heal_attempts)).mappings().one_or_none()
            return _attempt(inserted) if inserted else Refused(("an attempt on it is open already",))

    # After a request

    def answered(self, attempt: Attempt, result: Result, after: Next, now: float) -> bool:
        """Record what became of a request, whoever may have given up on it meanwhile.

        `after` returns what is known of the DID when the attempt ended with it. Returns whether the row was still open.
        """
        with transaction(self._engine) as connection:
            lock(connection, attempt.account)
            values: dict[str, Any] = {
                "status": result.status,
                "charged": result.charged,
                "feeds": result.feeds,
                "answered_at": now,
                "http_status": result.http_status,
                "steps": [dict(step) for step in result.steps],
                "readiness_before": result.readiness_before,
                "readiness": result.readiness,
                "reason": result.reason,
            }
            if result.status is Status.ENDED:
                values |= {"outcome": result.outcome, "ended_at": now}
            if not _change(connection, attempt, (Status.CLAIMED, Status.SENT, Status.AMBIGUOUS), **values):
                return False
            self._note_account(connection, attempt.account, result, now)
            if result.status is Status.ENDED:
                self._note_did(connection, attempt, after, now)
            return True

    def resolve(self, attempt: Attempt, outcome: Outcome, reason: str, after: Next, now: float) -> bool:
        """End an attempt by what the polls saw. Returns whether this call did it."""
        with transaction(self._engine) as connection:
            lock(connection, attempt.account)
            values = {"status": Status.ENDED, "outcome": outcome, "ended_at": now, "reason": reason}
            open_answered = (Status.VERIFYING, Status.AMBIGUOUS)
            if not _change(connection, attempt, open_answered, owner=False, **values):
                return False
            self._note_did(connection, attempt, after, now)
            return True

    def move(self, before: DidRecord, after: Next, now: float) -> bool:
        """Change what is known of a DID, unless it changed since `before` was read. Returns whether it did."""
        with transaction(self._engine) as connection:
            lock(connection, before.account)
            record, counts = self._did(connection, before.number, before, now)
            if record.version != before.version or counts.open is not None:
                return False
            _put(connection, replace(after(record, counts), version=record.version + 1))
            return True

    # Replicas

    def alive(self, now: float, busy: Iterable[int] = ()) -> list[Attempt]:
        """Give a sign of life, and take over what replicas without one left behind; return what was released.

        What was only claimed is released: nothing was sent. What may have been sent becomes ambiguous, and stays open.
        `busy` are the attempts that this replica is working on: others of its own were lost on the way.
        """
        with transaction(self._engine) as connection:
            upsert(connection, replicas, {"replica": self.replica, "seen_at": now}, ("replica",))
            living = select(replicas.c.replica).where(replicas.c.seen_at > now - GONE_AFTER)
            lost = (heal_attempts.c.replica == self.replica) & heal_attempts.c.id.not_in(tuple(busy))
            old = heal_attempts.c.claimed_at <= now - GONE_AFTER
            orphaned = (heal_attempts.c.replica.not_in(living) | lost) & old
            ended = {"ended_at": now, "reason": f"its replica was gone for {GONE_AFTER:.0f} s before it sent"}
            released = connection.execute(
                update(heal_attempts)
                .where(orphaned, heal_attempts.c.status == Status.CLAIMED)
                .values(status=Status.ENDED, outcome=Outcome.NOT_SENT, **ended)
                .returning(heal_attempts)
            ).mappings()
            attempts = [_attempt(row) for row in released]
            connection.execute(
                update(heal_attempts)
                .where(orphaned, heal_attempts.c.status == Status.SENT)
                .values(
                    status=Status.AMBIGUOUS,
                    charged=True,
                    feeds=True,
                    answered_at=now,
                    reason=f"its replica was gone for {GONE_AFTER:.0f} s while it waited for the answer",
                )
            )
            connection.execute(delete(replicas).where(replicas.c.seen_at < now - HOUR))
            return attempts

    # People, and what they decide

    def pause(self, reason: str) -> None:
        """Stop all automatic healing, on every replica."""
        with transaction(self._engine) as connection:
            lock(connection, EVERYBODY)
            connection.execute(update(heal_accounts).where(account_row(EVERYBODY)).values(paused=reason))

    def resume(self, now: float) -> None:
        """Start healing again; lifts latches too. The budgets go on counting."""
        with transaction(self._engine) as connection:
            lock(connection, EVERYBODY)
            values = {"paused": None, "latched": None, "latch_print": ""}
            connection.execute(update(heal_accounts).values(**values))
            connection.execute(update(heal_accounts).where(account_row(EVERYBODY)).values(resumed_at=now))

    def release(self, number: str, reason: str, now: float) -> list[str]:
        """Lift a DID's quarantine or backoff, and end an attempt on it that nobody waits for.

        Returns what was done, in words; nothing where there was nothing to lift.
        """
        done = []
        with transaction(self._engine) as connection:
            lock(connection, EVERYBODY)
            query = select(heal_attempts).where(
                heal_attempts.c.number == number, heal_attempts.c.status != Status.ENDED
            )
            row = connection.execute(query).mappings().one_or_none()
            attempt = _attempt(row) if row else None
            values = {"status": Status.ENDED, "ended_at": now, "reason": f"released by hand: {reason}"}
            waits_for_polls = (Status.VERIFYING, Status.AMBIGUOUS)
            if attempt and _change(
                connection, attempt, waits_for_polls, owner=False, outcome=Outcome.AMBIGUOUS, **values
            ):
                done.append("ended its open attempt")
            record = self._did(connection, number, DidRecord(number), now)[0]
            if record.state is not HealState.IDLE:
                done.append(f"lifted {record.state}: {record.reason}")
            if done:
                text = f"released by hand: {reason}"
                fresh = replace(
                    record, state=HealState.IDLE, since=now, until=0.0, failures=0, forgotten_at=now, reason=text
                )
                account = attempt.account if attempt else record.account
                where = attempt.connection if attempt else record.connection
                _put(connection, replace(fresh, account=account, connection=where, version=record.version + 1))
        return done

    def unlatch(self, account: str, fingerprint: str) -> bool:
        """Lift an account's latch if the credential or the configuration changed since. Returns whether it did."""
        with transaction(self._engine) as connection:
            changed = (heal_accounts.c.latched.is_not(None)) & (heal_accounts.c.latch_print != fingerprint)
            query = update(heal_accounts).where(account_row(account), changed).values(latched=None, latch_print="")
            return connection.execute(query).rowcount == 1

    def latch(self, account: str, reason: str, fingerprint: str, now: float) -> None:
        """Heal nothing on an account until the credential or the configuration changed."""
        with transaction(self._engine) as connection:
            lock(connection, account)
            values = {"latched": reason, "latch_print": fingerprint, "latched_at": now}
            connection.execute(update(heal_accounts).where(account_row(account)).values(**values))

    def pause_key(self, account: str, until: float) -> None:
        """Note that the API limits the rate of an account's key, for every replica."""
        with transaction(self._engine) as connection:
            lock(connection, account)
            later = account_row(account) & (heal_accounts.c.key_paused_until < until)
            connection.execute(update(heal_accounts).where(later).values(key_paused_until=until))

    def prune(self, before: float) -> int:
        """Forget attempts that ended before a Unix time; what is open stays. Returns how many."""
        with transaction(self._engine) as connection:
            ended = (heal_attempts.c.status == Status.ENDED) & (heal_attempts.c.ended_at < before)
            count: int = connection.execute(delete(heal_attempts).where(ended)).rowcount
            idle = (heal_dids.c.state == HealState.IDLE) & (heal_dids.c.since < before)
            connection.execute(delete(heal_dids).where(idle))
            return count

    # Inside a transaction

    def _records(self, connection: Connection, now: float) -> tuple[dict[str, DidRecord], dict[str, Counts]]:
        rows = connection.execute(select(heal_dids)).mappings()
        records = {row["number"]: _record(row) for row in rows}
        return records, self._counts(connection, true(), records, now)

    def _facts(
        self, connection: Connection, account: str, number: str, now: float, but: int | None = None
    ) -> tuple[AccountRecord, DidRecord, Counts]:
        blank = DidRecord(number, account)
        return (_account(connection, account, now, but), *self._did(connection, number, blank, now))

    def _did(self, connection: Connection, number: str, blank: DidRecord, now: float) -> tuple[DidRecord, Counts]:
        row = connection.execute(select(heal_dids).where(heal_dids.c.number == number)).mappings().one_or_none()
        record = _record(row) if row else replace(blank, version=0, state=HealState.IDLE)
        counts = self._counts(connection, heal_attempts.c.number == number, {number: record}, now)
        return record, counts.get(number, Counts())

    def _counts(
        self,
        connection: Connection,
        which: ColumnElement[bool],
        records: Mapping[str, DidRecord],
        now: float,
    ) -> dict[str, Counts]:
        table = heal_attempts.c
        counting = (
            (table.status != Status.ENDED)
            | (table.charged.is_(True) & (table.claimed_at > now - self.window))
            | ((table.outcome == Outcome.WOULD_SEND) & (table.claimed_at > now - HOUR))
        )
        counts: dict[str, Counts] = {}
        for row in connection.execute(select(heal_attempts).where(which, counting)).mappings():
            attempt, known = _attempt(row), counts.get(row["number"], Counts())
            forgotten = records[attempt.number].forgotten_at if attempt.number in records else 0.0
            if attempt.open:
                known = replace(known, open=attempt)
            if attempt.charged and attempt.claimed_at > max(forgotten, now - self.window):
                known = replace(known, charged=(*known.charged, attempt.claimed_at))
            if attempt.outcome is Outcome.WOULD_SEND:
                known = replace(known, would_at=max(known.would_at, attempt.claimed_at))
            counts[attempt.number] = known
        return counts

    def _note_did(self, connection: Connection, attempt: Attempt, after: Next, now: float) -> None:
        blank = DidRecord(attempt.number, attempt.account, attempt.connection, broken_since=attempt.broken_since)
        record, counts = self._did(connection, attempt.number, blank, now)
        known = replace(after(record, counts), account=attempt.account, connection=attempt.connection)
        _put(connection, replace(known, version=record.version + 1))

    def _note_account(self, connection: Connection, account: str, result: Result, now: float) -> None:
        values: dict[str, Any] = {}
        latch = result.latch
        if result.forbidden:  # decided here, under the lock: several requests may be refused at the same time
            values["forbidden_at"] = now
            before = connection.execute(select(heal_accounts.c.forbidden_at).where(account_row(account))).scalar_one()
            latch = f"{result.reason}, twice within 10 minutes" if now - before < FORBIDDEN_WITHIN else None
        if latch:
            values |= {"latched": latch, "latch_print": result.latch_print, "latched_at": now}
        if values:
            connection.execute(update(heal_accounts).where(account_row(account)).values(**values))
        if result.key_pause is not None:
            later = account_row(account) & (heal_accounts.c.key_paused_until < now + result.key_pause)
            connection.execute(update(heal_accounts).where(later).values(key_paused_until=now + result.key_pause))


def _account(connection: Connection, account: str, now: float, but: int | None = None) -> AccountRecord:
    """Return the facts that an account's guards judge by, as they are without the attempt `but`."""
    rows = connection.execute(select(heal_accounts).where(or_(account_row(account), account_row(EVERYBODY)))).mappings()
    known = {row["account"]: row for row in rows}
    everybody, own = known.get(EVERYBODY), known.get(account)
    table, mine = heal_attempts.c, heal_attempts.c.account == account
    if but is not None:
        mine &= table.id != but
    opened = select(heal_attempts).where(mine, table.status != Status.ENDED)
    at = func.coalesce(table.sent_at, table.claimed_at)
    sent = select(at).where(mine, at > now - HOUR - LATE, table.sent_at.is_not(None) | (table.status == Status.CLAIMED))
    would = select(table.claimed_at).where(mine, table.claimed_at > now - HOUR, table.outcome == Outcome.WOULD_SEND)
    counting = table.feeds.is_(True) | (table.outcome == Outcome.SUCCEEDED)
    recent = (
        select(heal_attempts)
        .where(mine, table.status == Status.ENDED, counting)
        .order_by(table.ended_at.desc(), table.id.desc())
        .limit(RECENT)
    )
    verified = select(func.max(table.ended_at)).where(mine, table.outcome == Outcome.SUCCEEDED)
    return AccountRecord(
        account=account,
        paused=everybody["paused"] if everybody else None,
        resumed_at=everybody["resumed_at"] if everybody else 0.0,
        latched=own["latched"] if own else None,
        latch_print=own["latch_print"] if own else "",
        latched_at=own["latched_at"] if own else 0.0,
        key_paused_until=own["key_paused_until"] if own else 0.0,
        forbidden_at=own["forbidden_at"] if own else 0.0,
        open=tuple(_attempt(row) for row in connection.execute(opened).mappings()),
        sent=tuple(connection.execute(sent).scalars()),
        would=tuple(connection.execute(would).scalars()),
        recent=tuple(_attempt(row) for row in connection.execute(recent).mappings()),
        verified_at=connection.execute(verified).scalar_one() or 0.0,
    )


def _change(
    connection: Connection,
    attempt: Attempt,
    expected: Iterable[Status],
    *,
    owner: bool = True,
    **values: Any,  # noqa: ANN401
) -> bool:
    """Change an attempt that is in one of the states; `owner`: only if the token is its claimer's."""
    query = update(heal_attempts).where(heal_attempts.c.id == attempt.id, heal_attempts.c.status.in_(tuple(expected)))
    if owner:
        query = query.where(heal_attempts.c.token == attempt.token)
    return connection.execute(query.values(**values)).rowcount == 1


def _put(connection: Connection, record: DidRecord) -> None:
    names = [column.name for column in heal_dids.columns]
    upsert(connection, heal_dids, {name: getattr(record, name) for name in names}, ("number",))


def _attempt(row: RowMapping) -> Attempt:
    values = dict(row)
    return Attempt(
        **{
            **values,
            "status": Status(values["status"]),
            "outcome": Outcome(values["outcome"]) if values["outcome"] else None,
            "issues": tuple(values["issues"]),
            "steps": tuple(values["steps"]),
        }
    )


def _record(row: RowMapping) -> DidRecord:
    return DidRecord(**{**dict(row), "state": HealState(row["state"])})
