"""The fleet's metrics as anybody would write them: a custom collector of prometheus-client."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from exporter.model import MISSING, READY, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from exporter.model import Did, Target
    from exporter.snapshots import Fleet, Healing, TargetState

HELP = {
    "voicelink_did_ready": "Whether the DID is ready for calls: 1 when its state is READY.",
    "voicelink_did_state": "1 on the state the DID is in, 0 on every other known one.",
    "voicelink_did_issue": "1 for each issue that the DID has; no series otherwise.",
    "voicelink_did_issues": "How many issues the DID has.",
    "voicelink_did_info": "What the API tells of the DID, always 1.",
    "voicelink_did_expired": "Whether the DID is expired at VoiceLink; no series where the API does not say.",
    "voicelink_did_state_changed_timestamp_seconds": (
        "Unix time at which the state was seen to change last, or at which the DID was first seen."
    ),
    "voicelink_did_state_changes": "How often the state was seen to change.",
    "voicelink_did_heal_state": "1 on where the DID is in its heal; no series while nothing is healed on it.",
    "voicelink_up": "Whether the target's last poll was complete.",
    "voicelink_dids": "DIDs of the target by state.",
    "voicelink_drift_items": "Differences between VoiceLink and Vocobase that the API lists as drift.",
    "voicelink_polls": "Polls that ended.",
    "voicelink_poll_failures": "Polls that failed, by reason.",
    "voicelink_poll_duration_seconds": (
        "How long the last poll took, from its start to the end of the answer or to its failure."
    ),
    "voicelink_poll_last_success_timestamp_seconds": (
        "Unix time at which the last complete poll asked: how old the target's data is at most."
    ),
    "voicelink_poll_interval_seconds": (
        "Planned seconds between two polls: poll.interval, or more where the request budget is too small."
    ),
    "voicelink_poll_anomalies": "Oddities in complete polls, by kind.",
    "voicelink_heal_mode": "1 on the mode of healing, 0 on the others.",
    "voicelink_heal_attempts": "Heals that ended, by outcome.",
    "voicelink_heal_would": "Heals that observe mode would have sent.",
    "voicelink_heal_blocked": "Whether a guard holds healing back, now.",
    "voicelink_heal_in_flight": "Heals that are claimed, sent or not yet verified.",
    "voicelink_heal_quarantined": "DIDs that are not healed any more until a person lifts that.",
    "voicelink_heal_relapses": "DIDs that broke again while they were on probation.",
    "voicelink_connection_info": "A connection as the API lists it, monitored or not, always 1.",
}
GUARDS = (
    *("paused", "window", "hold_off", "stale", "max_unhealthy", "max_in_flight", "max_per_hour"),
    *("breaker", "account_latched", "rate_limited", "store"),
)
COUNTERS = {
    *("voicelink_did_state_changes", "voicelink_polls", "voicelink_poll_failures", "voicelink_poll_anomalies"),
    *("voicelink_heal_attempts", "voicelink_heal_would", "voicelink_heal_relapses"),
}


class FleetCollector(Collector):
    """Every series of a fleet, in the order of the reference, straight from what is known."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {
            name: CounterMetricFamily(name, text) if name in COUNTERS else GaugeMetricFamily(name, text)
            for name, text in HELP.items()
        }

        def add(family: str, labels: dict[str, str], value: float) -> None:
            name = f"{family}_total" if family in COUNTERS else family
            families[family].add_sample(name, labels, value)

        for target, state in sorted(self._fleet.targets.items()):
            owner = {"account": target.account, "connection": target.connection_id or "default"}
            for did in state.snapshot.dids.values() if state.snapshot else ():
                for family, labels, value in _did(did, self._fleet.states.words):
                    add(family, {**owner, "phone_number": did.label, **labels}, value)
            for family, labels, value in _target(state):
                add(family, {**owner, **labels}, value)
        for target, connection in sorted(self._fleet.connections.items(), key=_first):
            told = {"name": connection.name, "status": connection.status}
            default = "true" if connection.is_default else "false"
            owner = {"account": target.account, "connection": target.connection_id or "default"}
            add("voicelink_connection_info", {**owner, **told, "is_default": default}, 1)
        yield from families.values()


