"""voicelink-exporter: the exporter itself, its polls and its requests."""

from __future__ import annotations

from typing import Final

from grafana.source.fleet import AGE
from grafana.source.model import ACCOUNT, FLEET, Dashboard, Query, Row
from grafana.source.panels import WARN_ABOVE_ZERO, graph, stat, steps, table
from grafana.source.states import number_names

JOB: Final = 'job=~"$job"'
UP: Final = number_names({1: ("UP", "green"), 0: ("DOWN", "red")})
CONFIGURED: Final = number_names({1: ("OK", "green"), 0: ("REFUSED", "red")})
STORE: Final = number_names({1: ("OK", "green"), 0: ("DOWN", "red")})
ROUTE: Final = "account {{account}}"


def _latency(share: float) -> str:
    buckets = f"voicelink_api_request_duration_seconds_bucket{{{ACCOUNT}}}"
    return f"histogram_quantile({share}, sum by (le, endpoint) (rate({buckets}[$__rate_interval]))) >= 0"


def _now() -> Row:
    return Row(
        "The exporter now",
        (
            stat(
                "Scrapes",
                "Whether Prometheus reaches the exporter; of several, the one that is worst.",
                "none",
                f"min(up{{{JOB}}})",
                mappings=UP,
                filled=True,
                empty="no target",
            ),
            stat(
                "Polls",
                "Whether the last poll of every connection was complete.",
                "none",
                f"min(voicelink_up{{{FLEET}}})",
                mappings=UP,
                filled=True,
                empty="no polls",
            ),
            stat(
                "Age of the data",
                "How long ago the API last answered completely, for the connection where that is longest ago.",
                "s",
                f"max({AGE})",
                thresholds=steps((None, "green"), (180, "orange"), (300, "red")),
                decimals=0,
                empty="never polled",
            ),
            stat(
                "Configuration",
                "Whether the configuration was accepted when it was last read.",
                "none",
                f"min(voicelink_exporter_config_last_reload_successful{{{JOB}}})",
                mappings=CONFIGURED,
                empty="unknown",
            ),
            stat(
                "Store",
                "Whether the store answers. While it does not, nothing is healed.",
                "none",
                f"min(voicelink_store_up{{{JOB}}})",
                mappings=STORE,
                empty="unknown",
            ),
            stat(
                "Missed runs",
                "Polls that did not happen in the time that is shown: the one before still ran, or they came too late.",
                "none",
                f"round(sum(increase(voicelink_exporter_scheduler_missed_runs_total{{{JOB}}}[$__range])))",
                thresholds=WARN_ABOVE_ZERO,
                empty="unknown",
            ),
        ),
    )


def _polls() -> Row:
    place = "max by (account, connection)"
    return Row(
        "Polls",
        (
            graph(
                "Age of the data",
                "How old each connection's data is. It drops to nothing with every complete poll.",
                "s",
                Query(expr=AGE, legend="{{account}} {{connection}}"),
                width=8,
                empty="never polled",
            ),
            graph(
                "Duration of polls",
                "How long the last poll of each connection took.",
                "s",
                Query(
                    expr=f"{place} (voicelink_poll_duration_seconds{{{FLEET}}})", legend="{{account}} {{connection}}"
                ),
                width=8,
                empty="never polled",
            ),
            graph(
                "Failed polls by reason",
                "Polls that failed. auth and forbidden: look at the key; connect and timeout: at the network; the rest "
                "is for Vocobase.",
                "none",
                Query(
                    expr=f"sum by (reason) (increase(voicelink_poll_failures_total{{{FLEET}}}[$__rate_interval]) > 0)",
                    legend="{{reason}}",
                ),
                width=8,
                bars=True,
                empty="No poll failed",
            ),
        ),
    )


def _requests() -> Row:
    return Row(
        "Requests to the API",
        (
            graph(
                "Requests by status",
                "Requests a second by HTTP status; error where no answer came.",
                "reqps",
                Query(
                    expr=f"sum by (status) (rate(voicelink_api_requests_total{{{ACCOUNT}}}[$__rate_interval]))",
                    legend="{{status}}",
                ),
                width=8,
                empty="no requests",
            ),
            graph(
                "Latency",
                "How long answers take: half of them and 95 % of them come within this time.",
                "s",
                Query(expr=_latency(0.5), legend="half, {{endpoint}}"),
                Query(expr=_latency(0.95), legend="95 %, {{endpoint}}"),
                width=8,
                empty="no requests",
            ),
            graph(
                "Requests left this minute",
                "What is left of the request budget of each account's key. At nothing, polls and heals wait.",
                "none",
                Query(expr=f"min by (account) (voicelink_api_requests_remaining{{{ACCOUNT}}})", legend=ROUTE),
                width=8,
                empty="no requests",
            ),
        ),
    )


def _process() -> Row:
    return Row(
        "The process and its scrapes",
        (
            graph(
                "Duration of scrapes",
                "How long Prometheus waits for /metrics.",
                "s",
                Query(expr=f"max by (instance) (scrape_duration_seconds{{{JOB}}})", legend="{{instance}}"),
                width=6,
                empty="no target",
            ),
            graph(
                "Samples a scrape",
                "How many samples /metrics has.",
                "none",
                Query(expr=f"max by (instance) (scrape_samples_scraped{{{JOB}}})", legend="{{instance}}"),
                width=6,
                empty="no target",
            ),
            graph(
                "CPU",
                "Share of one CPU that the exporter uses.",
                "percentunit",
                Query(
                    expr=f"max by (instance) (rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval]))",
                    legend="{{instance}}",
                ),
                width=6,
                empty="unknown",
            ),
            graph(
                "Memory",
                "Memory that the exporter uses.",
                "bytes",
                Query(expr=f"max by (instance) (process_resident_memory_bytes{{{JOB}}})", legend="{{instance}}"),
                width=6,
                empty="unknown",
            ),
            table(
                "What runs",
                "The version of each exporter.",
                Query(
                    expr=f"max by (instance, version, pythonversion) (voicelink_exporter_build_info{{{JOB}}})",
                    table=True,
                ),
                columns={"instance": "Exporter", "version": "Version", "pythonversion": "Python"},
                height=5,
                empty="no target",
            ),
        ),
    )


def dashboard() -> Dashboard:
    """Return the dashboard."""
    return Dashboard(
        "voicelink-exporter",
        "VoiceLink: the exporter",
        "The exporter itself: its polls, its requests to the API and its process.",
        (_now(), _polls(), _requests(), _process()),
    )
