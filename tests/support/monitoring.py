"""What is looked for in rules, dashboards and the runbook. Every check returns the problems it found, in words."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Json = dict[str, Any]
Known = "Mapping[str, frozenset[str]]"  # metrics, each with the labels it has

ROOT: Final = Path(__file__).parent.parent.parent
RULES: Final = ROOT / "config" / "prometheus" / "rules"
RUNBOOK: Final = ROOT / "docs" / "runbook.md"
TARGET: Final = frozenset({"job", "instance"})
OF_PROMETHEUS: Final = dict.fromkeys(("up", "scrape_duration_seconds", "scrape_samples_scraped"), TARGET)
OF_ALERTS: Final = frozenset(
    {"alertname", "alertstate", "severity", "reason", "scope", "window", "account", "connection", "phone_number"}
)
WORDS: Final = frozenset({"and", "or", "unless", "bool", "offset", "end", "start", "inf", "nan"})

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_WITHOUT: Final = re.compile(r"\bwithout\s*\([^)]*\)")
_GROUPING: Final = re.compile(r"\b(?:by|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR: Final = re.compile(r"([a-zA-Z_:][\w:]*)?\s*\{([^{}]*)\}")
_NAME: Final = re.compile(r"(?<![\w$:.])[a-zA-Z_:][\w:]*(?![\w:]*\s*\()")


def read_yaml(path: Path) -> Any:  # noqa: ANN401 - YAML
    """Return a file's content."""
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


# Names in queries


@dataclass(frozen=True, slots=True)
class Names:
    """What a query names: metrics with the labels they are matched by, the labels it groups by, and those it makes."""

    selected: tuple[tuple[str, frozenset[str]], ...]
    grouped: frozenset[str]
    made: frozenset[str]

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset(metric for metric, _ in self.selected)


def names_in(expr: str) -> Names:
    """Take a PromQL query, or a `label_values(…)` of Grafana, apart."""
    made = frozenset(re.findall(r',\s*"(\w+)",\s*"\$\d"', expr))
    if values := re.fullmatch(r"label_values\((.+), (\w+)\)", expr):
        inner = names_in(values[1])
        return Names(inner.selected, inner.grouped | {values[2]}, made)
    bare = re.sub(r"\[[^\]]*\]", "", _STRING.sub('""', re.sub(r"#.*", "", expr)))
    bare = _WITHOUT.sub("", bare)  # a label that isn't there does no harm in it
    grouped = frozenset(label.strip() for each in _GROUPING.findall(bare) for label in each.split(",") if label.strip())
    bare = _GROUPING.sub("", bare)
    selected = [(name, frozenset(re.findall(r"(\w+)\s*[=!]", matchers))) for name, matchers in _SELECTOR.findall(bare)]
    rest = _NAME.findall(re.sub(r"\b\d[\w.]*", "", _SELECTOR.sub("", bare)))
    selected += [(name, frozenset()) for name in rest if name.lower() not in WORDS]
    return Names(tuple(selected), grouped, made)


def known_from(scrape: str, rules: Iterable[Json]) -> dict[str, frozenset[str]]:
    """Return what exists: what a scrape has, what Prometheus adds of its own, and what rules record."""
    known: dict[str, frozenset[str]] = dict(OF_PROMETHEUS)
    for family in text_string_to_metric_families(scrape):
        for sample in family.samples:
            known[sample.name] = known.get(sample.name, TARGET) | frozenset(sample.labels)
    known["ALERTS"] = TARGET | OF_ALERTS
    for rule in rules:
        if "record" in rule:
            names = names_in(rule["expr"])
            known[rule["record"]] = names.made.union(*(known.get(metric, frozenset()) for metric in names.metrics))
    return known


def unknown_names(expr: str, known: Mapping[str, frozenset[str]]) -> list[str]:
    """Name the metrics and labels of a query that don't exist."""
    names = names_in(expr)
    problems = [f"no scrape has the metric {metric}" for metric in sorted(names.metrics - known.keys())]
    for metric, labels in names.selected:
        problems += [
            f"{metric} has no label {label}" for label in sorted(labels - known.get(metric, labels)) if metric in known
        ]
    there = frozenset().union(names.made, *(known.get(metric, frozenset()) for metric in names.metrics))
    if names.metrics:
        problems += [f"nothing in {expr!r} has the label {label}" for label in sorted(names.grouped - there)]
    return problems


# Rules, their tests and the runbook


def rules_in(*paths: Path) -> list[Json]:
    """Return the rules of some files."""
    return [rule for path in paths for group in read_yaml(path)["groups"] for rule in group["rules"]]


