"""From what is known to what is shown. Pure: the JSON API and the pages show these very models."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from exporter.config.schema import masked_url
from exporter.model import HealState
from exporter.snapshots import Watch
from exporter.web import models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from exporter.config import Config
    from exporter.model import Did, Guard, Snapshot, Target
    from exporter.snapshots import Fleet, TargetState
    from exporter.store.records import Attempt, Transition

LONGEST_DETAIL: Final = 500  # characters
HIDDEN: Final = "(hidden)"
_NUMBER: Final = re.compile(r"\+?[0-9](?:[ ().\-/\u00a0]*[0-9]){6,}")


@dataclass(frozen=True, slots=True)
class Names:
    """How numbers are shown: as they are, or `hashed` by `label`."""

    label: Callable[[str], str] = str
    hashed: bool = False

    def veil(self, text: str, number: str = "") -> str:
        """Return free text in which no number is: in place of `number` stands what it is shown as."""
        if not self.hashed:
            return text
        digits = number.removeprefix("+")

        def shown(found: re.Match[str]) -> str:
            return self.label(number) if digits and re.sub(r"[^0-9]", "", found[0]) == digits else HIDDEN

        return _NUMBER.sub(shown, text)


def moment(seconds: float | None) -> datetime | None:
    """Return a Unix time to the millisecond."""
    return None if seconds is None else when(seconds)


def when(seconds: float) -> datetime:
    """Return a Unix time to the millisecond."""
    return datetime.fromtimestamp(round(seconds, 3), UTC)


def did_of(target: Target, did: Did, fleet: Fleet, names: Names) -> models.Did:
    """Show a number as a list does."""
    return models.Did(**_did(target, did, fleet, names))


def detail_of(target: Target, did: Did, fleet: Fleet, names: Names, *, config: Config, why: str) -> models.DidDetail:
    """Show all about a number under one target. `why` is the last decision about healing it."""
    state = fleet.targets[target]
    return models.DidDetail(
        **_did(target, did, fleet, names),
        current=state.snapshot is not None and did.number in state.snapshot.dids,
        seen=moment(state.last_success),
        api_state=names.veil(did.entry.state, did.number),
        api_issues=tuple(names.veil(code, did.number) for code in did.entry.issues),
        heal_reason=names.veil(why, did.number),
        configuration=_configuration(target, did, config),
    )


def _did(target: Target, did: Did, fleet: Fleet, names: Names) -> dict[str, Any]:
    entry, connection = did.entry, fleet.connections.get(target)
    return {
        "phone_number": did.label or names.label(did.number),
        "account": target.account,
        "connection": target.connection,
        "connection_name": connection.name if connection else "",
        "state": did.state,
        "ready": did.ready,
        "issues": did.codes,
        "actions": tuple(
            models.Action(code=names.veil(code, did.number), label=names.veil(label, did.number))
            for code, label in entry.actions
        ),
        "since": when(did.since),
        "changes": did.changes,
        "expired": entry.expired,
        "did_id": entry.did_id,
        "client_id": entry.client_id,
        "did_status": entry.did_status,
        "friendly_name": entry.friendly_name,
        "agent_id": entry.agent_id,
        "agent_name": entry.agent_name,
        "bot_id": entry.bot_id,
        "bot_name": entry.bot_name,
        "routing_id": entry.routing_id,
        "labels": dict(did.labels),
        "heal": HealState(did.heal or HealState.IDLE),
    }


def _configuration(target: Target, did: Did, config: Config) -> models.DidConfiguration | None:
    account = next((each for each in config.accounts if each.name == target.account), None)
    found = Watch.of(account).find(did.entry) if account else None
    if found is None:
        return None
    return models.DidConfiguration(
        client_id=found.client_id,
        agent_id=found.agent_id,
        bot_name=found.bot_name,
        websocket_url=found.websocket_url and masked_url(found.websocket_url),
        heal=found.heal,
        labels=found.labels,
    )


def targets_of(
    fleet: Fleet,
    held: Mapping[Target, Sequence[tuple[Guard, str]]],
    next_polls: Mapping[Target, float | None],
    names: Names,
) -> tuple[models.Target, ...]:
    """Show the targets, in order."""
    ordered = sorted(fleet.targets.values(), key=lambda state: (state.target.account, state.target.connection))
    return tuple(
        _target(state, fleet, held.get(state.target, ()), next_polls.get(state.target), names) for state in ordered
    )


def _target(
    state: TargetState,
    fleet: Fleet,
    held: Iterable[tuple[Guard, str]],
    next_poll: float | None,
    names: Names,
) -> models.Target:
    connection, snapshot = fleet.connections.get(state.target), state.snapshot
    counted = _counted(snapshot)
    return models.Target(
        account=state.target.account,
        connection=state.target.connection,
        name=connection.name if connection else "",
        status=connection.status if connection else "",
        is_default=connection.is_default if connection else False,
        up=state.up,
        failure=state.failure and state.failure.value,
        current=snapshot is not None,
        dids=len(snapshot.dids) if snapshot else 0,
        ready=sum(did.ready for did in snapshot.dids.values()) if snapshot else 0,
        states=counted[0],
        issues=counted[1],
        last_success=moment(state.last_success),
        next_poll=moment(next_poll),
        interval_seconds=round(state.interval, 3),
        poll_duration_seconds=None if state.duration is None else round(state.duration, 3),
        polls=state.polls,
        failures={reason.value: count for reason, count in state.failures.items() if count},
        anomalies={kind.value: count for kind, count in state.anomalies.items() if count},
        drift_items=snapshot.drift_items if snapshot else None,
        healing=models.TargetHealing(
            mode=state.healing.mode,
            guards=tuple(models.GuardHeld(guard=guard.value, reason=names.veil(why)) for guard, why in held),
            in_flight=state.healing.in_flight,
            quarantined=state.healing.quarantined,
            relapses=state.healing.relapses,
            would=state.healing.would,
            attempts=dict(state.healing.attempts),
        ),
    )


def _counted(snapshot: Snapshot | None) -> tuple[dict[str, int], dict[str, int]]:
    dids = snapshot.dids.values() if snapshot else ()
    states = Counter(did.state for did in dids)
    issues = Counter(code for did in dids for code in did.codes)
    return dict(states.most_common()), dict(issues.most_common())


def transition_of(change: Transition) -> models.Transition:
    """Show a change of state."""
    return models.Transition(
        account=change.account,
        connection=change.connection,
        at=when(change.at),
        old=change.old,
        new=change.new,
        issues=change.issues,
    )


def heal_of(attempt: Attempt, names: Names) -> models.Heal:
    """Show a row of the ledger; neither the request nor the API's own objects are part of it."""
    number = attempt.number
    return models.Heal(
        id=attempt.id,
        phone_number=names.label(number),
        account=attempt.account,
        connection=attempt.connection,
        status=attempt.status,
        outcome=attempt.outcome,
        manual=attempt.manual,
        issues=tuple(names.veil(issue, number) for issue in attempt.issues),
        replica=attempt.replica,
        claimed_at=when(attempt.claimed_at),
        sent_at=moment(attempt.sent_at),
        answered_at=moment(attempt.answered_at),
        ended_at=moment(attempt.ended_at),
        broken_since=moment(attempt.broken_since),
        http_status=attempt.http_status,
        reason=names.veil(attempt.reason, number),
        steps=tuple(_step(step, names, number) for step in attempt.steps),
    )


def _step(step: Mapping[str, Any], names: Names, number: str) -> models.Step:
    return models.Step(
        step=names.veil(_words(step.get("step")), number),
        status=names.veil(_words(step.get("status")), number),
        detail="" if names.hashed else _words(step.get("detail")),
    )


def _words(value: object) -> str:
    """Return what the API put where a text is documented."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_DETAIL else text[: LONGEST_DETAIL - 1] + "…"
