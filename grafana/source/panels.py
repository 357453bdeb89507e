"""The kinds of panels that the dashboards are made of."""

from __future__ import annotations

from typing import Final

from grafana.source.model import DID, Json, Panel, Query

STAT_HEIGHT: Final = 4
GRAPH_HEIGHT: Final = 8


def steps(*colours: tuple[float | None, str]) -> Json:
    """Return thresholds: from which value on which colour; `None` for the first."""
    return {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in colours]}


PLAIN: Final = steps((None, "text"))
BAD_ABOVE_ZERO: Final = steps((None, "green"), (1, "red"))
WARN_ABOVE_ZERO: Final = steps((None, "green"), (1, "orange"))


def stat(
    title: str,
    description: str,
    unit: str,
    expr: str,
    *,
    thresholds: Json = PLAIN,
    mappings: list[Json] | None = None,
    decimals: int | None = None,
    width: int = 4,
    empty: str = "",
    filled: bool = False,
) -> Panel:
    """Show one number, as it is now. `filled`: on a coloured ground, for what counts most."""
    defaults: Json = {"color": {"mode": "thresholds"}, "thresholds": thresholds, "mappings": mappings or []}
    if decimals is not None:
        defaults["decimals"] = decimals
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "background" if filled else "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "textMode": "value",
        "wideLayout": True,
    }
    return Panel(
        kind="stat",
        title=title,
        description=description,
        unit=unit,
        queries=(Query(expr=expr, instant=True),),
        width=width,
        height=STAT_HEIGHT,
        options=options,
        defaults=defaults,
        empty=empty,
    )


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 12,
    height: int = GRAPH_HEIGHT,
    stacked: bool = False,
    bars: bool = False,
    low: float | None = 0,
    high: float | None = None,
    colour: str = "",
    overrides: tuple[Json, ...] = (),
    empty: str = "",
) -> Panel:
    """Show lines over time, areas on top of each other, or bars. `colour`: of series without one of their own."""
    color = {"mode": "fixed", "fixedColor": colour} if colour else {"mode": "palette-classic"}
    custom = {
        "drawStyle": "bars" if bars else "line",
        "lineWidth": 1,
        "lineInterpolation": "stepAfter" if stacked else "linear",
        "fillOpacity": 70 if stacked or bars else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked or bars else "none", "group": "A"},
    }
    limits = {name: value for name, value in (("min", low), ("max", high)) if value is not None}
    return Panel(
        kind="timeseries",
        title=title,
        description=description,
        unit=unit,
        queries=queries,
        width=width,
        height=height,
        options={
            "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        defaults={"color": color, "custom": custom, **limits},
        overrides=overrides,
        empty=empty,
    )


def timeline(
    title: str,
    description: str,
    query: Query,
    mappings: list[Json],
    *,
    width: int = 24,
    height: int = GRAPH_HEIGHT,
    page: int = 0,
    empty: str = "",
) -> Panel:
    """Show which state something was in over time, a line for each."""
    return Panel(
        kind="state-timeline",
        title=title,
        description=description,
        unit="none",
        queries=(query,),
        width=width,
        height=height,
        options={
            "mergeValues": True,
            "showValue": "never",
            "alignValue": "left",
            "rowHeight": 0.85,
            "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "single", "sort": "none"},
            **({"perPage": page} if page else {}),
        },
        defaults={
            "color": {"mode": "thresholds"},
            "thresholds": PLAIN,
            "mappings": mappings,
            "custom": {"fillOpacity": 80, "lineWidth": 0, "spanNulls": False},
        },
        empty=empty,
    )


def bars(
    title: str, description: str, unit: str, query: Query, *, colour: str, width: int, height: int, empty: str
) -> Panel:
    """Show a number for each of several things, as they are now."""
    return Panel(
        kind="bargauge",
        title=title,
        description=description,
        unit=unit,
        queries=(query,),
        width=width,
        height=height,
        options={
            "orientation": "horizontal",
            "displayMode": "basic",
            "valueMode": "color",
            "showUnfilled": True,
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
        defaults={"color": {"mode": "thresholds"}, "thresholds": steps((None, colour)), "min": 0, "decimals": 0},
        empty=empty,
    )


def table(
    title: str,
    description: str,
    *queries: Query,
    columns: dict[str, str],
    overrides: tuple[Json, ...] = (),
    before: tuple[Json, ...] = (),
    sort: str = "",
    width: int = 24,
    height: int = GRAPH_HEIGHT,
    empty: str = "",
) -> Panel:
    """Show rows, joined over their common labels. `columns` maps fields to headings, in order; no other is shown."""
    order = {name: index for index, name in enumerate(columns)}
    arrange: Json = {"includeByName": dict.fromkeys(columns, True), "indexByName": order, "renameByName": {}}
    headings = tuple(property_of(name, displayName=heading, noValue="-") for name, heading in columns.items())
    return Panel(
        kind="table",
        title=title,
        description=description,
        unit="string",
        queries=queries,
        width=width,
        height=height,
        options={
            "showHeader": True,
            "cellHeight": "sm",
            **({"sortBy": [{"displayName": columns[sort], "desc": True}]} if sort else {}),
        },
        defaults={
            "color": {"mode": "thresholds"},
            "thresholds": PLAIN,
            "custom": {"align": "left", "cellOptions": {"type": "auto"}, "filterable": True},
        },
        overrides=(*headings, *overrides),
        transformations=(*before, {"id": "merge", "options": {}}, {"id": "organize", "options": arrange}),
        empty=empty,
    )


def value_named(ref: str, name: str) -> tuple[Json, Json]:
    """Name the value of one query of several, so that it makes a column of its own."""
    summed: Json = {
        "mode": "reduceRow",
        "alias": name,
        "replaceFields": False,
        "reduce": {"reducer": "sum", "include": ["Value", f"Value #{ref}"]},
    }
    return {"id": "calculateField", "filter": {"id": "byRefId", "options": ref}, "options": summed}, value_dropped(ref)


def value_dropped(ref: str) -> Json:
    """Keep of a query its labels alone."""
    hidden = {"Time": True, "Value": True, f"Value #{ref}": True}
    return {
        "id": "organize",
        "filter": {"id": "byRefId", "options": ref},
        "options": {"renameByName": {}, "excludeByName": hidden, "indexByName": {}},
    }


def labels_listed(ref: str, label: str, by: str = DID) -> Json:
    """Put the values of a label into one cell for each DID."""
    fields: Json = {name: {"operation": "groupby", "aggregations": []} for name in by.split(", ")}
    fields[label] = {"operation": "aggregate", "aggregations": ["uniqueValues"]}
    return {"id": "groupBy", "filter": {"id": "byRefId", "options": ref}, "options": {"fields": fields}}


def property_of(name: str, **properties: object) -> Json:
    """Set properties of one field: `displayName`, `unit`, …; a `__` in a name stands for a dot."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()],
    }


def link_to_did() -> Json:
    """Make phone numbers lead to their dashboard. Unencoded, their + would arrive as a space."""
    variables = (
        "${datasource:queryparam}&${job:queryparam}"
        "&var-account=${__data.fields.account:percentencode}&var-connection=${__data.fields.connection:percentencode}"
        "&var-phone_number=${__data.fields.phone_number:percentencode}"
    )
    link = {"title": "Open its dashboard", "url": f"/d/voicelink-did?{variables}&${{__url_time_range}}"}
    return property_of("phone_number", links=[link], custom__width=150)


def coloured_text(name: str, mappings: list[Json], width: int) -> Json:
    """Show names in their colours."""
    return property_of(name, mappings=mappings, custom__cellOptions={"type": "color-text"}, custom__width=width)
