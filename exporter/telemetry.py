"""The exporter's own metrics, in a registry of their own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from exporter import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from exporter.model import Target
    from exporter.shards import Shard

LATENCIES: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds; a sync takes from 0.1 to 30
HEAL_DURATIONS: Final = (60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0, 86400.0)  # seconds
_EOF: Final = b"# EOF\n"


class Telemetry:
    """Every metric that speaks of the exporter and its requests rather than of the fleet."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # prometheus-client has types only in part
        registry = self.registry = CollectorRegistry()
        self._requests = Counter(
            "voicelink_api_requests_total",
            "Requests to the API, by HTTP status; error where no answer came.",
            ("account", "endpoint", "status"),
            registry=registry,
        )
        self._durations = Histogram(
            "voicelink_api_request_duration_seconds",
            "How long requests to the API took, from sending to the end of the answer.",
            ("account", "endpoint"),
            buckets=LATENCIES,
            registry=registry,
        )
        self._remaining = Gauge(
            "voicelink_api_requests_remaining",
            "Requests that the budget of the account's key has left right now.",
            ("account",),
            registry=registry,
        )
        self.missed_runs = Counter(
            "voicelink_exporter_scheduler_missed_runs_total",
            "Runs that did not happen because the one before still ran, or because they came too late.",
            registry=registry,
        )
        self.failed_runs = Counter(
            "voicelink_exporter_scheduler_failed_runs_total",
            "Runs that broke by a fault of the exporter.",
            registry=registry,
        )
        self.reload_successful = Gauge(
            "voicelink_exporter_config_last_reload_successful",
            "Whether the configuration was accepted when it was last read.",
            registry=registry,
        )
        self.reload_success_time = Gauge(
            "voicelink_exporter_config_last_reload_success_timestamp_seconds",
            "Unix time at which the running configuration was read.",
            registry=registry,
        )
        self._web_config = Gauge(
            "voicelink_exporter_web_config_last_reload_successful",
            "Whether the web configuration file was accepted when it was last read.",
            registry=None,  # shown where there is such a file
        )
        self._web_config_shown = False
        self._store_up = Gauge(
            "voicelink_store_up", "Whether the store answers; while it doesn't, nothing is healed.", registry=registry
        )
        self._heals = Histogram(
            "voicelink_heal_duration_seconds",
            "From the first sight of a broken DID to its verified repair.",
            ("account", "connection"),
            buckets=HEAL_DURATIONS,
            registry=registry,
        )
        self._unobserved = Gauge(
            "voicelink_heal_unobserved",
            "Heals that were sent and whose numbers no poll observes any more; each keeps its number locked.",
            ("account",),
            registry=registry,
        )
        self._max_per_hour = Gauge(
            "voicelink_heal_max_per_hour",
            "Heals that may be sent in an hour: heal.max_per_hour.",
            ("account",),
            registry=registry,
        )
        self._shard = Gauge(
            "voicelink_exporter_shard_info",
            "Which part of the targets this process holds, counted from 0, and of how many; always 1.",
            ("shard", "total_shards"),
            registry=registry,
        )
        build = Gauge(
            "voicelink_exporter_build_info",
            "What is running, always 1.",
            ("version", "pythonversion"),
            registry=registry,
        )
        build.labels(__version__, ".".join(str(part) for part in sys.version_info[:3])).set(1)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

    def request_done(self, account: str, endpoint: str, status: str, seconds: float) -> None:
        """Count one request to the API."""
        self._requests.labels(account, endpoint, status).inc()
        self._durations.labels(account, endpoint).observe(seconds)

    def healed(self, target: Target, seconds: float) -> None:
        """Note that a DID was repaired so many seconds after it was first seen broken."""
        self._heals.labels(target.account, target.connection).observe(seconds)

    def store_answers(self, *, up: bool) -> None:
        """Note whether the store answers."""
        self._store_up.set(up)

    def unobserved(self, attempts: Mapping[str, int]) -> None:
        """Note by account how many open attempts wait on a target that no poll observes."""
        self._unobserved.clear()
        for account, count in attempts.items():
            self._unobserved.labels(account).set(count)

    def heal_limits(self, accounts: Iterable[str], max_per_hour: int) -> None:
        """Note what is configured for each account."""
        self._max_per_hour.clear()
        for account in accounts:
            self._max_per_hour.labels(account).set(max_per_hour)

    def watch_budget(self, account: str, remaining: Callable[[], float]) -> None:
        """Read an account's remaining requests from `remaining` whenever the metrics are rendered."""
        self._remaining.labels(account).set_function(remaining)

    def forget_budget(self, account: str) -> None:
        """Show nothing any more of an account that is gone."""
        self._remaining.remove(account)

    def sharded(self, shard: Shard) -> None:
        """Note which part of the targets this process holds."""
        self._shard.labels(str(shard.index), str(shard.total)).set(1)

    def configured(self, now: float) -> None:
        """Note that a configuration was accepted at a Unix time."""
        self.reload_successful.set(1)
        self.reload_success_time.set(now)

    def web_config_read(self, accepted: bool) -> None:  # noqa: FBT001 - a callback
        """Note whether the web configuration file was accepted; from now on there is such a file."""
        self._web_config.set(accepted)
        if not self._web_config_shown:
            self._web_config_shown = True
            self.registry.register(self._web_config)

    def render(self) -> tuple[bytes, bytes]:
        """Return the metrics as text 0.0.4 and as OpenMetrics without its end mark."""
        text: bytes = generate_latest(self.registry)
        openmetrics: bytes = generate_openmetrics(self.registry)  # type: ignore[no-untyped-call] # the same
        return text, openmetrics.removesuffix(_EOF)
