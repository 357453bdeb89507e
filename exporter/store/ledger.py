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

from sqlalchemy import delete, func, select, update

from exporter.clock import SET
from exporter.model import HealState, Outcome
from exporter.store.cache import RowCache, Rows
from exporter.store.facts import FactReader, attempt_of
from exporter.store.identity import revise
from exporter.store.operator import forget_actions, record_action
from exporter.store.records import (
    HOUR,
    AccountRecord,
    Attempt,
    Counts,
    DidRecord,
    Heartbeat,
    Look,
    Refused,
    Result,
    Status,
    Wanted,
    Wish,
)
from exporter.store.rows import EVERYBODY, credential_row, dialect, lock, upsert
from exporter.store.tables import heal_attempts, heal_credentials, heal_dids, heal_refusals, replicas

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from exporter.store.engine import Database
    from exporter.store.stamps import StampReader

GONE_AFTER: Final = 60.0  # seconds without a sign of life; then a replica's claims are released
FORBIDDEN_WITHIN: Final = 600.0  # seconds; a second 403 within that latches the account
_UNDER_WAY: Final = (Status.CLAIMED, Status.SENT)
BY_NAME: Final = "account:"  # begins the mark of what version 0.1.0 kept by the name of an account


Judge = Callable[[AccountRecord, DidRecord, Counts], Iterable[str]]
Next = Callable[[DidRecord, Counts], DidRecord]