def untested(rules: Iterable[Json], tests: Iterable[Json]) -> list[str]:
    """Name the alerts without a case that fires, those without one that doesn't, and the severities never seen."""
    cases = [case for test in tests for case in test.get("alert_rule_test", ())]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}
    seen = {(case["alertname"], alert["exp_labels"]["severity"]) for case in cases for alert in case["exp_alerts"]}
    wordless = {case["alertname"] for case in cases for alert in case["exp_alerts"] if not alert["exp_annotations"]}
    problems = []
    for rule in rules:
        name, severity = rule.get("alert"), rule.get("labels", {}).get("severity")
        if name is None:
            continue
        if name not in fires:
            problems.append(f"{name}: no case fires")
        elif (name, severity) not in seen:
            problems.append(f"{name}: no case fires with severity {severity}")
        if name not in silent and rule["expr"] != "vector(1)":
            problems.append(f"{name}: no case stays silent")
        if name in wordless:
            problems.append(f"{name}: a case does not compare the annotations")
    return problems


def headings(markdown: str) -> dict[str, str]:
    """Return the headings of a page by the anchors that they get."""
    found = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-"): heading for heading in found}


def without_heading(rules: Iterable[Json], codes: Iterable[str], runbook: str) -> list[str]:
    """Name the alerts and codes that the runbook has no heading for, and links that lead to no heading."""
    anchors = headings(runbook)
    problems = [
        f"{rule['alert']}: no heading {rule['annotations']['runbook_url']}"
        for rule in rules
        if "alert" in rule
        and rule["annotations"]["runbook_url"].partition("/docs/runbook.md#")[2] != rule["alert"].lower()
    ]
    wanted = [rule["alert"] for rule in rules if "alert" in rule]
    problems += [f"{name}: no heading in the runbook" for name in (*wanted, *codes) if name.lower() not in anchors]
    links = re.findall(r"\]\(#([^)]+)\)", runbook)
    return problems + [f"the runbook links to #{link}, which is no heading" for link in links if link not in anchors]


# Dashboards


@dataclass(frozen=True, slots=True)
class Asked:
    """A query of a dashboard and where it stands. `promised`: it has to have a result."""

    where: str
    expr: str
    instant: bool
    promised: bool
    legend: str = ""


def load_dashboards() -> list[Json]:
    """Return the dashboards as Grafana gets them."""
    return [json.loads(path.read_text()) for path in sorted((ROOT / "grafana" / "dashboards").glob("*.json"))]


def panels_of(dashboard: Json) -> list[Json]:
    """Return the panels without the headings between them."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def asked(dashboard: Json) -> Iterator[Asked]:
    """Return every query of every panel, variable and annotation."""
    for panel in panels_of(dashboard):
        promised = "noValue" not in panel["fieldConfig"]["defaults"]
        for target in panel["targets"]:
            where = f"{dashboard['uid']}, {panel['title']}, {target['refId']}"
            yield Asked(where, target["expr"], target["instant"], promised, target["legendFormat"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield Asked(
                f"{dashboard['uid']}, ${variable['name']}", variable["query"]["query"], instant=True, promised=True
            )
    for note in dashboard["annotations"]["list"]:
        yield Asked(
            f"{dashboard['uid']}, annotation", note["expr"], instant=False, promised=False, legend=note["textFormat"]
        )


def unknown_in(dashboard: Json, known: Mapping[str, frozenset[str]]) -> list[str]:
    """Name what the queries, legends and columns of a dashboard use that doesn't exist."""
    problems = []
    for each in asked(dashboard):
        problems += [f"{each.where}: {problem}" for problem in unknown_names(each.expr, known)]
        names = names_in(each.expr)
        there = frozenset().union(names.made, *(known.get(metric, frozenset()) for metric in names.metrics))
        wanted = set(re.findall(r"\{\{(\w+)\}\}", each.legend))
        problems += [f"{each.where}: its legend has no label {label}" for label in sorted(wanted - there)]
    for panel in panels_of(dashboard):
        if panel["type"] == "table":
            problems += [
                f"{dashboard['uid']}, {panel['title']}: no query gives {name}" for name in _lost_columns(panel)
            ]
    return problems


def _lost_columns(panel: Json) -> list[str]:
    given: set[str] = set()
    for target in panel["targets"]:
        names = names_in(target["expr"])
        given |= names.grouped | names.made
    for step in panel["transformations"]:
        given |= {step["options"].get("alias", "")}
        given |= {
            f"{name} (uniqueValues)" for name, use in step["options"].get("fields", {}).items() if use["aggregations"]
        }
    shown = panel["transformations"][-1]["options"]["includeByName"]
    matched = [each["matcher"]["options"] for each in panel["fieldConfig"]["overrides"]]
    linked = re.findall(r"__data\.fields\.(\w+)", json.dumps(panel["fieldConfig"]))
    return sorted({*shown, *matched, *linked} - given)


def repeated(values: Iterable[object]) -> list[object]:
    """Return what is there more than once."""
    return [value for value, count in Counter(values).items() if count > 1]
