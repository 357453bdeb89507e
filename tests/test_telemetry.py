"""The exporter's own metrics."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter import __version__
from exporter.exposition import FAMILIES
from exporter.model import Target
from exporter.telemetry import HEAL_DURATIONS, LATENCIES, Telemetry

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.samples import Sample


def parsed(telemetry: Telemetry) -> tuple[list[Metric], list[Metric]]:
    """Return the families as both parsers read them."""
    text, openmetrics = telemetry.render()
    modern = parse_openmetrics(openmetrics.decode() + "# EOF\n")  # type: ignore[no-untyped-call] # prometheus-client's
    return list(parse_text(text.decode())), list(modern)


def samples(telemetry: Telemetry, name: str) -> list[Sample]:
    """Return the samples of one name, as both parsers read them from both formats."""
    plain, modern = (
        [each for family in form for each in family.samples if each.name == name] for form in parsed(telemetry)
    )
    assert [(each.labels, each.value) for each in plain] == [(each.labels, each.value) for each in modern]
    return plain


def values(telemetry: Telemetry, name: str) -> dict[tuple[str, ...], float]:
    return {tuple(each.labels.values()): each.value for each in samples(telemetry, name)}


def test_requests_are_counted_by_account_endpoint_and_status() -> None:
    telemetry = Telemetry()
    assert values(telemetry, "voicelink_api_requests_total") == {}
    telemetry.request_done("main", "voicelink/sync", "200", 0.2)
    telemetry.request_done("main", "voicelink/sync", "200", 0.3)
    telemetry.request_done("main", "voicelink/sync", "error", 45)
    telemetry.request_done("other", "telephony/connections", "429", 0.01)
    found = {
        (each.labels["account"], each.labels["endpoint"], each.labels["status"]): each.value
        for each in samples(telemetry, "voicelink_api_requests_total")
    }
    assert found == {
        ("main", "voicelink/sync", "200"): 2,
        ("main", "voicelink/sync", "error"): 1,
        ("other", "telephony/connections", "429"): 1,
    }


def test_durations_are_a_histogram_by_account_and_endpoint() -> None:
    telemetry = Telemetry()
    for seconds in (0.05, 0.2, 61):
        telemetry.request_done("main", "voicelink/sync", "200", seconds)
    name = "voicelink_api_request_duration_seconds"
    buckets = {float(each.labels["le"]): each.value for each in samples(telemetry, f"{name}_bucket")}
    assert tuple(buckets) == (*LATENCIES, float("inf"))
    assert [buckets[edge] for edge in (0.05, 0.1, 0.25, 60.0, float("inf"))] == [1, 1, 2, 2, 3]
    assert values(telemetry, f"{name}_count") == {("main", "voicelink/sync"): 3}
    assert values(telemetry, f"{name}_sum") == {("main", "voicelink/sync"): pytest.approx(61.25)}


def test_the_budget_is_read_when_the_metrics_are_rendered() -> None:
    telemetry, left = Telemetry(), [60.0]
    telemetry.watch_budget("main", lambda: left[0])
    assert values(telemetry, "voicelink_api_requests_remaining") == {("main",): 60}
    left[0] = 7
    assert values(telemetry, "voicelink_api_requests_remaining") == {("main",): 7}


def test_an_accepted_configuration_is_dated() -> None:
    telemetry = Telemetry()
    telemetry.configured(1_800_000_000.5)
    assert values(telemetry, "voicelink_exporter_config_last_reload_successful") == {(): 1}
    assert values(telemetry, "voicelink_exporter_config_last_reload_success_timestamp_seconds") == {(): 1_800_000_000.5}


def test_missed_runs_start_at_zero() -> None:
    telemetry = Telemetry()
    assert values(telemetry, "voicelink_exporter_scheduler_missed_runs_total") == {(): 0}
    telemetry.missed_runs.inc()
    assert values(telemetry, "voicelink_exporter_scheduler_missed_runs_total") == {(): 1}


def test_failed_runs_start_at_zero() -> None:
    telemetry = Telemetry()
    assert values(telemetry, "voicelink_exporter_scheduler_failed_runs_total") == {(): 0}
    telemetry.failed_runs.inc()
    assert values(telemetry, "voicelink_exporter_scheduler_failed_runs_total") == {(): 1}


def test_heals_are_timed_by_target_and_the_store_is_watched() -> None:
    telemetry = Telemetry()
    telemetry.healed(Target("main", "c"), 90.0)
    telemetry.healed(Target("main"), 4000.0)
    name = "voicelink_heal_duration_seconds"
    sums = {
        (each.labels["account"], each.labels["connection"]): each.value for each in samples(telemetry, f"{name}_sum")
    }
    assert sums == {("main", "c"): 90, ("main", "default"): 4000}
    edges = [float(each.labels["le"]) for each in samples(telemetry, f"{name}_bucket")]
    assert edges == [*HEAL_DURATIONS, float("inf")] * 2
    for up in (True, False):
        telemetry.store_answers(up=up)
        assert values(telemetry, "voicelink_store_up") == {(): float(up)}


def test_what_runs_is_told() -> None:
    (sample,) = samples(Telemetry(), "voicelink_exporter_build_info")
    version = ".".join(map(str, sys.version_info[:3]))
    assert (sample.labels, sample.value) == ({"version": __version__, "pythonversion": version}, 1)


def test_process_and_interpreter_are_there_in_both_formats() -> None:
    for text in Telemetry().render():
        for name in (b"process_resident_memory_bytes ", b"process_open_fds ", b"python_info{", b"python_gc_objects_"):
            assert b"\n" + name in text


def test_nothing_but_ours_and_theirs_and_no_created_series() -> None:
    telemetry = Telemetry()
    telemetry.request_done("main", "voicelink/sync", "200", 0.2)
    of_the_fleet = {family.name.removesuffix("_total") for family in FAMILIES}
    for families in parsed(telemetry):
        names = {family.name for family in families}
        assert all(name.startswith(("voicelink_", "process_", "python_")) for name in names)
        assert not names & of_the_fleet
        assert len(names) == len(families)
    assert b"_created" not in b"".join(telemetry.render())


def test_openmetrics_comes_without_its_end_mark() -> None:
    text, openmetrics = Telemetry().render()
    assert b"# EOF" not in text + openmetrics
    assert openmetrics.endswith(b"\n")
    assert b"# TYPE voicelink_exporter_scheduler_missed_runs_total counter\n" in text
    assert b"# TYPE voicelink_exporter_scheduler_missed_runs counter\n" in openmetrics


def test_two_have_nothing_in_common() -> None:
    one, other = Telemetry(), Telemetry()
    one.missed_runs.inc()
    assert values(other, "voicelink_exporter_scheduler_missed_runs_total") == {(): 0}


def test_the_web_configuration_shows_where_there_is_such_a_file() -> None:
    telemetry, name = Telemetry(), "voicelink_exporter_web_config_last_reload_successful"
    assert samples(telemetry, name) == []
    for accepted in (True, False, True):
        telemetry.web_config_read(accepted)
        assert values(telemetry, name) == {(): float(accepted)}