class Ledger:
    """The heals of every replica that shares the database. `window` is `heal.attempts_window` in seconds.

    With `stamps`, times that are read for decisions are read by them; without, they are believed.
    """

    def __init__(self, database: Database, replica: str, window: float, stamps: StampReader | None = None) -> None:
        self.replica = replica
        self._database = database
        self._stamps = stamps
        self._facts = FactReader(window, stamps)
        self._cache = RowCache()

    @property
    def window(self) -> float:
        """`heal.attempts_window` in seconds; may be set."""
        return self._facts.window

    @window.setter
    def window(self, seconds: float) -> None:
        self._facts.window = seconds
        self._cache.clear()

    # Reading

    def account(self, credential: str, now: float) -> AccountRecord:
        """Return the facts that the guards of a credential's accounts judge by."""
        with self._database.transaction(reading=True) as connection:
            return self._account(self._rows(connection), credential, now)

    def records(self, now: float) -> tuple[dict[str, DidRecord], dict[str, Counts]]:
        """Return by number what is known of DIDs, and their attempts that count.

        Those of all accounts: a number is one number, whichever accounts see it.
        """
        with self._database.transaction(reading=True) as connection:
            rows = self._rows(connection)
            return self._facts.records(rows, now, self._open(rows))

    def look(self, credential: str, now: float) -> Look:
        """Return what `account` and `records` do, as of one moment."""
        with self._database.transaction(reading=True) as connection:
            rows = self._rows(connection)
            opened = self._open(rows)
            account = self._facts.account(rows, credential, now, opened)
            return Look(account, *self._facts.records(rows, now, opened))

    def open_attempts(self) -> list[Attempt]:
        """Return the open attempts of all accounts, oldest first."""
        with self._database.transaction(reading=True) as connection:
            return self._open(self._rows(connection))

    def history(self, number: str | None = None, limit: int = 1000) -> list[Attempt]:
        """Return attempts, newest first."""
        query = select(heal_attempts).order_by(heal_attempts.c.id.desc()).limit(limit)
        if number is not None:
            query = query.where(heal_attempts.c.number == number)
        with self._database.transaction(reading=True) as connection:
            return [attempt_of(row) for row in connection.execute(query).mappings()]

    def page(self, wanted: Wanted, offset: int, limit: int) -> tuple[int, list[Attempt]]:
        """Return how many attempts are wanted, and some of them, newest first."""
        table = heal_attempts.c
        asked = {table.number: wanted.number, table.account: wanted.account, table.outcome: wanted.outcome}
        where = [column == value for column, value in asked.items() if value is not None]
        if wanted.since is not None:
            where.append(table.claimed_at >= wanted.since)
        query = select(heal_attempts).where(*where).order_by(table.id.desc()).offset(offset).limit(limit)
        with self._database.transaction(reading=True) as connection:
            total = connection.execute(select(func.count()).select_from(heal_attempts).where(*where)).scalar_one()
            return total, [attempt_of(row) for row in connection.execute(query).mappings()]

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

    def not_sent(self, wish: Wish, result: Result, judge: Judge, after: Next, now: float) -> Attempt | Refused:
        """Record a request that could not be made, as where there was no connection: a row that is over at once.

        `after` is as in `answered`. Nothing is recorded where `judge` names something that speaks against a claim.
        """
        ended = {"status": Status.ENDED, "outcome": result.outcome, "ended_at": now, "reason": result.reason}
        values = {**ended, "charged": result.charged, "feeds": result.feeds}
        return self._insert(wish, judge, now, values, after)

    def begin_send(self, attempt: Attempt, judge: Judge, now: float) -> Refused | None:
        """Turn a claim into `sent`. Only when this returns `None` may the request leave, sent by the claim's holder."""
        with self._database.change() as connection:
            lock(connection, attempt.credential)
            # The claim itself is no reason against its own request.
            facts, record, counts = self._facts_of(connection, attempt, now, but=attempt.id)
            reasons = tuple(judge(facts, record, replace(counts, open=None)))
            if reasons:
                return Refused(reasons)
            if not _change(connection, attempt, (Status.CLAIMED,), status=Status.SENT, sent_at=now):
                return Refused(("its claim is not open any more",))
            return None

    def _insert(
        self, wish: Wish, judge: Judge, now: float, values: Mapping[str, Any], after: Next | None = None
    ) -> Attempt | Refused:
        with self._database.change() as connection:
            lock(connection, wish.credential)
            reasons = tuple(judge(*self._facts_of(connection, wish, now)))
            if reasons:
                return Refused(reasons)
            row = {
                "number": wish.number,
                "account": wish.account,
                "connection": wish.connection,
                "credential": wish.credential,
                "token": str(uuid4()),
                "replica": self.replica,
                "issues": list(wish.issues),
                "heal_issues": list(wish.heal_issues),
                "body": dict(wish.body),
                "manual": wish.manual,
                "charged": False,
                "feeds": False,
                "claimed_at": now,
                "observed_at": now,
                "steps": [],
                "reason": "",
                "broken_since": wish.broken_since,
                "did_id": wish.did_id,
                **values,
            }
            # The indexes on open rows, by number and by did_id, are the last word, whatever was read before.
            query = dialect(connection).insert(heal_attempts).values(**row).on_conflict_do_nothing()
            inserted = connection.execute(query.returning(heal_attempts)).mappings().one_or_none()
            if not inserted:
                return Refused(("an attempt on it is open already",))
            attempt = attempt_of(inserted)
            if after:
                self._note_did(connection, attempt, after, now)
            return attempt

    # After a request

    def answered(self, attempt: Attempt, result: Result, after: Next, now: float) -> bool:
        """Record what became of a request, whoever may have given up on it meanwhile.

        `after` returns what is known of the DID when the attempt ended with it. Returns whether the row was still open.
        """
        with self._database.change() as connection:
            lock(connection, attempt.credential)
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
            self._note_account(connection, attempt.credential, result, now)
            if result.status is Status.ENDED:
                self._note_did(connection, attempt, after, now)
            return True

    def resolve(self, attempt: Attempt, outcome: Outcome, reason: str, after: Next, now: float) -> bool:
        """End an attempt by what the polls saw. Returns whether this call did it."""
        with self._database.change() as connection:
            lock(connection, attempt.credential)
            values = {"status": Status.ENDED, "outcome": outcome, "ended_at": now, "reason": reason}
            open_answered = (Status.VERIFYING, Status.AMBIGUOUS)
            if not _change(connection, attempt, open_answered, owner=False, **values):
                return False
            self._note_did(connection, attempt, after, now)
            return True

    def move(self, before: DidRecord, after: Next, now: float) -> bool:
        """Change what is known of a DID, unless it changed since `before` was read. Returns whether it did."""
        with self._database.change() as connection:
            lock(connection, EVERYBODY)
            record, counts = self._facts.did(Rows(connection), before.number, before, now)
            if record.version != before.version or counts.open is not None:
                return False
            self._put_after(connection, record, after(record, counts))
            return True

    def observed(self, attempts: Iterable[int], at: float, now: float) -> None:
        """Note that a complete poll, which was asked for at a Unix time, listed the DIDs of open attempts.

        A later time that is there already stays, unless it is later than now: then it is a clock's fault.
        """
        noted = heal_attempts.c.observed_at
        older = noted.is_(None) | (noted < at) | (noted > now + SET)
        with self._database.change() as connection:
            seen = heal_attempts.c.id.in_(tuple(attempts)) & older
            connection.execute(update(heal_attempts).where(seen).values(observed_at=at))

    def adopt(self, accounts: Mapping[str, tuple[str, str]]) -> None:
        """Give what was kept by the name of an account, as by version 0.1.0, to the account's credential.

        `accounts` are credential and fingerprint by name. Where both are there, the stricter of the two stays. What was
        refused then had another kind of mark, so that of a latched account's present fingerprint nobody knows: it
        counts as refused, until a person says resume.
        """
        with self._database.change() as connection:
            for account, (credential, fingerprint) in accounts.items():
                lock(connection, credential)
                self._adopt(connection, f"{BY_NAME}{account}", credential, fingerprint)

    @staticmethod
    def _adopt(connection: Connection, name: str, credential: str, fingerprint: str) -> None:
        row = connection.execute(select(heal_credentials).where(credential_row(name))).mappings().one_or_none()
        own = heal_attempts.c.credential == name
        connection.execute(update(heal_attempts).where(own).values(credential=credential))
        if row is None:
            return
        query = select(heal_credentials).where(credential_row(credential))
        known = connection.execute(query).mappings().one()
        latest = ("latched_at", "forbidden_at")
        values = {each: max(row[each], known[each]) for each in latest} | {
            "latched": known["latched"] or row["latched"]
        }
        if row["key_paused_at"] + row["key_paused_for"] > known["key_paused_at"] + known["key_paused_for"]:
            values |= {each: row[each] for each in ("key_paused_at", "key_paused_for")}
        connection.execute(update(heal_credentials).where(credential_row(credential)).values(**values))
        if row["latched"] is not None:
            _refuse(connection, credential, fingerprint, row["latched_at"])
        connection.execute(delete(heal_refusals).where(heal_refusals.c.credential == name))
        connection.execute(delete(heal_credentials).where(credential_row(name)))

    # Replicas

    def heartbeat(self, now: float, busy: Iterable[int] = (), credentials: Iterable[str] = ()) -> Heartbeat:
        """Give a sign of life, take over what replicas without one left behind, and return how things stand then.

        What was only claimed is released: nothing was sent. What may have been sent becomes ambiguous, and stays open.
        `busy` are the attempts that this replica is working on: others of its own were lost on the way.
        """
        with self._database.transaction() as connection:
            upsert(connection, replicas, {"replica": self.replica, "seen_at": now}, ("replica",))
            signs: dict[str, float] = {row.replica: row.seen_at for row in connection.execute(select(replicas))}
            rows, busy = self._rows(connection), frozenset(busy)
            self._facts.notice(rows)
            opened = self._facts.open_attempts(rows)
            under_way = [each for each in opened if each.status in _UNDER_WAY and each.id not in busy]
            orphaned = [each for each in under_way if self._is_orphaned(each, signs, now)]
            released = [each for each in orphaned if self._release_orphan(connection, each, now)]
            if orphaned:
                revise(connection)
                rows = Rows(connection)
                opened = self._facts.open_attempts(rows)
            if self._stamps:
                self._stamps.retain({*signs, *(each.replica for each in under_way), *map(_orphan_key, under_way)})
            gone = [
                name
                for name, seen_at in signs.items()
                if name != self.replica and self._passed(name, seen_at, now) > HOUR
            ]
            if gone:
                connection.execute(delete(replicas).where(replicas.c.replica.in_(gone)))
            opened = self._facts.local(opened)
            accounts = {each: self._facts.account(rows, each, now, opened) for each in dict.fromkeys(credentials)}
            return Heartbeat(tuple(released), tuple(opened), accounts)

    def _is_orphaned(self, attempt: Attempt, signs: Mapping[str, float], now: float) -> bool:
        old = self._passed(_orphan_key(attempt), attempt.claimed_at, now) >= GONE_AFTER
        silent = self._passed(attempt.replica, signs.get(attempt.replica), now) >= GONE_AFTER
        return old and (silent or attempt.replica == self.replica)

    def _passed(self, name: str, stamp: float | None, now: float) -> float:
        """Return for how many seconds something has stood in the store unchanged, whatever the clock of its writer."""
        if self._stamps:
            return self._stamps.unchanged_for(name, stamp)
        return GONE_AFTER if stamp is None else now - stamp

    @staticmethod
    def _release_orphan(connection: Connection, attempt: Attempt, now: float) -> bool:
        """End a claim that nobody sends, or call a request ambiguous that nobody waits for; return which."""
        if attempt.status is Status.CLAIMED:
            reason = f"its replica was gone for {GONE_AFTER:.0f} s before it sent"
            ended: dict[str, Any] = {"status": Status.ENDED, "outcome": Outcome.NOT_SENT, "ended_at": now}
            return _change(connection, attempt, (Status.CLAIMED,), **ended, reason=reason)
        reason = f"its replica was gone for {GONE_AFTER:.0f} s while it waited for the answer"
        unknown: dict[str, Any] = {"status": Status.AMBIGUOUS, "charged": True, "feeds": True, "answered_at": now}
        _change(connection, attempt, (Status.SENT,), **unknown, reason=reason)
        return False

    # People, and what they decide

    def pause(self, reason: str, now: float) -> None:
        """Stop all automatic healing, on every replica."""
        with self._database.change() as connection:
            lock(connection, EVERYBODY)
            connection.execute(update(heal_credentials).where(credential_row(EVERYBODY)).values(paused=reason))
            record_action(connection, now, "pause", None, reason)

    def resume(self, now: float, reason: str = "") -> None:
        """Start healing again; lifts latches too, and forgets who was refused. The budgets go on counting."""
        with self._database.change() as connection:
            lock(connection, EVERYBODY)
            connection.execute(update(heal_credentials).values(paused=None, latched=None))
            connection.execute(update(heal_credentials).where(credential_row(EVERYBODY)).values(resumed_at=now))
            connection.execute(delete(heal_refusals))
            record_action(connection, now, "resume", None, reason)

    def release(self, number: str, reason: str, now: float) -> list[str]:
        """Lift a DID's quarantine or backoff, and end an attempt on it that nobody waits for.

        Returns what was done, in words; nothing where there was nothing to lift.
        """
        done = []
        with self._database.change() as connection:
            lock(connection, EVERYBODY)
            query = select(heal_attempts).where(
                heal_attempts.c.number == number, heal_attempts.c.status != Status.ENDED
            )
            row = connection.execute(query).mappings().one_or_none()
            attempt = attempt_of(row) if row else None
            values = {"status": Status.ENDED, "ended_at": now, "reason": f"released by hand: {reason}"}
            waits_for_polls = (Status.VERIFYING, Status.AMBIGUOUS)
            if attempt and _change(
                connection, attempt, waits_for_polls, owner=False, outcome=Outcome.AMBIGUOUS, **values
            ):
                done.append("ended its open attempt")
            record = self._facts.did(Rows(connection), number, DidRecord(number), now)[0]
            if record.state is not HealState.IDLE:
                done.append(f"lifted {record.state}: {record.reason}")
            if done:
                text = f"released by hand: {reason}"
                fresh = replace(
                    record, state=HealState.IDLE, since=now, until=0.0, failures=0, forgotten_at=now, reason=text
                )
                account = attempt.account if attempt else record.account
                where = attempt.connection if attempt else record.connection
                self._put_after(connection, record, replace(fresh, account=account, connection=where))
                record_action(connection, now, "release", number, reason)
        return done

    def unlatch(self, credential: str, fingerprint: str) -> bool:
        """Lift a latch for a credential and configuration that was never refused. Returns whether it did."""
        refused = select(heal_refusals.c.fingerprint).where(heal_refusals.c.credential == credential)
        with self._database.change() as connection:
            lock(connection, credential)
            if fingerprint in connection.execute(refused).scalars().all():
                return False
            latched = credential_row(credential) & heal_credentials.c.latched.is_not(None)
            return connection.execute(update(heal_credentials).where(latched).values(latched=None)).rowcount == 1

    def pause_key(self, credential: str, seconds: float, now: float) -> None:
        """Note for every replica that the API limits the rate of a key for so many seconds."""
        with self._database.change() as connection:
            lock(connection, credential)
            _pause_key(connection, credential, seconds, now)

    def prune(self, before: float) -> int:
        """Forget attempts that ended before a Unix time; what is open stays. Returns how many."""
        with self._database.change() as connection:
            ended = (heal_attempts.c.status == Status.ENDED) & (heal_attempts.c.ended_at < before)
            count: int = connection.execute(delete(heal_attempts).where(ended)).rowcount
            idle = (heal_dids.c.state == HealState.IDLE) & (heal_dids.c.since < before)
            connection.execute(delete(heal_dids).where(idle))
            forget_actions(connection, before)
            return count

    # Inside a transaction

    def _rows(self, connection: Connection) -> Rows:
        """Return the reader of a transaction that changes nothing of what it reads."""
        self._cache.at(self._database.revision)
        return Rows(connection, self._cache)

    def _open(self, rows: Rows) -> list[Attempt]:
        self._facts.notice(rows)
        return self._facts.local(self._facts.open_attempts(rows))

    def _account(self, rows: Rows, credential: str, now: float, but: int | None = None) -> AccountRecord:
        return self._facts.account(rows, credential, now, self._open(rows), but)

    def _facts_of(
        self, connection: Connection, of: Wish | Attempt, now: float, but: int | None = None
    ) -> tuple[AccountRecord, DidRecord, Counts]:
        """Return what a claim for a DID is judged by: of the DID whatever is known of it by its number or its id."""
        rows = Rows(connection)
        account = self._account(rows, of.credential, now, but)
        return (account, *self._facts.did_by_any_number(rows, of.number, of.did_id, now))

    def _note_did(self, connection: Connection, attempt: Attempt, after: Next, now: float) -> None:
        blank = DidRecord(attempt.number, attempt.account, attempt.connection, broken_since=attempt.broken_since)
        record, counts = self._facts.did(Rows(connection), attempt.number, blank, now)
        known = replace(
            after(record, counts),
            account=attempt.account,
            connection=attempt.connection,
            heal_issues=attempt.heal_issues or record.heal_issues,
            did_id=record.did_id if attempt.did_id is None else attempt.did_id,
        )
        self._put_after(connection, record, known)

    @staticmethod
    def _put_after(connection: Connection, before: DidRecord, after: DidRecord) -> None:
        """Write what is known of a DID now. Where its attempts are forgotten, those until now are."""
        if after.forgotten_at != before.forgotten_at:
            last = select(func.max(heal_attempts.c.id)).where(heal_attempts.c.number == after.number)
            after = replace(after, forgotten_id=connection.execute(last).scalar_one() or 0)
        _put(connection, replace(after, version=before.version + 1))

    def _note_account(self, connection: Connection, credential: str, result: Result, now: float) -> None:
        values: dict[str, Any] = {}
        latch = result.latch
        if result.forbidden:  # decided here, under the lock: several requests may be refused at the same time
            values["forbidden_at"] = now
            query = select(heal_credentials.c.forbidden_at).where(credential_row(credential))
            before = connection.execute(query).scalar_one()
            latch = f"{result.reason}, twice within 10 minutes" if now - before < FORBIDDEN_WITHIN else None
        if latch:
            values |= {"latched": latch, "latched_at": now}
            _refuse(connection, credential, result.fingerprint, now)
        if values:
            connection.execute(update(heal_credentials).where(credential_row(credential)).values(**values))
        if result.key_pause is not None:
            _pause_key(connection, credential, result.key_pause, now)


def _orphan_key(attempt: Attempt) -> str:
    return f"attempt {attempt.id}"


def _refuse(connection: Connection, credential: str, fingerprint: str, now: float) -> None:
    row = {"credential": credential, "fingerprint": fingerprint, "at": now}
    connection.execute(dialect(connection).insert(heal_refusals).values(**row).on_conflict_do_nothing())


def _pause_key(connection: Connection, credential: str, seconds: float, now: float) -> None:
    """Pause a key from now on, unless a pause that began by now lasts longer."""
    table = heal_credentials.c
    shorter = (table.key_paused_at > now) | (table.key_paused_at + table.key_paused_for < now + seconds)
    paused = update(heal_credentials).where(credential_row(credential), shorter)
    connection.execute(paused.values(key_paused_at=now, key_paused_for=seconds))


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
    row = {column.name: getattr(record, column.name) for column in heal_dids.columns}
    upsert(connection, heal_dids, {**row, "heal_issues": list(record.heal_issues)}, ("number",))
