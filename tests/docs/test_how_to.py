"""What a person may meet at night has a heading: each guard, each outcome, each reason of a failed poll."""

from __future__ import annotations

import pytest

from exporter.errors import Reason
from exporter.heal.guards import FORCEABLE
from exporter.model import Guard, HealState, Outcome
from exporter.store.records import Status
from tests.support.markdown import below, codes, read, rows, section

HEAL = "docs/how-to/heal.md"
TROUBLESHOOT = "docs/how-to/troubleshoot.md"
HEADINGS = [
    (HEAL, "When a guard is active", {guard.value for guard in Guard}),
    (HEAL, "What came of a heal", {outcome.value for outcome in Outcome}),
    (TROUBLESHOOT, "When polls fail", {reason.value for reason in Reason}),
]
TABLES = [
    (HEAL, "What healing does", "State", {state.value for state in HealState}),
    (HEAL, "Read the ledger", "`status`", {status.value for status in Status}),
]


def headings(text: str, title: str) -> set[str]:
    """Return what has a heading of its own within a section, and something below it."""
    return {each.title.strip("`") for each in below(text, title) if each.text.strip()}


def first_cells(text: str, title: str, column: str) -> set[str]:
    return {codes(row[column])[0] for row in rows(section(text, title).text) if column in row}


@pytest.mark.parametrize(("page", "title", "names"), HEADINGS)
def test_each_has_its_heading_and_no_other_has(page: str, title: str, names: set[str]) -> None:
    assert headings(read(page), title) == names


@pytest.mark.parametrize(("page", "title", "column", "names"), TABLES)
def test_each_has_its_row_and_no_other_has(page: str, title: str, column: str, names: set[str]) -> None:
    assert first_cells(read(page), title, column) == names


@pytest.mark.parametrize(("page", "title", "names"), HEADINGS)
def test_a_heading_too_few_or_too_many_is_noticed(page: str, title: str, names: set[str]) -> None:
    text = read(page)
    for name in names:
        assert headings(text.replace(f"### `{name}`\n", "", 1), title) == names - {name}
    assert headings(text.replace(f"## {title}\n", f"## {title}\n\n### `new`\n\nText.\n", 1), title) == names | {"new"}


@pytest.mark.parametrize(("page", "title", "column", "names"), TABLES)
def test_a_row_too_few_is_noticed(page: str, title: str, column: str, names: set[str]) -> None:
    text = read(page)
    for name in names:
        assert first_cells(text.replace(f"\n| `{name}` |", "\n| `x` |"), title, column) == (names - {name}) | {"x"}


def test_what_force_does_not_pass_is_said() -> None:
    held = {f"`{guard}`" for guard in set(Guard) - FORCEABLE}
    told = section(read(HEAL), "Heal by hand").text
    assert held == {"`store`", "`rate_limited`", "`stale`"}
    assert all(guard in told for guard in held)
