"""Every metric family of the fleet, as data and a pure function from what is known to samples.

Sample lines are written as prometheus-client writes them, byte for byte: labels sorted by name, floats as Go prints
them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from prometheus_client.utils import floatToGoString

from exporter.model import MISSING, Did, Guard, Target

if TYPE_CHECKING:
    from exporter.snapshots import Fleet, TargetState

Labels = Mapping[str, str]
Sample = tuple[Labels, float]  # labels beside those of the series' owner, and the value
MODES: Final = ("off", "observe", "enforce")
NO_LABELS: Final[Labels] = {}


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family. `name` is the name of its samples, so a counter's ends with `_total`.

    `level` says whose series they are: a DID's, a target's, or the fleet's. `labels` are those beside the owner's own,
    for the reference; the user's labels on `voicelink_did_info` come on top.
    """

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    level: Literal["did", "target", "fleet"]
    labels: tuple[str, ...] = ()

    def header(self, *, openmetrics: bool) -> bytes:
        """Return the lines before the samples. OpenMetrics names a counter's family without `_total`."""
        name = self.name.removesuffix("_total") if openmetrics and self.kind == "counter" else self.name
        return f"# HELP {name} {self.help}\n# TYPE {name} {self.kind}\n".encode()


@dataclass(frozen=True, slots=True)
class DidFamily:
    """A family with series of DIDs: samples from a DID and the states that are known."""

    family: Family
    samples: Callable[[Did, tuple[str, ...]], Iterable[Sample]]


@dataclass(frozen=True, slots=True)
class TargetFamily:
    """A family with series of targets."""

    family: Family
    samples: Callable[[TargetState], Iterable[Sample]]


