"""States and their changes: they survive a restart, and each counts once however many replicas saw it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

from exporter.store.records import Transition
from tests.support.ledgers import ACCOUNT, CONNECTION, NOW, NUMBER, open_store

if TYPE_CHECKING:
    from exporter.store import Store
    from tests.store.conftest import Open

OTHER = "+918011223345"
HERE = (ACCOUNT, CONNECTION)
FLEET = 10_000


def seen(new: str, at: float, number: str = NUMBER, issues: tuple[str, ...] = ()) -> Transition:
    return Transition(*HERE, number, at, None, new, issues)


def changes(store: Store, number: str = NUMBER) -> list[tuple[float, str | None, str]]:
    return [(change.at - NOW, change.old, change.new) for change in store.history.of(number)]


def test_what_was_known_survives_a_restart(store: Store, url: str) -> None:
    assert store.history.load(*HERE) == {}
    assert store.history.write(*HERE, [seen("READY", NOW), seen("NO_BOT", NOW + 1.5, OTHER, ("NO_BOT",))]) == 2
    assert store.history.write(*HERE, [seen("NO_BOT", NOW + 60.25, issues=("NO_BOT", "ROUTING_MISSING"))]) == 1
    store.close()
    again = open_store(url, "again")
    assert again.history.load(*HERE) == {NUMBER: ("NO_BOT", NOW + 60.25, 1), OTHER: ("NO_BOT", NOW + 1.5, 0)}
    assert again.history.of(NUMBER)[0] == Transition(
        *HERE, NUMBER, NOW + 60.25, "READY", "NO_BOT", ("NO_BOT", "ROUTING_MISSING")
    )
    assert changes(again) == [(60.25, "READY", "NO_BOT"), (0, None, "READY")]
    again.close()


def test_a_change_counts_once_however_many_replicas_saw_it(store: Store, another: Open) -> None:
    two = another("two")
    assert store.history.write(*HERE, [seen("READY", NOW)]) == 1
    assert two.history.write(*HERE, [seen("READY", NOW + 1)]) == 0
    assert store.history.write(*HERE, [seen("NO_BOT", NOW + 60)]) == 1
    assert two.history.write(*HERE, [seen("NO_BOT", NOW + 61)]) == 0
    assert two.history.load(*HERE) == {NUMBER: ("NO_BOT", NOW + 60, 1)}
    assert changes(store) == [(60, "READY", "NO_BOT"), (0, None, "READY")]


def test_replicas_that_write_at_once_count_each_change_once(another: Open) -> None:
    crowd, rounds = 6, 8
    replicas = [another(f"replica-{index}") for index in range(crowd)]
    barrier = Barrier(crowd, timeout=30)

    def write(replica: Store) -> int:
        fresh = 0
        for turn in range(rounds):
            barrier.wait()
            fresh += replica.history.write(*HERE, [seen(f"STATE_{turn}", NOW + turn)])
        return fresh

    with ThreadPoolExecutor(crowd) as threads:
        assert sum(threads.map(write, replicas)) == rounds
    assert replicas[0].history.load(*HERE) == {NUMBER: (f"STATE_{rounds - 1}", NOW + rounds - 1, rounds - 1)}
    assert [new for _, _, new in changes(replicas[0])] == [f"STATE_{turn}" for turn in reversed(range(rounds))]


def test_what_was_seen_while_the_store_was_down_is_caught_up_with_in_order(store: Store) -> None:
    store.history.write(*HERE, [seen("READY", NOW)])
    missed = [
        seen("NO_BOT", NOW + 60),
        seen("NO_BOT", NOW + 60, OTHER),
        seen("READY", NOW + 120),
        seen("READY", NOW + 150, OTHER),
        seen("ROUTING_MISSING", NOW + 180),
    ]
    assert store.history.write(*HERE, missed) == 5
    assert store.history.load(*HERE) == {NUMBER: ("ROUTING_MISSING", NOW + 180, 3), OTHER: ("READY", NOW + 150, 1)}
    assert changes(store) == [
        (180, "READY", "ROUTING_MISSING"),
        (120, "NO_BOT", "READY"),
        (60, "READY", "NO_BOT"),
        (0, None, "READY"),
    ]


def test_what_is_older_than_what_is_known_is_not_believed(store: Store) -> None:
    store.history.write(*HERE, [seen("READY", NOW), seen("NO_BOT", NOW + 60)])
    assert store.history.write(*HERE, [seen("READY", NOW + 30)]) == 0
    assert store.history.load(*HERE) == {NUMBER: ("NO_BOT", NOW + 60, 1)}


def test_who_left_is_forgotten_and_starts_anew(store: Store) -> None:
    store.history.write(*HERE, [seen("READY", NOW), seen("READY", NOW, OTHER), seen("NO_BOT", NOW + 1)])
    assert store.history.write(*HERE, [], [NUMBER, "+918011223300"]) == 0
    assert set(store.history.load(*HERE)) == {OTHER}
    assert len(changes(store)) == 2  # what it went through is still there to be read
    assert store.history.write(*HERE, [seen("NO_BOT", NOW + 60)]) == 1
    assert store.history.load(*HERE)[NUMBER] == ("NO_BOT", NOW + 60, 0)


def test_targets_and_accounts_are_kept_apart(store: Store) -> None:
    places = [(ACCOUNT, CONNECTION), (ACCOUNT, "default"), ("another", CONNECTION)]
    for index, (account, connection) in enumerate(places):
        store.history.write(account, connection, [Transition(account, connection, NUMBER, NOW + index, None, "READY")])
    store.history.write(*places[1], [], [NUMBER])
    known = [store.history.load(*place) for place in places]
    assert known == [{NUMBER: ("READY", NOW, 0)}, {}, {NUMBER: ("READY", NOW + 2, 0)}]


def test_names_of_any_allowed_length_are_kept_whole(store: Store) -> None:
    account, number, state = "ä" * 200, f"did:{10**18}", "A" * 64
    issues = tuple(f"{index:_<64}" for index in range(100))
    store.history.write(account, "default", [Transition(account, "default", number, NOW, None, state, issues)])
    assert store.history.load(account, "default") == {number: (state, NOW, 0)}
    assert store.history.of(number)[0].issues == issues


def test_old_changes_are_forgotten_and_what_is_known_is_not(store: Store) -> None:
    store.history.write(*HERE, [seen("READY", NOW), seen("NO_BOT", NOW + 60)])
    assert store.history.prune(NOW + 60) == 1
    assert changes(store) == [(60, "READY", "NO_BOT")]
    assert store.history.prune(NOW + 61) == 1
    assert store.history.load(*HERE) == {NUMBER: ("NO_BOT", NOW + 60, 1)}


def test_no_more_changes_are_read_than_asked_for(store: Store) -> None:
    store.history.write(*HERE, [seen(f"STATE_{turn}", NOW + turn) for turn in range(5)])
    assert [change.new for change in store.history.of(NUMBER, limit=2)] == ["STATE_4", "STATE_3"]


def test_a_large_fleet_is_written_read_and_changed_in_time(store: Store) -> None:
    fleet = [f"+91{8_000_000_000 + index}" for index in range(FLEET)]
    started = time.monotonic()
    assert store.history.write(*HERE, [seen("READY", NOW, number) for number in fleet]) == FLEET
    assert len(store.history.load(*HERE)) == FLEET
    assert store.history.write(*HERE, [seen("NO_BOT", NOW + 60, number) for number in fleet], fleet[:10]) == FLEET
    assert time.monotonic() - started < 15  # the controller gives each call as long
