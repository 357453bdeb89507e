"""Dashboards as data: what Grafana's JSON needs of us, typed, with everything that all dashboards share filled in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

COLUMNS: Final = 24  # of Grafana's grid
SOURCE: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
FLEET: Final = 'job=~"$job",account=~"$account",connection=~"$connection"'
ACCOUNT: Final = 'job=~"$job",account=~"$account"'
OURS: Final = 'alertname=~"VoiceLink.+",alertname!="VoiceLinkWatchdog",alertstate="firing"'
DID: Final = "account, connection, phone_number"
NUMBER: Final = f'{FLEET},phone_number="$phone_number"'  # never =~: a + at the start is no regular expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A PromQL query of a panel. `table`: the result now, as rows."""

    expr: str
    legend: str = ""
    instant: bool = False
    table: bool = False

    def as_json(self, ref: str) -> Json:
        """Return Grafana's form."""
        return {
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": self.expr,
            "format": "table" if self.table else "time_series",
            "instant": self.instant or self.table,
            "range": not (self.instant or self.table),
            "legendFormat": self.legend or "__auto",
            "refId": ref,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel. It promises data unless `empty` says what to show, and why, where there is none."""

    kind: str
    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    width: int
    height: int
    options: Json = field(default_factory=dict)
    defaults: Json = field(default_factory=dict)
    overrides: tuple[Json, ...] = ()
    transformations: tuple[Json, ...] = ()
    empty: str = ""

    def as_json(self, number: int, x: int, y: int) -> Json:
        """Return Grafana's form, at a place in the grid."""
        defaults = {"unit": self.unit, **self.defaults}
        if self.empty:
            defaults["noValue"] = self.empty
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": [query.as_json(chr(ord("A") + index)) for index, query in enumerate(self.queries)],
            "options": self.options,
            "fieldConfig": {"defaults": defaults, "overrides": list(self.overrides)},
            **({"transformations": list(self.transformations)} if self.transformations else {}),
        }


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the panels under it, laid out from left to right."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that is filled by a query. `several`: any number of values, all of them at first."""

    name: str
    label: str
    query: str
    several: bool = True

    def as_json(self) -> Json:
        """Return Grafana's form. A variable of several values is matched with =~, one of a single value with =."""
        every = {"allValue": ".+", "current": {"selected": True, "text": ["All"], "value": ["$__all"]}}
        return {
            "type": "query",
            "name": self.name,
            "label": self.label,
            "datasource": SOURCE,
            "query": {"query": self.query, "refId": f"Variable-{self.name}"},
            "definition": self.query,
            "refresh": 2,
            "sort": 1,
            "multi": self.several,
            "includeAll": self.several,
            "hide": 0,
            **(every if self.several else {}),
        }


VARIABLES: Final = (
    Variable("job", "Job", "label_values(voicelink_exporter_build_info, job)"),
    Variable("account", "Account", 'label_values(voicelink_polls_total{job=~"$job"}, account)'),
    Variable(
        "connection", "Connection", 'label_values(voicelink_polls_total{job=~"$job",account=~"$account"}, connection)'
    ),
)


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard. `about` is shown in the list of dashboards; `alerts` picks those that are marked in its graphs."""

    uid: str
    title: str
    about: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = VARIABLES
    alerts: str = f'{OURS},job=~"$job"'

    def as_json(self) -> Json:
        """Return Grafana's form."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.about,
            "tags": ["voicelink"],
            "timezone": "utc",
            "editable": False,
            "graphTooltip": 1,
            "refresh": "1m",
            "schemaVersion": 39,
            "time": {"from": "now-6h", "to": "now"},
            "links": [_links()],
            "annotations": {"list": [_annotation(self.alerts)]},
            "templating": {"list": [_datasource(), *(variable.as_json() for variable in self.variables)]},
            "panels": list(self._panels()),
        }

    def _panels(self) -> list[Json]:
        made: list[Json] = []
        y = 0
        for row in self.rows:
            place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
            made.append(
                {
                    "id": len(made) + 1,
                    "type": "row",
                    "title": row.title,
                    "collapsed": False,
                    "gridPos": place,
                    "panels": [],
                }
            )
            y += 1
            x = tallest = 0
            for panel in row.panels:
                if x + panel.width > COLUMNS:
                    x, y, tallest = 0, y + tallest, 0
                made.append(panel.as_json(len(made) + 1, x, y))
                x, tallest = x + panel.width, max(tallest, panel.height)
            y += tallest
        return made


def _links() -> Json:
    return {
        "type": "dashboards",
        "title": "VoiceLink",
        "tags": ["voicelink"],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "icon": "external link",
        "targetBlank": False,
        "tooltip": "The other dashboards of voicelink-exporter",
        "url": "",
    }


def _annotation(matchers: str) -> Json:
    return {
        "name": "Alerts",
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "expr": f"ALERTS{{{matchers}}}",
        "step": "60s",
        "titleFormat": "{{alertname}}",
        "textFormat": "{{phone_number}} {{connection}}",
        "tagKeys": "severity,account",
    }


def _datasource() -> Json:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "prometheus",
        "refresh": 1,
        "hide": 0,
        "multi": False,
        "includeAll": False,
    }
