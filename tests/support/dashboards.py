"""The rules of Grafana's dashboard-linter, and some of our own. Every check returns the problems it found, in words."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from tests.support.monitoring import asked, names_in, panels_of, repeated

if TYPE_CHECKING:
    from collections.abc import Collection

Json = dict[str, Any]
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
COUNTED: Final = re.compile(r"_(total|bucket|count|sum)$")
NO_COUNTERS: Final = frozenset({"voicelink:dids:sum"})
FUNCTION: Final = re.compile(r"\b(rate|irate|increase)\s*\(([^\[]*)\[([^\]]*)\]")
WINDOWS: Final = re.compile(r"\$__rate_interval|\$__range|\d+[mhd]")


def lint(dashboard: Json, uids: Collection[str]) -> list[str]:
    """Name what is wrong with a dashboard; `uids` are those of all dashboards."""
    problems = [*_frame(dashboard), *_variables(dashboard), *_layout(dashboard), *_links(dashboard, uids)]
    for panel in panels_of(dashboard):
        problems += [f"{dashboard['uid']}, {panel['title'] or panel['id']}: {problem}" for problem in _panel(panel)]
    for each in asked(dashboard):
        problems += [f"{each.where}: {problem}" for problem in _query(each.expr)]
    return problems


def _frame(dashboard: Json) -> list[str]:
    wanted = {"timezone": "utc", "editable": False, "tags": ["voicelink"]}
    problems = [f"{name} is {dashboard.get(name)}" for name, value in wanted.items() if dashboard.get(name) != value]
    if not dashboard["uid"].startswith("voicelink-"):
        problems.append("its uid does not begin with voicelink-")
    dropdowns = [each for each in dashboard["links"] if each["asDropdown"] and each["tags"] == ["voicelink"]]
    if not any(each["includeVars"] and each["keepTime"] for each in dropdowns):
        problems.append("no dropdown leads to the other dashboards with time and variables")
    if not any("ALERTS{" in each["expr"] for each in dashboard["annotations"]["list"]):
        problems.append("alerts are not marked")
    return problems


def _variables(dashboard: Json) -> list[str]:
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    problems = [
        f"no variable {name}" for name in ("datasource", "job", "account", "connection") if name not in variables
    ]
    text = json.dumps(dashboard)
    for name, variable in variables.items():
        several = variable["multi"] or variable["includeAll"]
        operators = set(re.findall(rf'(=~|!~|!=|=)\\"\${name}\\"', text))
        if operators - {"=~" if several else "="}:
            problems.append(f"${name} is matched with {sorted(operators)}")
        if variable["type"] == "query" and variable["datasource"] != SOURCE:
            problems.append(f"${name} has a data source of its own")
        if variable["includeAll"] and variable.get("allValue") != ".+":
            problems.append(f"$__all of ${name} would match series without the label")
    return problems


def _layout(dashboard: Json) -> list[str]:
    problems = [f"two panels have the id {number}" for number in repeated(each["id"] for each in dashboard["panels"])]
    cells: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        if place["x"] + place["w"] > 24:
            problems.append(f"{panel['title']} is out of the grid")
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = cells.setdefault((x, y), panel["title"])
                if other != panel["title"]:
                    problems.append(f"{panel['title']} lies over {other}")
    return sorted(set(problems))


def _links(dashboard: Json, uids: Collection[str]) -> list[str]:
    problems = []
    for url in re.findall(r'"url": "(/[^"]*)"', json.dumps(dashboard)):
        target = re.match(r"/d/([^?/]+)", url)
        if not target or target[1] not in uids:
            problems.append(f"{url} leads nowhere")
        if re.search(r"\$\{__data\.fields\.[^}:]+\}", url):
            problems.append(f"{url} has a value that is not encoded")
    return problems


def _panel(panel: Json) -> list[str]:
    problems = [f"no {name}" for name in ("title", "description") if not panel.get(name, "").strip()]
    if not panel["fieldConfig"]["defaults"].get("unit"):
        problems.append("no unit")
    if not panel["targets"]:
        problems.append("no query")
    if any(each["datasource"] != SOURCE for each in (panel, *panel["targets"])):
        problems.append("its data source is not the variable")
    return problems


def _query(expr: str) -> list[str]:
    problems = []
    for function, _, window in FUNCTION.findall(expr):
        if not WINDOWS.fullmatch(window) or (function != "increase" and window != "$__rate_interval"):
            problems.append(f"{function} over {window}")
    inside = {metric for _, inner, _ in FUNCTION.findall(expr) for metric in names_in(inner).metrics}
    listed = names_in(expr).metrics if expr.startswith("label_values(") else frozenset()
    counters = {metric for metric in names_in(expr).metrics if COUNTED.search(metric)} - NO_COUNTERS - listed
    return problems + [f"the counter {metric} is not in rate or increase" for metric in sorted(counters - inside)]
