"""What the table shows: which numbers, in which order, on which page."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from exporter.model import Connection, HealState
from exporter.snapshots import Healing, annotate, expire, labeller
from exporter.web.query import BadQueryError, DidQuery, HealQuery, Paged
from exporter.web.rows import Rows, searched, select
from tests.support.fleet import NOW, ONE, THREE, TWO, A, B, entry, fleet_of, polled, watch

if TYPE_CHECKING:
    from exporter.snapshots import Fleet

FOUR = "+14155550100"


@pytest.fixture
def fleet() -> Fleet:
    """Return four numbers under two connections of which one is broken, one expired and one unknown to the API."""
    by = watch(ONE, TWO, THREE, 900, team="sales")
    fleet = polled(
        fleet_of(A, B),
        A,
        entry(ONE, friendly_name="Hotline", agent_name="Asha", did_id=800),
        entry(TWO, "NO_BOT", "NO_BOT", "ROUTING_MISSING", friendly_name="back office", bot_name="Night bot"),
        by=by,
    )
    fleet = polled(fleet, B, entry(THREE, "SUSPENDED", friendly_name="Ärger"), entry(FOUR, did_id=900), by=by)
    fleet = fleet.with_target(annotate(fleet.targets[A], Healing(), {TWO: HealState.BACKOFF}))
    return replace(fleet, connections={A: Connection(A.connection, "Zulu"), B: Connection(B.connection, "alpha")})


def numbers(fleet: Fleet, **asked: object) -> list[str]:
    return [row.did.number for row in select(Rows(fleet), DidQuery.model_validate(asked)).rows]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, [FOUR, ONE, TWO, THREE]),
        ({"q": "3344"}, [ONE]),
        ({"q": "+91 80-1122 (3345)"}, [TWO]),
        ({"q": "918011"}, [ONE, TWO, THREE]),
        ({"q": "HOT"}, [ONE]),
        ({"q": "asha"}, [ONE]),
        ({"q": "night BOT"}, [TWO]),
        ({"q": "ärger"}, [THREE]),
        ({"q": "800"}, [ONE]),
        ({"q": "  hotline "}, [ONE]),
        ({"q": "-"}, []),
        ({"q": "."}, []),
        ({"account": "default"}, [FOUR, ONE, TWO, THREE]),
        ({"account": "another"}, []),
        ({"connection": A.connection}, [ONE, TWO]),
        ({"state": "NO_BOT"}, [TWO]),
        ({"state": "NO_B"}, []),
        ({"issue": "ROUTING_MISSING"}, [TWO]),
        ({"issue": "SUSPENDED"}, [THREE]),
        ({"ready": "true"}, [FOUR, ONE]),
        ({"ready": "false"}, [TWO, THREE]),
        ({"label": ["team=sales"]}, [FOUR, ONE, TWO, THREE]),
        ({"label": ["team=sale"]}, []),
        ({"label": ["team=sales", "team=support"]}, []),
        ({"heal": "backoff"}, [TWO]),
        ({"heal": "idle"}, [FOUR, ONE, THREE]),
        ({"ready": "false", "connection": A.connection}, [TWO]),
        ({"sort": "number"}, [FOUR, ONE, TWO, THREE]),
        ({"sort": "-number"}, [THREE, TWO, ONE, FOUR]),
        ({"sort": "state"}, [TWO, THREE, FOUR, ONE]),
        ({"sort": "-state"}, [FOUR, ONE, THREE, TWO]),
        ({"sort": "name"}, [FOUR, TWO, ONE, THREE]),
        ({"sort": "-name"}, [THREE, ONE, TWO, FOUR]),
        ({"sort": "connection"}, [FOUR, THREE, ONE, TWO]),
        ({"sort": "-changes"}, [FOUR, ONE, TWO, THREE]),
        ({"sort": "since"}, [FOUR, ONE, TWO, THREE]),
        ({"per_page": 3}, [FOUR, ONE, TWO]),
        ({"per_page": 3, "page": 2}, [THREE]),
        ({"per_page": 3, "page": 3}, []),
        ({"per_page": 1, "page": 2, "sort": "-number", "ready": "false"}, [TWO]),
    ],
)
def test_what_is_asked_for_is_found_in_order(fleet: Fleet, asked: dict[str, Any], found: list[str]) -> None:
    assert numbers(fleet, **asked) == found


def test_what_changed_last_comes_first_when_asked_for(fleet: Fleet) -> None:
    by = watch(ONE, TWO, THREE, 900, team="sales")
    fleet = polled(fleet, A, entry(ONE, "NO_BOT"), entry(TWO, "NO_BOT"), by=by, at=NOW + 120)
    assert numbers(fleet, sort="-since")[0] == ONE
    assert numbers(fleet, sort="-changes")[0] == ONE


def test_the_pages_are_counted(fleet: Fleet) -> None:
    found = select(Rows(fleet), DidQuery(page=2, per_page=3))
    assert (found.total, found.pages, found.page, found.per_page) == (4, 2, 2, 3)
    assert select(Rows(fleet), DidQuery(state="NOTHING")).pages == 1
    assert select(Rows(fleet), DidQuery(per_page=4)).pages == 1


def test_rows_that_nothing_is_new_about_stay_the_same(fleet: Fleet) -> None:
    before = Rows(fleet)
    again = polled(
        *(fleet, A, entry(ONE, "NO_BOT"), fleet.targets[A].memory[TWO].entry),
        by=watch(ONE, TWO, team="sales"),
        at=NOW + 99,
    )
    after = Rows(again, before)
    assert after.by_target[A][TWO] is before.by_target[A][TWO]
    assert after.by_target[A][ONE] is not before.by_target[A][ONE]
    assert after.by_target[B][THREE] is before.by_target[B][THREE]


def test_the_counts(fleet: Fleet) -> None:
    rows = Rows(fleet)
    assert (len(rows.all), rows.ready) == (4, 2)
    assert rows.states == {"READY": 2, "NO_BOT": 1, "SUSPENDED": 1}
    assert rows.issues == {"NO_BOT": 1, "ROUTING_MISSING": 1, "SUSPENDED": 1}
    assert rows.heals == {"backoff": 1}
    assert rows.labels == ["team=sales"]
    assert [row.target for row in rows.by_label[ONE]] == [A]


def test_data_that_is_too_old_is_not_shown(fleet: Fleet) -> None:
    stale = fleet.with_target(expire(fleet.targets[A], NOW + 1000, 300))
    assert numbers(stale) == [FOUR, THREE]


def test_a_number_under_two_targets_is_two_rows() -> None:
    fleet = polled(polled(fleet_of(B, A), A, entry(ONE)), B, entry(ONE, "NO_BOT"))
    assert [row.target for row in select(Rows(fleet), DidQuery()).rows] == [A, B]
    assert [row.target for row in Rows(fleet).by_label[ONE]] == [A, B]


def test_a_hash_is_found_by_the_whole_number_and_by_no_part_of_it() -> None:
    by = watch(hash_key=b"k" * 16)
    rows, label = Rows(polled(fleet_of(A), A, entry(ONE), by=by)), labeller(b"k" * 16)
    for typed, count in ((ONE, 1), ("91 80 1122 3344", 1), (label(ONE), 1), ("8011223344", 0), ("1122", 0), (TWO, 0)):
        assert select(rows, DidQuery(q=typed), label).total == count, typed
    assert searched(" +91 8011223344", label) == label(ONE)
    assert searched("Hotline", label) == "Hotline"
    assert searched("+91 8011223344", str) == "+91 8011223344"


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        ([("page", "0")], {"page"}),
        ([("page", "x"), ("per_page", "1001")], {"page", "per_page"}),
        ([("per_page", "-1")], {"per_page"}),
        ([("sort", "age")], {"sort"}),
        ([("state", "no_bot")], {"state"}),
        ([("issue", "A" * 65)], {"issue"}),
        ([("ready", "yes")], {"ready"}),
        ([("heal", "broken")], {"heal"}),
        ([("label", "team")], {"label"}),
        ([("label", "=sales")], {"label"}),
        ([("label", f"a{n}=b") for n in range(11)], {"label"}),
        ([("q", "x" * 201)], {"q"}),
        ([("q", "a\x00")], {"q"}),
        ([("color", "red")], {"color"}),
        ([("state", "READY"), ("state", "NO_BOT")], {"state"}),
    ],
)
def test_what_cannot_be_asked_for_is_named(given: list[tuple[str, str]], problems: set[str]) -> None:
    with pytest.raises(BadQueryError) as caught:
        DidQuery.read(given)
    assert {name for name, _ in caught.value.problems} == problems
    assert all(message for _, message in caught.value.problems)


def test_what_a_form_leaves_empty_is_not_asked_for() -> None:
    empty = [(name, "") for name in ("q", "state", "page", "per_page", "label", "nonsense")]
    assert DidQuery.read(empty) == DidQuery()
    assert DidQuery.read([("label", "a=b"), ("label", "c=")]).label == ["a=b", "c="]
    assert HealQuery.read([("outcome", "failed"), ("page", "3")]).page == 3
    assert Paged.read([]) == Paged(page=1, per_page=100)