def _first(pair: tuple[Target, object]) -> Target:
    return pair[0]


def _did(did: Did, words: Iterable[str]) -> Iterator[tuple[str, dict[str, str], float]]:
    known = did.entry
    yield "voicelink_did_ready", {}, 1 if did.state == READY else 0
    for word in words:
        yield "voicelink_did_state", {"state": word}, 1 if word == did.state else 0
    for code in sorted(did.codes):
        yield "voicelink_did_issue", {"code": code}, 1
    yield "voicelink_did_issues", {}, len(known.issues)
    info = {
        "did_id": str(known.did_id) if known.did_id is not None else "",
        "client_id": str(known.client_id) if known.client_id is not None else "",
        "did_status": known.did_status,
        "friendly_name": known.friendly_name,
        "agent_id": known.agent_id,
        "agent_name": known.agent_name,
        "bot_id": known.bot_id,
        "bot_name": known.bot_name,
        "routing_id": known.routing_id,
        **dict(did.labels),
    }
    yield "voicelink_did_info", info, 1
    if did.state != MISSING and known.expired is not None:
        yield "voicelink_did_expired", {}, 1 if known.expired else 0
    yield "voicelink_did_state_changed_timestamp_seconds", {}, did.since
    yield "voicelink_did_state_changes", {}, did.changes
    if did.heal:
        yield "voicelink_did_heal_state", {"state": did.heal}, 1


def _target(state: TargetState) -> Iterator[tuple[str, dict[str, str], float]]:
    if state.up is not None:
        yield "voicelink_up", {}, 1 if state.up else 0
    if state.snapshot:
        for word, count in sorted(Counter(did.state for did in state.snapshot.dids.values()).items()):
            yield "voicelink_dids", {"state": word}, count
        if state.snapshot.drift_items is not None:
            yield "voicelink_drift_items", {}, state.snapshot.drift_items
    yield "voicelink_polls", {}, state.polls
    for reason, count in state.failures.items():
        yield "voicelink_poll_failures", {"reason": reason.value}, count
    if state.duration is not None:
        yield "voicelink_poll_duration_seconds", {}, state.duration
    if state.last_success is not None:
        yield "voicelink_poll_last_success_timestamp_seconds", {}, state.last_success
    yield "voicelink_poll_interval_seconds", {}, state.interval
    for kind, count in state.anomalies.items():
        yield "voicelink_poll_anomalies", {"kind": kind.value}, count
    yield from _healing(state.healing)


def _healing(healing: Healing) -> Iterator[tuple[str, dict[str, str], float]]:
    for mode in ("off", "observe", "enforce"):
        yield "voicelink_heal_mode", {"mode": mode}, 1 if mode == healing.mode else 0
    for outcome in ("succeeded", "failed", "ambiguous", "rejected", "not_sent"):
        yield "voicelink_heal_attempts", {"outcome": outcome}, healing.attempts[Outcome(outcome)]
    yield "voicelink_heal_would", {}, healing.would
    for guard in GUARDS:
        yield "voicelink_heal_blocked", {"guard": guard}, 1 if guard in healing.blocked else 0
    yield "voicelink_heal_in_flight", {}, healing.in_flight
    yield "voicelink_heal_quarantined", {}, healing.quarantined
    yield "voicelink_heal_relapses", {}, healing.relapses


def reference(fleet: Fleet) -> tuple[bytes, bytes]:
    """Return the fleet as prometheus-client writes it, as text and as OpenMetrics."""
    registry = CollectorRegistry()
    registry.register(FleetCollector(fleet))
    text: bytes = generate_latest(registry)
    openmetrics: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call] # prometheus-client's
    return text, openmetrics
