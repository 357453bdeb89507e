"""The fleet as one flat list of numbers: filtered, sorted and paged. Pure."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from exporter.numbers import MAX_LENGTH, to_e164

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from exporter.model import Did, Target
    from exporter.snapshots import Fleet
    from exporter.web.query import DidQuery

_SPELLING: Final = re.compile(r"\+?[0-9 ().-]*[0-9][0-9 ().-]*", re.ASCII)
_SEPARATORS: Final = re.compile(r"[ ().-]")
_IDLE: Final = "idle"


@dataclass(frozen=True, slots=True)
class Row:
    """A number under a target. `text` is what a search looks through, in small letters."""

    target: Target
    did: Did
    text: str


class Rows:
    """All rows of a fleet, by target and number, with the counts that a page begins with.

    Built anew from the rows of the fleet before, of which those that nothing is new about stay.
    """

    def __init__(self, fleet: Fleet, before: Rows | None = None) -> None:
        self.fleet = fleet
        self.by_target: dict[Target, dict[str, Row]] = {}
        for target in sorted(fleet.targets, key=place):
            state = fleet.targets[target]
            old = before.by_target.get(target, {}) if before else {}
            dids = state.snapshot.dids if state.snapshot else {}
            self.by_target[target] = {number: _row(target, did, old.get(number)) for number, did in dids.items()}
        every = (row for rows in self.by_target.values() for row in rows.values())
        self.all: tuple[Row, ...] = tuple(sorted(every, key=_by_number))  # whatever else orders them keeps this
        self.ready = sum(row.did.ready for row in self.all)

    @cached_property
    def states(self) -> Counter[str]:
        """How many are in each state."""
        return Counter(row.did.state for row in self.all)

    @cached_property
    def issues(self) -> Counter[str]:
        """How many have each issue."""
        return Counter(code for row in self.all for code in row.did.codes)

    @cached_property
    def heals(self) -> Counter[str]:
        """How many are where in their heal; those that are idle aren't counted."""
        return Counter(row.did.heal for row in self.all if row.did.heal)

    @cached_property
    def labels(self) -> list[str]:
        """The user's labels, each as `name=value`."""
        return sorted({f"{name}={value}" for row in self.all for name, value in row.did.labels})

    @cached_property
    def by_label(self) -> Mapping[str, Sequence[Row]]:
        """The rows of each number, by how it is shown."""
        found: dict[str, list[Row]] = {}
        for row in self.all:
            found.setdefault(row.did.label, []).append(row)
        return found


def _row(target: Target, did: Did, old: Row | None) -> Row:
    if old is not None and old.did is did:
        return old
    entry = did.entry
    parts = (did.label, entry.friendly_name, entry.agent_name, entry.bot_name, str(entry.did_id or ""))
    return Row(target, did, "\n".join(parts).lower())


@dataclass(frozen=True, slots=True)
class Selection:
    """One page of rows, and how many there are on all pages."""

    rows: tuple[Row, ...]
    total: int
    page: int
    per_page: int

    @property
    def pages(self) -> int:
        """How many pages there are; at least 1."""
        return max(1, -(-self.total // self.per_page))


def select(rows: Rows, query: DidQuery, label: Callable[[str], str] = str) -> Selection:
    """Return the rows that a query asks for. `label` says how a number is shown."""
    found: Iterable[Row] = rows.all
    for test in _tests(query, label):
        found = filter(test, found)
    ordered: list[Row] = list(found)
    sort: str = query.sort or "number"
    if sort != "number":
        ordered.sort(key=_keys(rows.fleet)[sort.removeprefix("-")], reverse=sort.startswith("-"))
    start = (query.page - 1) * query.per_page
    return Selection(tuple(ordered[start : start + query.per_page]), len(ordered), query.page, query.per_page)


def searched(text: str, label: Callable[[str], str]) -> str:
    """Return what to search for where somebody typed this: a whole number becomes what it is shown as."""
    number = to_e164(text) if len(text) <= MAX_LENGTH else None
    shown = label(number) if number else ""
    return shown if number and shown != number else text


def _tests(query: DidQuery, label: Callable[[str], str]) -> Iterable[Callable[[Row], bool]]:
    if query.q is not None:
        yield _search(searched(query.q, label))
    if query.account is not None:
        yield lambda row: row.target.account == query.account
    if query.connection is not None:
        yield lambda row: row.target.connection == query.connection
    if query.state is not None:
        yield lambda row: row.did.state == query.state
    if query.issue is not None:
        yield lambda row: query.issue in row.did.codes
    if query.ready is not None:
        yield lambda row: row.did.ready is (query.ready == "true")
    if query.heal is not None:
        yield lambda row: (row.did.heal or _IDLE) == query.heal
    for pair in query.label:
        name, _, value = pair.partition("=")
        yield lambda row, wanted=(name, value): wanted in row.did.labels  # type: ignore[misc] # a default binds it


def _search(text: str) -> Callable[[Row], bool]:
    needle = text.strip().lower()
    digits = _SEPARATORS.sub("", needle) if _SPELLING.fullmatch(needle) else needle
    return lambda row: needle in row.text or digits in row.text


def place(target: Target) -> tuple[str, str]:
    """Return what targets are ordered by."""
    return target.account, target.connection


def _by_number(row: Row) -> tuple[str, tuple[str, str]]:
    return row.did.label, place(row.target)


def _keys(fleet: Fleet) -> Mapping[str, Callable[[Row], Any]]:
    names = {target: connection.name for target, connection in fleet.connections.items()}
    return {
        "number": _by_number,
        "state": lambda row: (row.did.ready, row.did.state),
        "since": lambda row: row.did.since,
        "changes": lambda row: row.did.changes,
        "connection": lambda row: (row.target.account, names.get(row.target, "").lower(), row.target.connection),
        "name": lambda row: row.did.entry.friendly_name.lower(),
    }
