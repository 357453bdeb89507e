"""The exporter that a user would write: a custom collector of prometheus-client, served by its own server.

It asks the API once, with the product's client and parser, and then answers scrapes from that: the same families, the
same series, no polls that could slow it down. Run as `baseline.py PORT BASE_URL`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from prometheus_client import start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from benchmarks.parts import Nowhere, poller_of
from exporter.exposition import FAMILIES
from exporter.exposition.families import TARGET_FAMILIES
from exporter.model import MISSING
from exporter.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.core import Metric

    from exporter.model import Did
    from exporter.snapshots import Fleet, TargetState

DID = ("account", "connection", "phone_number")
TARGET = ("account", "connection")
INFO = next(family.labels for family in FAMILIES if family.name == "voicelink_did_info")
HELP = {family.name: family.help for family in FAMILIES}


async def polled(api: str, telemetry: Telemetry) -> Fleet:
    """Poll every target once and return what there is."""
    async with poller_of(api, Nowhere(), telemetry) as (poller, _):
        for target in sorted(poller.fleet.targets):
            await poller.poll(target)
        return poller.fleet


class FleetCollector(Collector):
    """Makes every series anew for every scrape, as custom collectors do."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        """Return the fleet's families."""
        fleet = self._fleet
        states = [state for _, state in sorted(fleet.targets.items())]
        yield from _of_dids(states, fleet.states.words)
        yield from _of_targets(states)
        info = _gauge("voicelink_connection_info", *TARGET, "name", "status", "is_default")
        for target, listed in sorted(fleet.connections.items()):
            default = str(listed.is_default).lower()
            info.add_metric((target.account, target.connection, listed.name, listed.status, default), 1)
        yield info


def _gauge(name: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, HELP[name], labels=labels)


def _counter(name: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, HELP[name], labels=labels)


def _of_dids(states: Sequence[TargetState], words: Sequence[str]) -> Iterator[Metric]:
    ready = _gauge("voicelink_did_ready", *DID)
    state_of = _gauge("voicelink_did_state", *DID, "state")
    issue = _gauge("voicelink_did_issue", *DID, "code")
    issues = _gauge("voicelink_did_issues", *DID)
    info = _gauge("voicelink_did_info", *DID, *INFO)
    expired = _gauge("voicelink_did_expired", *DID)
    changed = _gauge("voicelink_did_state_changed_timestamp_seconds", *DID)
    changes = _counter("voicelink_did_state_changes_total", *DID)
    heal = _gauge("voicelink_did_heal_state", *DID, "state")
    for state in states:
        account, connection = state.target.account, state.target.connection
        for did in state.snapshot.dids.values() if state.snapshot else ():
            labels = (account, connection, did.label)
            ready.add_metric(labels, did.ready)
            for word in words:
                state_of.add_metric((*labels, word), word == did.state)
            for code in did.codes:
                issue.add_metric((*labels, code), 1)
            issues.add_metric(labels, len(did.entry.issues))
            info.add_metric((*labels, *_told(did)), 1)
            if did.state != MISSING and did.entry.expired is not None:
                expired.add_metric(labels, did.entry.expired)
            changed.add_metric(labels, did.since)
            changes.add_metric(labels, did.changes)
            if did.heal:
                heal.add_metric((*labels, did.heal), 1)
    yield from (ready, state_of, issue, issues, info, expired, changed, changes, heal)


def _told(did: Did) -> tuple[str, ...]:
    entry = did.entry
    return (
        "" if entry.did_id is None else str(entry.did_id),
        "" if entry.client_id is None else str(entry.client_id),
        *(entry.did_status, entry.friendly_name, entry.agent_id, entry.agent_name),
        *(entry.bot_id, entry.bot_name, entry.routing_id),
    )


def _of_targets(states: Sequence[TargetState]) -> Iterator[Metric]:
    for item in TARGET_FAMILIES:
        make = _counter if item.family.kind == "counter" else _gauge
        metric = make(item.family.name, *TARGET, *item.family.labels)
        for state in states:
            owner = (state.target.account, state.target.connection)
            for labels, value in item.samples(state):
                metric.add_metric((*owner, *(labels[name] for name in item.family.labels)), value)
        yield metric


def main(port: int, api: str) -> None:
    """Serve until killed."""
    telemetry = Telemetry()
    telemetry.registry.register(FleetCollector(asyncio.run(polled(api, telemetry))))
    start_http_server(port, "127.0.0.1", telemetry.registry)
    signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
