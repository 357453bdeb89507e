"""The rules say what they should, when they should, and the runbook knows every one of them."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from exporter.model import KNOWN_CODES, MISSING
from tests.support.monitoring import ROOT, RULES, RUNBOOK, read_yaml, rules_in, unknown_names, untested, without_heading
from tests.support.programs import require

if TYPE_CHECKING:
    from pathlib import Path

FILES = sorted(RULES.glob("*.yml"))
TESTS = sorted((ROOT / "tests" / "monitoring" / "rules").glob("*.yml"))
CODES = (*KNOWN_CODES, MISSING, "expired", "any-other-code")
ANNOTATIONS = {"summary", "description", "runbook_url", "dashboard_url"}
SEVERITIES = {"critical", "warning", "info", "none"}


def command(*words: str | Path) -> str:
    """Run a system program to its end; fail with its words where it fails."""
    env = {**os.environ, "GOGC": "400"}  # days of rules are mostly spent on collecting garbage otherwise
    program = require(str(words[0]))
    done = subprocess.run([program, *map(str, words[1:])], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.e2e
def test_promtool_finds_nothing_to_complain_of() -> None:
    command("promtool", "check", "rules", "--lint=all", "--lint-fatal", *FILES)


@pytest.mark.e2e
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_say_what_they_should(path: Path) -> None:
    command("promtool", "test", "rules", path)


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    assert untested(rules_in(*FILES), [test for path in TESTS for test in read_yaml(path)["tests"]]) == []


def test_every_alert_and_every_issue_has_its_heading_in_the_runbook() -> None:
    assert without_heading(rules_in(*FILES), CODES, RUNBOOK.read_text(encoding="utf-8")) == []


def test_every_alert_carries_what_a_message_needs() -> None:
    for rule in rules_in(*FILES):
        if "alert" in rule:
            assert rule["alert"].startswith("VoiceLink"), rule
            assert set(rule["annotations"]) == ANNOTATIONS, rule["alert"]
            assert rule["labels"]["severity"] in SEVERITIES, rule["alert"]
            assert "\n" not in rule["annotations"]["description"], rule["alert"]


def test_no_case_expects_a_value_that_is_not_there() -> None:
    for path in TESTS:
        assert "no value" not in path.read_text(encoding="utf-8"), path


def test_links_lead_to_dashboards_that_exist_and_encode_what_they_carry() -> None:
    for rule in rules_in(*FILES):
        if "alert" in rule:
            url = rule["annotations"]["dashboard_url"]
            name = url.removeprefix("https://grafana.example/d/").partition("?")[0]
            assert (ROOT / "grafana" / "dashboards" / f"{name}.json").exists(), url
            assert url.count("{{") == url.count("| urlquery }}"), url


@pytest.mark.e2e
def test_every_metric_and_label_of_the_rules_is_in_a_real_scrape(known: dict[str, frozenset[str]]) -> None:
    problems = [
        f"{rule.get('alert') or rule['record']}: {problem}"
        for rule in rules_in(*FILES)
        for problem in unknown_names(rule["expr"], known)
    ]
    assert problems == []
