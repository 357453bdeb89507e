"""docs/reference/metrics.md and the metrics of the code say the same."""

from __future__ import annotations

import re
from typing import Any

import pytest

from exporter.errors import Reason
from exporter.exposition import FAMILIES
from exporter.model import COUNTED, KNOWN_STATES, Anomaly, Guard, HealState, Target
from exporter.shards import ALL
from exporter.telemetry import Telemetry
from tests.support.markdown import ROOT, below, codes, pages, read, rows, sections

PAGE = "docs/reference/metrics.md"
Metrics = dict[str, tuple[str, frozenset[str]]]  # by name: type and labels
OWNER = {
    "did": {"account", "connection", "phone_number"},
    "target": {"account", "connection"},
    "fleet": {"account", "connection"},
}
VALUES: dict[str, set[str]] = {
    "`state` of `voicelink_did_state` and `voicelink_dids`": set(KNOWN_STATES),
    "`state` of `voicelink_did_heal_state`": {state.value for state in HealState} - {HealState.IDLE.value},
    "`reason` of `voicelink_poll_failures_total`": {reason.value for reason in Reason},
    "`kind` of `voicelink_poll_anomalies_total`": {kind.value for kind in Anomaly},
    "`outcome` of `voicelink_heal_attempts_total`": {outcome.value for outcome in COUNTED},
    "`guard` of `voicelink_heal_blocked`": {guard.value for guard in Guard},
}


def in_the_code() -> Metrics:
    fleet: Metrics = {item.name: (item.kind, frozenset(OWNER[item.level] | {*item.labels})) for item in FAMILIES}
    telemetry = Telemetry()
    telemetry.request_done("a", "voicelink/sync", "200", 1.0)  # a family with labels shows them in a series
    telemetry.healed(Target("a"), 1.0)
    telemetry.watch_budget("a", lambda: 1.0)
    telemetry.unobserved({"a": 0})
    telemetry.heal_limits(["a"], 12)
    telemetry.sharded(ALL)
    telemetry.web_config_read(accepted=True)
    for metric in telemetry.registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        labels = {label for sample in metric.samples for label in sample.labels} - {"le"}
        fleet[name] = (metric.type, frozenset(labels))
    return fleet


def in_the_docs(text: str) -> Metrics:
    found: Metrics = {}
    for part in sections(text):
        owner = re.search(r"^Labels of every series here: (.+)$", part.text, re.MULTILINE)
        for row in rows(part.text) if owner else ():
            (name,) = codes(row["Metric"])
            assert name not in found, f"{name} stands there twice"
            found[name] = (row["Type"], frozenset(codes(owner[1]) + codes(row["More labels"]) if owner else ()))
    return found


def differences(text: str) -> dict[str, tuple[Any, Any]]:
    """Return what code and page say differently: the code's word and the page's."""
    code, page = in_the_code(), in_the_docs(text)
    wrong: dict[str, tuple[Any, Any]] = {
        name: (code.get(name), page.get(name))
        for name in sorted(code.keys() | page.keys())
        if code.get(name) != page.get(name)
    }
    tables = {
        part.title: {codes(row["Value"])[0] for row in rows(part.text)} for part in below(text, "Values of labels")
    }
    return wrong | {
        title: (VALUES.get(title), tables.get(title))
        for title in sorted(VALUES.keys() | tables.keys())
        if VALUES.get(title) != tables.get(title)
    }


def test_the_page_names_every_metric_with_its_type_labels_and_values_and_no_other() -> None:
    assert differences(read(PAGE)) == {}


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("| `voicelink_up` | gauge |", "| `voicelink_upp` | gauge |", {"voicelink_up", "voicelink_upp"}),
        ("| `voicelink_up` | gauge |", "| `voicelink_up` | counter |", {"voicelink_up"}),
        (
            "| `voicelink_polls_total` | counter |",
            "| `voicelink_polls` | counter |",
            {"voicelink_polls_total", "voicelink_polls"},
        ),
        ("`did_status`, `friendly_name`", "`friendly_name`", {"voicelink_did_info"}),
        ("| gauge | `account` | Requests that", "| gauge | | Requests that", {"voicelink_api_requests_remaining"}),
        ("| `process_open_fds` ", "| `process_fds` ", {"process_open_fds", "process_fds"}),
        ("| `python_info` | gauge |", "| `python_info` | info |", {"python_info"}),
        ("| `breaker` |", "| `fuse` |", {"`guard` of `voicelink_heal_blocked`"}),
        ("| `too_large` |", "| `large` |", {"`reason` of `voicelink_poll_failures_total`"}),
    ],
)
def test_a_page_that_says_something_else_is_noticed(old: str, new: str, found: set[str]) -> None:
    text = read(PAGE)
    assert old in text
    assert set(differences(text.replace(old, new, 1))) - set(differences(text)) == found


def unknown_names(text: str) -> set[str]:
    """Return what a page names like a metric of ours and isn't one: in running text and queries, too."""
    known = set(in_the_code())
    known |= {f"{name}{end}" for name in known for end in ("_bucket", "_count", "_sum")}
    return set(re.findall(r"\bvoicelink_[a-z_]*[a-z]\b", text)) - known - {"voicelink_did"}


@pytest.mark.parametrize("page", [page.relative_to(ROOT).as_posix() for page in pages()])
def test_the_metrics_that_a_page_names_exist(page: str) -> None:
    assert unknown_names(read(page)) == set()


def test_a_metric_that_does_not_exist_is_noticed() -> None:
    text = "`voicelink_upp` and sum(voicelink_heal_duration_seconds_bucket) and voicelink_up{a=1}, not voicelink_did_…"
    assert unknown_names(text) == {"voicelink_upp"}
