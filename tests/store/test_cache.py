"""What a look returns from the cache is what a look without one would have returned."""

from __future__ import annotations

import random
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text

from exporter.errors import StoreError
from exporter.model import HealState, Outcome
from exporter.store.cache import RowCache, Rows
from exporter.store.records import DidRecord, Result, Status, Transition
from tests.support.clock import ManualClock
from tests.support.ledgers import (
    ACCOUNT,
    ANSWERED,
    CONNECTION,
    HOUR,
    KEY_MARK,
    NOT_SENT,
    NOW,
    NUMBER,
    allow,
    claimed,
    counts,
    keep,
    mark,
    open_store,
    quarantined,
    sent,
    verifying,
    wish,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exporter.store import Store
    from tests.store.conftest import Open

OTHER = "+918011223345"
REJECTED = Result(
    Status.ENDED, Outcome.REJECTED, "401", charged=False, feeds=True, latch="401", fingerprint="p", key_pause=60.0
)
CHANGES: dict[str, Callable[[Store], object]] = {
    "claim": claimed,
    "would_send": lambda store: store.ledger.would_send(wish(), allow, NOW),
    "not_sent": lambda store: store.ledger.not_sent(wish(), NOT_SENT, allow, keep, NOW),
    "begin_send": sent,
    "answered": verifying,
    "resolve": lambda store: store.ledger.resolve(verifying(store), Outcome.FAILED, "no", quarantined(), NOW),
    "move": lambda store: store.ledger.move(DidRecord(NUMBER), quarantined(), NOW),
    "observed": lambda store: store.ledger.observed([verifying(store).id], NOW + 60, NOW + 60),
    "adopt": lambda store: store.ledger.adopt({ACCOUNT: (KEY_MARK, "print")}),
    "heartbeat": lambda store: (claimed(store), store.ledger.heartbeat(NOW + HOUR)),
    "pause": lambda store: store.ledger.pause("maintenance", NOW),
    "resume": lambda store: store.ledger.resume(NOW),
    "release": lambda store: (store.ledger.move(DidRecord(NUMBER), quarantined(), NOW), released(store)),
    "unlatch": lambda store: store.ledger.unlatch(KEY_MARK, "print"),
    "pause_key": lambda store: store.ledger.pause_key(KEY_MARK, 60.0, NOW),
    "prune": lambda store: store.ledger.prune(NOW),
}


def released(store: Store) -> list[str]:
    done = store.ledger.release(NUMBER, "looked at it", NOW)
    assert done
    return done


def revision(store: Store) -> str:
    with store.ledger._database.transaction(reading=True) as connection:  # noqa: SLF001 - past the ledger
        found: str = connection.execute(text("SELECT revision FROM store_identity")).scalar_one()
    return found


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    """Collect what a store is asked."""
    asked: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        asked.append(statement)

    engine = store.ledger._database.engine  # noqa: SLF001 - beneath the ledger
    event.listen(engine, "before_cursor_execute", note)
    yield asked
    event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_gives_the_store_another_revision(store: Store, name: str) -> None:
    before = revision(store)
    CHANGES[name](store)
    assert revision(store) != before


def test_every_method_that_changes_something_is_tried(store: Store) -> None:
    reading = {"account", "records", "look", "open_attempts", "history", "page", "window"}
    assert {name for name in dir(store.ledger) if name[0] != "_"} == {*CHANGES, *reading, "replica"}


def test_a_sign_of_life_and_a_state_are_no_change(store: Store, another: Open) -> None:
    sent(store)
    before = revision(store)
    another("two").ledger.heartbeat(NOW)
    store.ledger.heartbeat(NOW, credentials=(KEY_MARK,))
    store.history.write(ACCOUNT, CONNECTION, [Transition(ACCOUNT, CONNECTION, NUMBER, NOW, None, "READY")])
    assert revision(store) == before


def test_a_store_that_nobody_changed_is_asked_for_its_identity_alone(store: Store, another: Open) -> None:
    verifying(store)
    reader = another("two")
    first = reader.ledger.look(KEY_MARK, NOW)
    with statements(reader) as asked:
        assert reader.ledger.look(KEY_MARK, NOW + 9) == first
        assert reader.ledger.account(KEY_MARK, NOW + 9) == first.account
        assert reader.ledger.open_attempts() == list(first.account.open)
    assert {each for each in asked if not each.startswith("BEGIN")} == {
        "SELECT id, accepted_at, revision FROM store_identity"
    }


def test_a_change_by_another_is_seen_at_once(store: Store, another: Open) -> None:
    reader = another("two")
    assert reader.ledger.look(KEY_MARK, NOW).account.open == ()
    attempt = verifying(store)
    assert [each.id for each in reader.ledger.look(KEY_MARK, NOW).account.open] == [attempt.id]
    store.ledger.resolve(attempt, Outcome.FAILED, "no", quarantined(), NOW)
    look = reader.ledger.look(KEY_MARK, NOW)
    assert (look.account.open, look.records[NUMBER].state) == ((), HealState.QUARANTINED)


def test_what_is_too_old_is_left_out_although_it_was_read_once(store: Store) -> None:
    attempt = verifying(store)
    store.ledger.resolve(attempt, Outcome.FAILED, "no", keep, NOW)
    assert store.ledger.account(KEY_MARK, NOW + 60).sent == (NOW,)
    assert store.ledger.account(KEY_MARK, NOW + HOUR + 5).sent == ()
    day = 24 * HOUR
    assert counts(store, now=NOW + day - 1).charged == (NOW,)
    assert counts(store, now=NOW + day).charged == ()


def test_what_a_longer_look_back_needs_is_read(store: Store) -> None:
    attempt = verifying(store)
    store.ledger.resolve(attempt, Outcome.FAILED, "no", keep, NOW)
    assert store.ledger.account(KEY_MARK, NOW + 2 * HOUR).sent == ()
    assert store.ledger.account(KEY_MARK, NOW + 60).sent == (NOW,)  # as where the clock was set back
    store.ledger.window = HOUR
    assert counts(store, now=NOW + 2 * HOUR).charged == ()
    store.ledger.window = 3 * HOUR
    assert counts(store, now=NOW + 2 * HOUR).charged == (NOW,)


def test_another_store_is_read_anew(store: Store, another: Open) -> None:
    """A backup that was put back has the revision that it had, and what is written to it another one."""
    claimed(store)
    kept = revision(store)
    reader = another("two")
    assert len(reader.ledger.open_attempts()) == 1
    claimed(store, OTHER)
    with store.ledger._database.transaction() as connection:  # noqa: SLF001 - as a restore does
        connection.execute(text("DELETE FROM heal_attempts WHERE number = :number"), {"number": OTHER})
        connection.execute(text("UPDATE store_identity SET revision = :kept"), {"kept": kept})
    assert len(reader.ledger.open_attempts()) == 1
    claimed(store, OTHER)
    assert len(reader.ledger.open_attempts()) == 2


def test_a_transaction_that_failed_leaves_nothing_in_the_cache(store: Store) -> None:
    def fail(*_: object) -> Any:  # noqa: ANN401
        raise RuntimeError("a bug")

    attempt = verifying(store)
    before = store.ledger.look(KEY_MARK, NOW)
    with pytest.raises(RuntimeError, match="a bug"):
        store.ledger.resolve(attempt, Outcome.FAILED, "no", fail, NOW)
    assert store.ledger.look(KEY_MARK, NOW) == before


def test_a_cache_of_an_unknown_revision_holds_nothing() -> None:
    cache = RowCache()
    assert not cache.at(None)
    assert not cache.at(None)
    assert not cache.at("one")
    cache.put("key", {"after": 10.0}, [1])
    assert cache.at("one")
    assert cache.get("key", {"after": 10.0}) == [1]
    assert cache.get("key", {"after": 9.0}) is None
    assert cache.get("another", {}) is None
    assert not cache.at("two")
    assert cache.get("key", {"after": 10.0}) is None


def test_what_a_look_that_failed_did_not_take_in_is_taken_in_by_the_next(store: Store, url: str) -> None:
    """Else a row whose clock was behind would be as old as it says."""
    clock = ManualClock(NOW)
    reader = open_store(url, "two", clock)
    assert reader.ledger.open_attempts() == []
    claimed(store, now=NOW - 5 * HOUR)

    def fail(_: object, __: object, statement: str, *___: object) -> None:
        if "heal_attempts" in statement:
            raise StoreError("the disk is away")

    engine = reader.ledger._database.engine  # noqa: SLF001 - beneath the ledger
    event.listen(engine, "before_cursor_execute", fail)
    with pytest.raises(StoreError, match="the disk is away"):
        reader.ledger.open_attempts()
    event.remove(engine, "before_cursor_execute", fail)
    assert [each.claimed_at for each in reader.ledger.open_attempts()] == [NOW]
    reader.close()


def test_rows_without_a_cache_are_read_each_time(store: Store) -> None:
    from exporter.store.facts import _OPEN  # noqa: PLC0415 - any query

    with store.ledger._database.transaction() as connection:  # noqa: SLF001
        rows = Rows(connection)
        assert not rows.all(_OPEN)
        claim = "INSERT INTO heal_attempts (number, account, connection, status, token, replica, issues, body, manual, "
        more = "charged, feeds, claimed_at, steps, reason) VALUES ('1', '', '', 'sent', '', '', '[]', '{}', "
        no = "false" if connection.dialect.name == "postgresql" else "0"
        connection.execute(text(f"{claim}{more}{no}, {no}, {no}, 1, '[]', '')"))
        assert len(rows.all(_OPEN)) == 1


class World:
    """Two replicas that change a store, each by its own clock, and one that only looks; every look is compared."""

    def __init__(self, url: str, rng: random.Random) -> None:
        self.rng = rng
        self.url = url
        self.clocks = [ManualClock(NOW) for _ in range(3)]
        self.stores = [open_store(url, f"replica {index}", clock) for index, clock in enumerate(self.clocks)]
        self.numbers = [NUMBER, OTHER, "+918011223346"]

    def step(self) -> None:
        which = self.rng.randrange(2)
        store, now, number = self.stores[which], self.clocks[which].time(), self.rng.choice(self.numbers)
        opened = [each for each in store.ledger.open_attempts() if each.number == number]
        if not opened:
            store.ledger.claim(wish(number, self.rng.choice((ACCOUNT, "other"))), allow, now)
        elif opened[0].status is Status.CLAIMED:
            store.ledger.begin_send(opened[0], allow, now)
        elif opened[0].status is Status.SENT:
            store.ledger.answered(opened[0], self.rng.choice([ANSWERED, NOT_SENT, REJECTED]), self.after(now), now)
        else:
            outcome = self.rng.choice([Outcome.FAILED, Outcome.SUCCEEDED])
            store.ledger.resolve(opened[0], outcome, "polls", self.after(now), now)
        if self.rng.random() < 0.2:
            others: list[Callable[[], object]] = [
                lambda: store.ledger.release(number, "seen", now),
                lambda: store.ledger.pause("why", now),
                lambda: store.ledger.resume(now),
                lambda: store.ledger.pause_key(mark("other"), 60.0, now),
                lambda: store.ledger.prune(now - 2 * HOUR),
                lambda: store.ledger.heartbeat(now, (), (KEY_MARK,)),
            ]
            self.rng.choice(others)()

    async def pass_time(self) -> None:
        seconds = self.rng.choice([0.0, 1.0, 60.0, 1800.0, 3 * HOUR])
        for clock in self.clocks:
            await clock.advance(seconds)
        if self.rng.random() < 0.1:
            self.rng.choice(self.clocks).set_by(self.rng.choice([-HOUR, -5.0, 5.0, HOUR]))

    def after(self, now: float) -> Any:  # noqa: ANN401 - a function
        state = self.rng.choice([HealState.BACKOFF, HealState.QUARANTINED])
        return lambda record, _: replace(record, state=state, since=now, until=now + HOUR)

    def compare(self) -> None:
        looking, credential = self.stores[2], self.rng.choice([KEY_MARK, mark("other")])
        now = self.clocks[2].time()
        told = looking.ledger.look(credential, now)
        looking.ledger._cache.clear()  # noqa: SLF001 - nothing was read before
        anew = looking.ledger.look(credential, now)
        assert told == anew

    def close(self) -> None:
        for store in self.stores:
            store.close()


@pytest.mark.parametrize("seed", range(6))
async def test_a_look_from_the_cache_is_a_look_at_the_store(url: str, seed: int) -> None:
    with closing(World(url, random.Random(seed))) as world:  # noqa: S311 - the same each time
        for _ in range(60):
            world.step()
            for _ in range(world.rng.randrange(3)):
                await world.pass_time()
                world.compare()


@pytest.mark.parametrize("believing", [True, False])
def test_a_claim_is_no_older_than_the_one_before_it(store: Store, url: str, *, believing: bool) -> None:
    """As where the clock of the replica that made it was hours behind, and who reads it has just started."""
    for number, at in ((NUMBER, NOW), (OTHER, NOW - 5 * HOUR)):
        attempt = verifying(store, number, now=at)
        assert store.ledger.resolve(attempt, Outcome.FAILED, "no", keep, at)
    reader = open_store(url, "new", None if believing else ManualClock(NOW + 600), attempts_window="2h")
    look = reader.ledger.look(KEY_MARK, NOW + 600)
    assert look.account.sent == (NOW, NOW)
    assert look.counts[OTHER].charged == (NOW,)
    late = reader.ledger.look(KEY_MARK, NOW + HOUR + 10) if believing else None
    assert late is None or late.account.sent == ()
    reader.close()


def test_a_claim_in_the_future_makes_no_other_one_later(store: Store, url: str) -> None:
    for number, at in ((NUMBER, NOW + HOUR), (OTHER, NOW - 2 * HOUR)):
        attempt = verifying(store, number, now=at)
        assert store.ledger.resolve(attempt, Outcome.FAILED, "no", keep, at)
    reader = open_store(url, "new", ManualClock(NOW))
    assert reader.ledger.account(KEY_MARK, NOW).sent == (NOW,)  # the one in the future is read as now
    reader.close()


async def test_a_claim_counts_from_the_look_that_showed_it_first(store: Store, url: str) -> None:
    """As where a clock is behind by less than passed since the look before: nothing contradicts what it wrote."""
    clock = ManualClock(NOW)
    reader = open_store(url, "two", clock, attempts_window="2h")
    reader.ledger.look(KEY_MARK, clock.time())
    await clock.advance(40.0)
    attempt = verifying(store, now=clock.time() - 24.0)
    assert store.ledger.resolve(attempt, Outcome.FAILED, "no", keep, clock.time() - 24.0)
    store.ledger.would_send(wish(OTHER), allow, clock.time() - 24.0)
    reader.ledger.look(KEY_MARK, clock.time())
    await clock.advance(HOUR - 8.0)
    look = reader.ledger.look(KEY_MARK, clock.time())
    assert (look.account.sent, look.account.would) == ((NOW + 40.0,), (NOW + 40.0,))
    assert (look.counts[NUMBER].charged, look.counts[OTHER].would_at) == ((NOW + 40.0,), NOW + 40.0)
    reader.close()