def escape(value: str) -> str:
    """Escape a label's value, as both text formats want it."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def line(name: str, labels: Iterable[tuple[str, str]], value: float) -> str:
    """Write one sample; label values are not yet escaped."""
    text = ",".join(f'{key}="{escape(label)}"' for key, label in sorted(labels))
    return f"{name}{{{text}}} {_number(value)}\n"


def _number(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call] # prometheus-client has types only in part


def _did(
    name: str,
    text: str,
    samples: Callable[[Did, tuple[str, ...]], Iterable[Sample]],
    *labels: str,
    counter: bool = False,
) -> DidFamily:
    return DidFamily(Family(name, "counter" if counter else "gauge", text, "did", labels), samples)


def _target(
    name: str, text: str, samples: Callable[[TargetState], Iterable[Sample]], *labels: str, counter: bool = False
) -> TargetFamily:
    return TargetFamily(Family(name, "counter" if counter else "gauge", text, "target", labels), samples)


def _one(value: float | None) -> Iterator[Sample]:
    if value is not None:
        yield NO_LABELS, value


def _state(did: Did, states: tuple[str, ...]) -> Iterator[Sample]:
    for state in states:
        yield {"state": state}, float(state == did.state)


def _info(did: Did, _: tuple[str, ...]) -> Iterator[Sample]:
    entry = did.entry
    labels = {
        "did_id": "" if entry.did_id is None else str(entry.did_id),
        "client_id": "" if entry.client_id is None else str(entry.client_id),
        "did_status": entry.did_status,
        "friendly_name": entry.friendly_name,
        "agent_id": entry.agent_id,
        "agent_name": entry.agent_name,
        "bot_id": entry.bot_id,
        "bot_name": entry.bot_name,
        "routing_id": entry.routing_id,
    }
    yield {**dict(did.labels), **labels}, 1.0


def _dids_by_state(state: TargetState) -> Iterator[Sample]:
    if state.snapshot:
        counts = Counter(did.state for did in state.snapshot.dids.values())
        for name in sorted(counts):
            yield {"state": name}, float(counts[name])


DID_FAMILIES: Final = (
    _did(
        "voicelink_did_ready",
        "Whether the DID is ready for calls: 1 when its state is READY.",
        lambda did, _: _one(did.ready),
    ),
    _did("voicelink_did_state", "1 on the state the DID is in, 0 on every other known one.", _state, "state"),
    _did(
        "voicelink_did_issue",
        "1 for each issue that the DID has; no series otherwise.",
        lambda did, _: (({"code": code}, 1.0) for code in sorted(did.codes)),
        "code",
    ),
    _did("voicelink_did_issues", "How many issues the DID has.", lambda did, _: _one(len(did.entry.issues))),
    _did(
        "voicelink_did_info",
        "What the API tells of the DID, always 1.",
        _info,
        *("did_id", "client_id", "did_status", "friendly_name"),
        *("agent_id", "agent_name", "bot_id", "bot_name", "routing_id"),
    ),
    _did(
        "voicelink_did_expired",
        "Whether the DID is expired at VoiceLink; no series where the API does not say.",
        lambda did, _: _one(None if did.state == MISSING else did.entry.expired),
    ),
    _did(
        "voicelink_did_state_changed_timestamp_seconds",
        "Unix time at which the state was seen to change last, or at which the DID was first seen.",
        lambda did, _: _one(did.since),
    ),
    _did(
        "voicelink_did_state_changes_total",
        "How often the state was seen to change.",
        lambda did, _: _one(did.changes),
        counter=True,
    ),
    _did(
        "voicelink_did_heal_state",
        "1 on where the DID is in its heal; no series while nothing is healed on it.",
        lambda did, _: (({"state": did.heal}, 1.0) for _ in did.heal[:1]),
        "state",
    ),
)

TARGET_FAMILIES: Final = (
    _target("voicelink_up", "Whether the target's last poll was complete.", lambda state: _one(state.up)),
    _target("voicelink_dids", "DIDs of the target by state.", _dids_by_state, "state"),
    _target(
        "voicelink_drift_items",
        "Differences between VoiceLink and Vocobase that the API lists as drift.",
        lambda state: _one(state.snapshot.drift_items if state.snapshot else None),
    ),
    _target("voicelink_polls_total", "Polls that ended.", lambda state: _one(state.polls), counter=True),
    _target(
        "voicelink_poll_failures_total",
        "Polls that failed, by reason.",
        lambda state: (({"reason": reason}, float(count)) for reason, count in state.failures.items()),
        "reason",
        counter=True,
    ),
    _target(
        "voicelink_poll_duration_seconds",
        "How long the last poll took, from its start to the end of the answer or to its failure.",
        lambda state: _one(state.duration),
    ),
    _target(
        "voicelink_poll_last_success_timestamp_seconds",
        "Unix time at which the last complete poll asked: how old the target's data is at most.",
        lambda state: _one(state.last_success),
    ),
    _target(
        "voicelink_poll_interval_seconds",
        "Planned seconds between two polls: poll.interval, or more where the request budget is too small.",
        lambda state: _one(state.interval),
    ),
    _target(
        "voicelink_poll_anomalies_total",
        "Oddities in complete polls, by kind.",
        lambda state: (({"kind": kind}, float(count)) for kind, count in state.anomalies.items()),
        "kind",
        counter=True,
    ),
    _target(
        "voicelink_heal_mode",
        "1 on the mode of healing, 0 on the others.",
        lambda state: (({"mode": mode}, float(mode == state.healing.mode)) for mode in MODES),
        "mode",
    ),
    _target(
        "voicelink_heal_attempts_total",
        "Heals that ended, by outcome.",
        lambda state: (({"outcome": outcome}, float(count)) for outcome, count in state.healing.attempts.items()),
        "outcome",
        counter=True,
    ),
    _target(
        "voicelink_heal_would_total",
        "Heals that observe mode would have sent.",
        lambda state: _one(state.healing.would),
        counter=True,
    ),
    _target(
        "voicelink_heal_blocked",
        "Whether a guard holds healing back, now.",
        lambda state: (({"guard": guard}, float(guard in state.healing.blocked)) for guard in Guard),
        "guard",
    ),
    _target(
        "voicelink_heal_in_flight",
        "Heals that are claimed, sent or not yet verified.",
        lambda state: _one(state.healing.in_flight),
    ),
    _target(
        "voicelink_heal_quarantined",
        "DIDs that are not healed any more until a person lifts that.",
        lambda state: _one(state.healing.quarantined),
    ),
    _target(
        "voicelink_heal_relapses_total",
        "DIDs that broke again while they were on probation.",
        lambda state: _one(state.healing.relapses),
        counter=True,
    ),
)

CONNECTION_INFO: Final = Family(
    "voicelink_connection_info",
    "gauge",
    "A connection as the API lists it, monitored or not, always 1.",
    "fleet",
    ("name", "status", "is_default"),
)

FAMILIES: Final = (
    *(item.family for item in DID_FAMILIES),
    *(item.family for item in TARGET_FAMILIES),
    CONNECTION_INFO,
)


def target_labels(target: Target) -> dict[str, str]:
    """Return the labels of a target's series."""
    return {"account": target.account, "connection": target.connection}


def render_did(item: DidFamily, did: Did, owner: Labels, states: tuple[str, ...]) -> bytes:
    """Return a DID's sample lines of one family."""
    return "".join(
        line(item.family.name, {**labels, **owner, "phone_number": did.label}.items(), value)
        for labels, value in item.samples(did, states)
    ).encode()


def render_target(item: TargetFamily, state: TargetState) -> bytes:
    """Return a target's sample lines of one family."""
    owner = target_labels(state.target)
    return "".join(
        line(item.family.name, {**labels, **owner}.items(), value) for labels, value in item.samples(state)
    ).encode()


def render_connections(fleet: Fleet) -> bytes:
    """Return the lines of `voicelink_connection_info`."""
    return "".join(
        line(
            CONNECTION_INFO.name,
            {
                **target_labels(target),
                "name": connection.name,
                "status": connection.status,
                "is_default": str(connection.is_default).lower(),
            }.items(),
            1.0,
        )
        for target, connection in sorted(fleet.connections.items())
    ).encode()
