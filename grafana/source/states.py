"""What states look like and, where a panel needs numbers, which one stands for each: one place for all dashboards."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CALM: Final = "#3a3f45"  # what needs no look
REST: Final = "OTHER"  # the API's set of states is open: whatever has no colour of its own is shown as this


class State(Enum):
    """A state of a DID: its colour. The order is that of the numbers that stand for the states in timelines."""

    READY = "green"
    NO_BOT = "red"
    ROUTING_MISSING = "orange"
    NO_VOCOBASE_AGENT = "yellow"
    MISSING = "purple"
    OTHER = "blue"


class HealState(Enum):
    """Where a DID is in its heal: its colour."""

    pending = "yellow"
    in_flight = "blue"
    verifying = "light-blue"
    probation = "light-green"
    backoff = "orange"
    quarantined = "red"


class Mode(Enum):
    """The mode of healing: its colour."""

    off = "text"
    observe = "blue"
    enforce = "green"


class Outcome(Enum):
    """How a heal ended: its colour."""

    succeeded = "green"
    failed = "red"
    ambiguous = "purple"
    rejected = "orange"
    not_sent = "yellow"


Kind = type[State] | type[HealState] | type[Mode] | type[Outcome]


def members(kind: Kind) -> list[tuple[str, str]]:
    """Return names and colours, in order."""
    return [(name, member.value) for name, member in kind.__members__.items()]


def encoded(metric: str, label: str, matchers: str, by: str, kind: Kind) -> str:
    """Return a query whose value says by its number in `kind` which value of a one-hot label is set."""
    names = [name for name, _ in members(kind) if name != REST]
    terms = [f'{number} * ({metric}{{{matchers},{label}="{name}"}} == 1)' for number, name in enumerate(names)]
    if REST in kind.__members__:
        terms.append(f'{len(names)} * ({metric}{{{matchers},{label}!~"{"|".join(names)}"}} == 1)')
    grouping = f"max by ({by})" if by else "max"
    return f"{grouping} (\n  " + "\n  or ".join(terms) + "\n)"


def number_mappings(kind: Kind) -> list[dict[str, Any]]:
    """Show the numbers of `encoded` as names in their colours."""
    shown = {
        str(number): {"text": name, "color": colour, "index": number}
        for number, (name, colour) in enumerate(members(kind))
    }
    return [{"type": "value", "options": shown}]


def text_mappings(*kinds: Kind) -> list[dict[str, Any]]:
    """Show names in their colours."""
    pairs = [pair for kind in kinds for pair in members(kind)]
    shown = {name: {"text": name, "color": colour, "index": index} for index, (name, colour) in enumerate(pairs)}
    return [{"type": "value", "options": shown}]


def series_colours(kind: Kind) -> Iterable[dict[str, Any]]:
    """Give the series that are named after states their colours."""
    for name, colour in members(kind):
        yield {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }


def number_names(names: Mapping[int, tuple[str, str]]) -> list[dict[str, Any]]:
    """Show numbers as names in colours."""
    shown = {
        str(number): {"text": name, "color": colour, "index": index}
        for index, (number, (name, colour)) in enumerate(names.items())
    }
    return [{"type": "value", "options": shown}]
