"""`heal history`, `pause`, `release` and `resume`: what the ledger says, and a person's own word in it.

They ask the API nothing. They share the store with the daemon, and none but `resume --new-store` makes one.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from exporter.cli.output import plain, print_table
from exporter.clock import SystemClock
from exporter.config import parse_duration
from exporter.errors import NoStoreError, StartupError
from exporter.model import Outcome
from exporter.numbers import canonical
from exporter.store import Store
from exporter.store.records import Wanted as AttemptFilter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from exporter.clock import Clock
    from exporter.config import Settings
    from exporter.store.records import Attempt

DONE, NO = 0, 1


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows `heal history` was asked for; `since` is a duration."""

    number: str | None
    since: str | None
    outcome: str | None
    limit: int


def history(settings: Settings, asked: Filter, output: str) -> int:
    """Print the ledger, newest first, and as a table also what people did by hand. Returns 0."""
    number = number_of(asked.number) if asked.number else None
    since = _since(asked.since) if asked.since else None
    outcome = Outcome(asked.outcome) if asked.outcome else None
    with _attached(settings) as store:
        _, attempts = store.ledger.page(AttemptFilter(number, outcome=outcome, since=since), 0, asked.limit)
        by_hand = store.actions(number, since or 0.0, asked.limit)
    if output == "json":
        print(json.dumps([_attempt_as_json(each) for each in attempts], ensure_ascii=False, indent=2))  # noqa: T201
        return DONE
    table = Table("attempt", "number", "issues", "claimed", "sent", "HTTP", "status", "outcome", "why")
    for attempt in attempts:
        cells = (
            *(str(attempt.id), attempt.number, " ".join(attempt.issues)),
            *(moment(attempt.claimed_at), moment(attempt.sent_at), str(attempt.http_status or "")),
            *(attempt.status.value, attempt.outcome.value if attempt.outcome else "", attempt.reason),
        )
        table.add_row(*(Text(plain(cell)) for cell in cells))
    print_table(table)
    if by_hand and not outcome:
        table = Table("at", "by hand", "number", "why")
        for each in by_hand:
            said = (moment(each.at), each.action.replace("_", " "), each.number or "", each.reason)
            table.add_row(*(Text(plain(cell)) for cell in said))
        print_table(table)
    return DONE


def _since(text: str) -> float:
    try:
        return SystemClock().time() - parse_duration(text).total_seconds()
    except ValueError as error:
        raise StartupError(f"--since: {error}") from None


def release(settings: Settings, number: str, reason: str) -> int:
    """Lift a DID's quarantine or backoff. Returns 0 when there was something to lift, else 1."""
    which = number_of(number)
    with _attached(settings) as store:
        done = store.ledger.release(which, reason, SystemClock().time())
        under_way = [each for each in store.ledger.open_attempts() if each.number == which]
    print("; ".join(done) if done else _why_not_lifted(under_way))  # noqa: T201
    return DONE if done else NO


def _why_not_lifted(under_way: Sequence[Attempt]) -> str:
    """Say why a release lifted nothing: a request that is under way can't be called back."""
    if not under_way:
        return "there is nothing to lift"
    attempt = under_way[0]
    return (
        f"the request of attempt {attempt.id} is under way ({attempt.status}): say it again once that is answered, or "
        "a minute after its process ended"
    )


def pause(settings: Settings, reason: str) -> int:
    """Stop all automatic healing. Returns 0."""
    with _attached(settings) as store:
        store.ledger.pause(reason, SystemClock().time())
    print("healing is paused on every replica that shares this store; start again with heal resume")  # noqa: T201
    return DONE


def resume(settings: Settings, reason: str, *, new_store: bool) -> int:
    """Start automatic healing again; with `new_store` on the store that is there now, or a new one. Returns 0."""
    if new_store:
        with closing(store_of(settings)) as store:
            made = store.begin_anew(reason)
            _say_store(store)
            store.ledger.resume(SystemClock().time(), reason)
        what = "a new store was made" if made else "the store that is there now is to be used"
        print(f"{what}: a daemon that had opened another one goes on with it within 10 seconds, as after a start")  # noqa: T201
        print("what only that other one knew, as pauses, quarantines and counts, is gone")  # noqa: T201
        return DONE
    with _attached(settings) as store:
        store.ledger.resume(SystemClock().time(), reason)
    print("healing goes on; the budgets count what was sent before")  # noqa: T201
    return DONE


def number_of(text: str) -> str:
    """Return a number that was typed as E.164. Raises `StartupError`."""
    number = canonical(text)
    if number is None:
        raise StartupError(f'{text!r:.60} is not a phone number; write it with its country code, as "+918011223344"')
    return number


def store_of(settings: Settings, clock: Clock | None = None) -> Store:
    """Return the store that the configuration names, unopened; `clock` is for commands that decide by its times."""
    return Store(settings.config, clock=clock, problem=settings.store_problem)


def attach(store: Store) -> None:
    """Use the store of a daemon and say which one it is. Raises `NoStoreError` where there is none: none is made."""
    try:
        store.attach()
    except NoStoreError as error:
        raise NoStoreError(
            f"{error}; a daemon makes it when it starts. If the daemon's is elsewhere, name it: with --config.file, "
            "with store.url in the configuration, or with VOICELINK_STORE_URL. If it was here and a daemon runs, it is "
            "lost, with every pause and quarantine in it: bring it back, or say heal resume --new-store"
        ) from None
    _say_store(store)


def _say_store(store: Store) -> None:
    print(f"store: {store.name}", file=sys.stderr)  # noqa: T201


@contextmanager
def _attached(settings: Settings) -> Iterator[Store]:
    with closing(store_of(settings)) as store:
        attach(store)
        yield store


def moment(at: float | None) -> str:
    """Return a Unix time for a person to read, in UTC; an empty string where there is none."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if at else ""


def _attempt_as_json(attempt: Attempt) -> dict[str, Any]:
    shown = {key: value for key, value in asdict(attempt).items() if key != "token"}
    return {**shown, "status": attempt.status.value, "outcome": attempt.outcome and attempt.outcome.value}
