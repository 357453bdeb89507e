"""The checks of rules and dashboards find what they are there to find."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.monitoring.test_rules import CODES, FILES, TESTS
from tests.support.dashboards import lint
from tests.support.monitoring import (
    RUNBOOK,
    load_dashboards,
    names_in,
    panels_of,
    read_yaml,
    rules_in,
    unknown_in,
    unknown_names,
    untested,
    without_heading,
)

KNOWN = {"voicelink_did_ready": frozenset({"job", "phone_number"}), "voicelink_polls_total": frozenset({"job"})}
UIDS = {"voicelink-fleet", "voicelink-did", "voicelink-heal", "voicelink-exporter"}


def fleet() -> dict[str, Any]:
    found = next(each for each in load_dashboards() if each["uid"] == "voicelink-fleet")
    return copy.deepcopy(found)


def test_names_are_found_wherever_a_query_has_them() -> None:
    names = names_in(
        'sum by (a) (rate(one_total{b="x{y}",c=~"$c"}[$__range] @ end())) / on (d) group_left (e) two:sum > bool 3'
        ' and label_replace(three, "f", "$1", "g", "(.+)") offset 5m'
    )
    assert dict(names.selected) == {
        "one_total": frozenset({"b", "c"}),
        "two:sum": frozenset(),
        "three": frozenset(),
    }
    assert (names.grouped, names.made) == (frozenset({"a", "d", "e"}), frozenset({"f"}))


@pytest.mark.parametrize(
    ("expr", "problem"),
    [
        ("sum(voicelink_did_reddy)", "no scrape has the metric voicelink_did_reddy"),
        ('voicelink_did_ready{phone="x"}', "voicelink_did_ready has no label phone"),
        ("sum by (pone) (voicelink_did_ready)", "has the label pone"),
        ("label_values(voicelink_polls_total, phone_number)", "has the label phone_number"),
    ],
)
def test_a_name_that_no_scrape_has_is_found(expr: str, problem: str) -> None:
    (found,) = unknown_names(expr, KNOWN)
    assert problem in found
    assert unknown_names('sum by (job) (voicelink_did_ready{phone_number="x"})', KNOWN) == []


@pytest.mark.e2e
def test_a_misspelt_metric_legend_or_column_of_a_panel_is_found(known: dict[str, frozenset[str]]) -> None:
    broken = fleet()
    panels = {panel["title"]: panel for panel in panels_of(broken)}
    panels["Numbers in all"]["targets"][0]["expr"] = "sum(voicelink_dds)"
    panels["What is wrong now"]["targets"][0]["legendFormat"] = "{{kode}}"
    panels["By connection"]["transformations"][-1]["options"]["includeByName"]["nome"] = True
    found = "\n".join(unknown_in(broken, known))
    for words in ("no scrape has the metric voicelink_dds", "its legend has no label kode", "no query gives nome"):
        assert words in found


def test_an_alert_without_its_cases_is_found() -> None:
    rules = rules_in(*FILES)
    tests = [test for path in TESTS for test in read_yaml(path)["tests"]]

    def remaining(alert: str, *, fires: bool) -> list[dict[str, Any]]:
        return [
            {
                "alert_rule_test": [
                    case
                    for case in test.get("alert_rule_test", ())
                    if not (case["alertname"] == alert and bool(case["exp_alerts"]) is fires)
                ]
            }
            for test in tests
        ]

    name = "VoiceLinkDidExpired"
    assert untested(rules, remaining(name, fires=True)) == [f"{name}: no case fires"]
    assert untested(rules, remaining(name, fires=False)) == [f"{name}: no case stays silent"]
    burn = "VoiceLinkReadinessBudgetBurn"
    for test in tests:
        for case in test.get("alert_rule_test", ()):
            case["exp_alerts"] = [each for each in case["exp_alerts"] if each["exp_labels"]["severity"] != "info"]
            for each in case["exp_alerts"]:
                if case["alertname"] == burn:
                    each["exp_annotations"] = {}
    found = untested(rules, tests)
    assert "VoiceLinkUnknownCodes: no case fires" in found
    assert f"{burn}: a case does not compare the annotations" in found


def test_a_heading_that_is_missing_and_a_link_that_leads_nowhere_are_found() -> None:
    text, rules = RUNBOOK.read_text(encoding="utf-8"), rules_in(*FILES)
    found = without_heading(rules, CODES, text.replace("### VoiceLinkHealStorm", "### Storms"))
    assert "VoiceLinkHealStorm: no heading in the runbook" in found
    assert "the runbook links to #voicelinkhealstorm, which is no heading" in found
    assert without_heading(rules, CODES, text.replace("### NO_BOT", "### No bot")) != []


BREAKS: dict[str, Any] = {
    "its data source is not the variable": lambda panel: panel.update(datasource={"type": "prometheus", "uid": "abc"}),
    "no title": lambda panel: panel.update(title=""),
    "no description": lambda panel: panel.update(description=" "),
    "no unit": lambda panel: panel["fieldConfig"]["defaults"].pop("unit"),
    "rate over 5m": lambda panel: panel["targets"][0].update(expr="rate(voicelink_polls_total[5m])"),
    "the counter voicelink_polls_total is not in rate": lambda panel: panel["targets"][0].update(
        expr="sum(voicelink_polls_total)"
    ),
    "lies over": lambda panel: panel["gridPos"].update(x=2),
    "is out of the grid": lambda panel: panel["gridPos"].update(x=20, w=10),
    "two panels have the id": lambda panel: panel.update(id=1),
    "leads nowhere": lambda panel: panel.update(links=[{"url": "/d/voicelink-other"}]),
    "has a value that is not encoded": lambda panel: panel.update(
        links=[{"url": "/d/voicelink-did?var-phone_number=${__data.fields.phone_number}"}]
    ),
    "$job is matched with": lambda panel: panel["targets"][0].update(expr='up{job="$job"}'),
}


@pytest.mark.parametrize("problem", BREAKS)
def test_what_breaks_a_rule_of_dashboards_is_found(problem: str) -> None:
    broken = fleet()
    BREAKS[problem](panels_of(broken)[1])
    found = lint(broken, UIDS)
    assert any(problem in each for each in found), found
