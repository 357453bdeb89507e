"""The dashboards are what their source says, follow the rules of dashboards, and name only what exists."""

from __future__ import annotations

import json
from typing import Any

import pytest

from exporter.model import COUNTED, KNOWN_STATES
from exporter.model import HealState as ExporterHealState
from grafana.source.dashboards import files
from grafana.source.states import REST, HealState, Outcome, State
from tests.support.dashboards import lint
from tests.support.monitoring import load_dashboards, panels_of, unknown_in

DASHBOARDS = load_dashboards()
UIDS = {"voicelink-fleet", "voicelink-did", "voicelink-heal", "voicelink-exporter"}
each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard["uid"])


def test_the_committed_files_are_what_the_source_says() -> None:
    for path, text in files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: run make generate"
    assert {each["uid"] for each in DASHBOARDS} == UIDS


@each_dashboard
def test_it_follows_the_rules_of_dashboards(dashboard: dict[str, Any]) -> None:
    assert lint(dashboard, UIDS) == []


@pytest.mark.e2e
@each_dashboard
def test_every_metric_label_legend_and_column_exists(
    dashboard: dict[str, Any], known: dict[str, frozenset[str]]
) -> None:
    assert unknown_in(dashboard, known) == []


def test_every_state_that_the_exporter_knows_has_its_colour() -> None:
    assert {*KNOWN_STATES, REST} == set(State.__members__)
    assert {state.value for state in ExporterHealState} - {"idle"} == set(HealState.__members__)
    assert {outcome.value for outcome in COUNTED} == set(Outcome.__members__)


def test_a_number_is_matched_as_it_is_and_encoded_in_links() -> None:
    text = json.dumps(DASHBOARDS)
    assert 'phone_number=\\"$phone_number\\"' in text
    assert "phone_number=~" not in text
    assert "var-phone_number=${__data.fields.phone_number:percentencode}" in text
    assert "${__data.fields.phone_number}" not in text


def test_tables_that_list_numbers_lead_to_each_of_them() -> None:
    for dashboard in DASHBOARDS:
        for panel in panels_of(dashboard):
            shown = panel.get("transformations", [{"options": {}}])[-1]["options"].get("includeByName", {})
            if "phone_number" in shown:
                assert "/d/voicelink-did?" in json.dumps(panel["fieldConfig"]), panel["title"]
