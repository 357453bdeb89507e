"""A store on a database of a test's own, and short ways to fill its ledger."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from exporter.config import Config
from exporter.model import HealState, Outcome
from exporter.store import Store
from exporter.store.records import Attempt, Counts, Result, Status, Wish

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.clock import Clock
    from exporter.store.records import AccountRecord, DidRecord

NOW = 1_800_000_000.0
HOUR = 3600.0
NUMBER = "+918011223344"
ACCOUNT = "main"
CONNECTION = "f4df9f8c-df95-46d8-bb0e-6f9f83fd4f55"
ISSUES = ("NO_BOT",)
KEY_MARK = "mark of the key of main"  # as `exporter.accounts.credential` makes one of a key


def open_store(url: str, replica: str = "one", clock: Clock | None = None, **heal: Any) -> Store:  # noqa: ANN401 - any key of `heal`
    """Return a store whose schema is there."""
    store = Store(Config.model_validate({"store": {"url": url}, "heal": heal}), replica, clock)
    store.open()
    return store


def allow(_: AccountRecord, __: DidRecord, ___: Counts) -> Iterable[str]:
    """Judge that nothing speaks against it."""
    return ()


def keep(record: DidRecord, _: Counts) -> DidRecord:
    """Leave what is known of a DID as it is."""
    return record


def mark(account: str) -> str:
    """Return the mark of the key of an account that shares it with no other."""
    return f"mark of the key of {account}"


def wish(number: str = NUMBER, account: str = ACCOUNT, **more: Any) -> Wish:  # noqa: ANN401 - any field
    """Return the wish to heal a DID."""
    asked = Wish(number, account, CONNECTION, ISSUES, {"did_id": 812}, credential=mark(account), heal_issues=ISSUES)
    return replace(asked, **more)


def claimed(store: Store, number: str = NUMBER, account: str = ACCOUNT, now: float = NOW) -> Attempt:
    """Claim a DID, against no objection."""
    attempt = store.ledger.claim(wish(number, account), allow, now)
    assert isinstance(attempt, Attempt), attempt
    return attempt


def sent(store: Store, number: str = NUMBER, account: str = ACCOUNT, now: float = NOW) -> Attempt:
    """Claim a DID, and turn the claim into `sent`."""
    attempt = claimed(store, number, account, now)
    assert store.ledger.begin_send(attempt, allow, now) is None
    return attempt


def verifying(store: Store, number: str = NUMBER, account: str = ACCOUNT, now: float = NOW) -> Attempt:
    """Claim, send and have an answer."""
    attempt = sent(store, number, account, now)
    assert store.ledger.answered(attempt, ANSWERED, keep, now)
    return attempt


def ended(store: Store, outcome: Outcome, number: str = NUMBER, account: str = ACCOUNT, now: float = NOW) -> Attempt:
    """Claim, send, have an answer and have the polls decide."""
    attempt = verifying(store, number, account, now)
    assert store.ledger.resolve(attempt, outcome, "the polls decided", keep, now)
    return attempt


def row(store: Store, attempt: Attempt) -> Attempt:
    """Return an attempt as the ledger has it now."""
    (found,) = (each for each in store.ledger.history(attempt.number) if each.id == attempt.id)
    return found


def did(store: Store, number: str = NUMBER, now: float = NOW) -> DidRecord:
    """Return what is known of a DID."""
    return store.ledger.records(now)[0][number]


def counts(store: Store, number: str = NUMBER, now: float = NOW) -> Counts:
    """Return what counts of a DID's attempts."""
    return store.ledger.records(now)[1].get(number, Counts())


def quarantined(reason: str = "three attempts") -> Any:  # noqa: ANN401 - a function
    """Return a change of a DID's record to quarantined."""
    return lambda record, _: replace(record, state=HealState.QUARANTINED, since=NOW, reason=reason)


ANSWERED = Result(Status.VERIFYING, None, "answered with ready: true; the polls decide", charged=True, feeds=True)
NOT_SENT = Result(Status.ENDED, Outcome.NOT_SENT, "nothing was sent", charged=False, feeds=False)
