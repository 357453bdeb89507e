"""Addresses of the table: the filters that are in force, with one thing changed. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.web.query import DidQuery

FILTERS: Final = ("q", "account", "connection", "state", "issue", "ready", "label", "heal")
SORTED: Final = "state"  # how the page orders unless asked otherwise: what is not ready first
_ALL: Final = (*FILTERS, "sort", "per_page", "page")


def did_url(label: str, span: str = "") -> str:
    """Return where a number's page is."""
    return f"/dids/{quote(label, safe='')}" + (f"?span={span}" if span else "")


def fleet_url(query: DidQuery, **changes: Any) -> str:  # noqa: ANN401 - values of the query
    """Return where the table is with something changed; whatever is changed but the page leads to the first page."""
    values = query.model_dump(exclude_defaults=True) | ({} if "page" in changes else {"page": None}) | changes
    pairs = [(name, str(each)) for name in _ALL for each in _several(values.get(name))]
    return "/?" + urlencode(pairs) if pairs else "/"


def _several(value: Any) -> list[Any]:  # noqa: ANN401 - values of the query
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def chips(query: DidQuery) -> Iterator[tuple[str, str, str]]:
    """Return each filter that is in force: its name, its value, and where it is off."""
    values = query.model_dump(exclude_defaults=True)
    for name in FILTERS:
        for each in _several(values.get(name)):
            rest = [other for other in query.label if other != each] if name == "label" else None
            yield name, str(each), fleet_url(query, **{name: rest})


def turned(query: DidQuery, key: str) -> tuple[str, str]:
    """Return where the table is ordered by a column, and how it is now: ascending, descending or none."""
    now = query.sort or SORTED
    if now == key:
        return fleet_url(query, sort=f"-{key}"), "ascending"
    order = "descending" if now == f"-{key}" else "none"
    return fleet_url(query, sort=None if key == SORTED else key), order
