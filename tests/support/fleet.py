"""Fleets as polls would leave them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporter.config.schema import Account, ConfiguredDid
from exporter.model import MISSING, Anomaly, Answer, Entry, Target
from exporter.snapshots import Fleet, TargetState, Watch, labeller, poll_succeeded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.model import Did

NOW = 1_800_000_000.0
ONE, TWO, THREE = "+918011223344", "+918011223345", "+918011223346"
IDS = tuple(f"00000000-0000-4000-8000-00000000000{digit}" for digit in range(4))
A, B, C = (Target("default", each) for each in IDS[:3])
EVERYTHING = Watch.of(Account(name="default", api_key_env="KEY"))


def entry(number: str = ONE, state: str = "READY", *issues: str, **known: Any) -> Entry:  # noqa: ANN401 - any field
    """Return an entry whose issues are those named, or its state where that isn't READY."""
    return Entry(number, state, issues or (() if state == "READY" else (state,)), **known)


def watch(*dids: str | int, exclude: tuple[str, ...] = (), hash_key: bytes | None = None, **labels: str) -> Watch:
    """Return what watches DIDs by number or id; with none, all that there are."""
    configured = tuple(
        ConfiguredDid(did_id=did, labels=labels)
        if isinstance(did, int)
        else ConfiguredDid(did_number=did, labels=labels)
        for did in dids
    )
    return Watch.of(
        Account(name="default", api_key_env="KEY", dids=configured, exclude=exclude),
        labeller(hash_key),
    )


def fleet_of(*targets: Target) -> Fleet:
    """Return a fleet of targets that weren't polled yet."""
    return Fleet({target: TargetState(target, interval=60.0) for target in targets})


def polled(
    fleet: Fleet,
    target: Target,
    *entries: Entry,
    by: Watch = EVERYTHING,
    at: float = NOW,
    duration: float = 0.5,
    drift: int | None = None,
    anomalies: Mapping[Anomaly, int] | None = None,
) -> Fleet:
    """Return the fleet after a complete poll of a target."""
    answer = Answer(tuple(entries), drift, anomalies or {})
    return poll_succeeded(fleet, target, answer, by, at=at, duration=duration)


def shown(fleet: Fleet, target: Target) -> Mapping[str, Did]:
    """Return the DIDs that a target shows."""
    snapshot = fleet.targets[target].snapshot
    return snapshot.dids if snapshot else {}


def states(fleet: Fleet, target: Target) -> dict[str, str]:
    """Return the states of the DIDs that a target shows."""
    return {number: did.state for number, did in shown(fleet, target).items()}


def missing(fleet: Fleet) -> list[tuple[Target, str]]:
    """Return who reports which DID as missing."""
    return [
        (target, number)
        for target in sorted(fleet.targets)
        for number, state in states(fleet, target).items()
        if state == MISSING
    ]


def odd(fleet: Fleet, target: Target) -> dict[Anomaly, int]:
    """Return the anomalies that were counted."""
    return {kind: count for kind, count in fleet.targets[target].anomalies.items() if count}
