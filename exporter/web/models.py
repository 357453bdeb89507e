"""What is shown of the fleet: the JSON API's answers, and what the pages are made of, so that the two can't differ.

Times are RFC 3339 in UTC. The docstrings are the API's documentation.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from exporter.model import HealState, Outcome
from exporter.store.records import Status

NUMBER = "+918011223344"
CONNECTION = "5ff0cd1c-4f05-4a3c-9d1e-3f7a7d0f9f63"
_ACTION = {"code": "NO_BOT", "label": "Create a bot for the client"}
_WHERE = {"account": "default", "connection": CONNECTION}
_BROKEN = "2026-11-24T09:12:44Z"
_HEALED = {
    **_WHERE,
    "id": 17,
    "phone_number": NUMBER,
    "status": "ended",
    "outcome": "succeeded",
    "manual": False,
    "issues": ["NO_BOT"],
    "replica": "exporter-0-1f0c2a9b",
    "claimed_at": "2026-11-24T09:15:02Z",
    "sent_at": "2026-11-24T09:15:02Z",
    "answered_at": "2026-11-24T09:15:04Z",
    "ended_at": "2026-11-24T09:17:05Z",
    "broken_since": _BROKEN,
    "http_status": 200,
    "reason": "2 complete polls without the issue",
    "steps": [{"step": "ensure_routing", "status": "done", "detail": "outbound calls go to the bot"}],
}
_DID = {
    **_WHERE,
    "phone_number": NUMBER,
    "connection_name": "Main",
    "state": "NO_BOT",
    "ready": False,
    "issues": ["NO_BOT"],
    "actions": [_ACTION],
    "since": _BROKEN,
    "changes": 3,
    "expired": False,
    "did_id": 812,
    "client_id": 415,
    "did_status": "ACTIVE",
    "friendly_name": "Sales",
    "agent_id": "f4df9f8c-df95-46d8-bb0e-6f9f83fd4f55",
    "agent_name": "Asha",
    "bot_id": "",
    "bot_name": "",
    "routing_id": "",
    "labels": {"team": "sales"},
    "heal": "pending",
}


def _example(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]})


class Model(BaseModel):
    """Made once, never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Action(Model):
    """What a person would do about an issue, in the API's words."""

    code: str
    """The issue; empty where the API named none."""
    label: str
    """The sentence."""


class Did(Model):
    """A number as the last complete poll of its target saw it."""

    model_config = _example(_DID)

    phone_number: str
    """E.164, or its keyed hash with `privacy.hash_numbers`, as in the label of the metrics; `did:812` for one that is
    configured by its id and was never seen."""
    account: str
    """The account's name."""
    connection: str
    """The connection's id, or `default` where the API named none."""
    connection_name: str
    """Empty where the API gave none."""
    state: str
    """READY, what the API says is wrong first, MISSING (configured, and not listed) or OTHER (can't be shown)."""
    ready: bool
    """Whether calls can be made over it."""
    issues: tuple[str, ...]
    """Issue codes, spelled as in the metrics."""
    actions: tuple[Action, ...]
    """What a person would do about it."""
    since: datetime
    """The last change of state, or the first sight."""
    changes: int
    """Changes of state seen."""
    expired: bool | None
    """Whether it is expired at VoiceLink; null where the API didn't say."""
    did_id: int | None
    """VoiceLink's id of it."""
    client_id: int | None
    """VoiceLink's id of the client it is mapped to."""
    did_status: str
    """VoiceLink's word on it; empty where the API gave none, like every name and id after it."""
    friendly_name: str
    """What Vocobase calls it."""
    agent_id: str
    """The voice agent that answers."""
    agent_name: str
    """The agent's name."""
    bot_id: str
    """The bot that calls are routed to."""
    bot_name: str
    """The bot's name."""
    routing_id: str
    """The routing record."""
    labels: dict[str, str]
    """The labels that the configuration gives it."""
    heal: HealState
    """Where it is in its heal."""


class DidConfiguration(Model):
    """What the configuration says of a number. A login or query in `websocket_url` is masked."""

    client_id: int | None
    """The client to map it to."""
    agent_id: str | None
    """The agent to give it."""
    bot_name: str | None
    """The name for a new bot."""
    websocket_url: str | None
    """Where a new bot connects to."""
    heal: bool
    """Whether it may be healed."""
    labels: dict[str, str]
    """Its labels."""


class DidDetail(Did):
    """A number under one target, with all that is known of it."""

    model_config = _example(
        {
            **_DID,
            "current": True,
            "seen": "2026-11-24T09:14:58Z",
            "api_state": "NO_BOT",
            "api_issues": ["NO_BOT"],
            "heal_reason": "NO_BOT in 2 of 3 complete polls, for 60 s of 2m",
            "configuration": None,
        }
    )

    current: bool
    """Whether this is what the last complete poll said; false: that is too old, or no poll was complete since the
    start, and this is what was known before."""
    seen: datetime | None
    """When the last complete poll's answer was there; null before the first."""
    api_state: str
    """The state in the API's own spelling."""
    api_issues: tuple[str, ...]
    """The issues in the API's own spelling."""
    heal_reason: str
    """What was decided about it last, and why; empty where there was nothing to decide."""
    configuration: DidConfiguration | None
    """Null where the configuration doesn't name it."""


class Transition(Model):
    """A change of state, as the polls saw it."""

    account: str
    """The account's name."""
    connection: str
    """The connection's id, or `default` where the API named none."""
    at: datetime
    """When."""
    old: str | None
    """Null at the first sight."""
    new: str
    """The state from then on."""
    issues: tuple[str, ...]
    """The issues from then on."""


class Step(Model):
    """What call-ready said it did. Anything may stand here: these are the API's words."""

    step: str
    """Its name, as `ensure_routing`."""
    status: str
    """How it went, as `done`."""
    detail: str
    """Empty with `privacy.hash_numbers`: the API might name the number."""


class Heal(Model):
    """One row of the ledger: a request that was sent, may have been sent, or would have been."""

    model_config = _example(_HEALED)

    id: int
    """Its number in the ledger."""
    phone_number: str
    """As a number's."""
    account: str
    """The account's name."""
    connection: str
    """The connection's id, or `default` where the API named none."""
    status: Status
    """How far it got. Only what `ended` has an outcome."""
    outcome: Outcome | None
    """How it ended."""
    manual: bool
    """Whether a person asked for it."""
    issues: tuple[str, ...]
    """The issues that it was to resolve."""
    replica: str
    """The process that made it."""
    claimed_at: datetime
    """When somebody meant to send."""
    sent_at: datetime | None
    """When it may have been sent."""
    answered_at: datetime | None
    """When the answer was there."""
    ended_at: datetime | None
    """When it ended."""
    broken_since: datetime | None
    """When the issue was first seen."""
    http_status: int | None
    """The answer's."""
    reason: str
    """Why it stands where it does, in words."""
    steps: tuple[Step, ...]
    """What call-ready said it did."""


class GuardHeld(Model):
    """A guard that holds healing back, and why."""

    guard: str
    """Its name, as in `voicelink_heal_blocked`."""
    reason: str
    """Why it holds, and what to do."""


class TargetHealing(Model):
    """Healing of a target's numbers. The counts are those of this process."""

    mode: str
    """off, observe or enforce."""
    guards: tuple[GuardHeld, ...]
    """What holds it back now."""
    in_flight: int
    """Heals under way."""
    quarantined: int
    """Numbers that are not healed any more until a person lifts that."""
    relapses: int
    """Healed numbers that broke again within probation."""
    would: int
    """What observe mode would have sent."""
    attempts: dict[Outcome, int]
    """Heals that ended, by outcome."""


class Target(Model):
    """One connection of one account: what one poll asks about."""

    model_config = _example(
        {
            **_WHERE,
            "name": "Main",
            "status": "ACTIVE",
            "is_default": True,
            "up": True,
            "failure": None,
            "current": True,
            "dids": 40,
            "ready": 37,
            "states": {"READY": 37, "NO_BOT": 3},
            "issues": {"NO_BOT": 3, "ROUTING_MISSING": 2},
            "last_success": "2026-11-24T09:14:58Z",
            "next_poll": "2026-11-24T09:15:55Z",
            "interval_seconds": 60.0,
            "poll_duration_seconds": 1.4,
            "polls": 1440,
            "failures": {"timeout": 2},
            "anomalies": {},
            "drift_items": 0,
            "healing": {
                "mode": "enforce",
                "guards": [{"guard": "hold_off", "reason": "1 of 3 complete polls since the start"}],
                "in_flight": 1,
                "quarantined": 0,
                "relapses": 0,
                "would": 0,
                "attempts": {"succeeded": 5, "failed": 1},
            },
        }
    )

    account: str
    """The account's name."""
    connection: str
    """The connection's id, or `default` where the API named none."""
    name: str
    """What VoiceLink calls it; empty where the API gave none."""
    status: str
    """VoiceLink's word on the connection."""
    is_default: bool
    """Whether it is the account's default."""
    up: bool | None
    """Whether the last poll was complete; null before the first one ended."""
    failure: str | None
    """Why the last poll failed; null where it didn't."""
    current: bool
    """Whether there is data that isn't too old; without it nothing is said of the target's numbers."""
    dids: int
    """How many numbers it has."""
    ready: int
    """How many of them are ready."""
    states: dict[str, int]
    """Numbers by state."""
    issues: dict[str, int]
    """Numbers by issue; one number may have several."""
    last_success: datetime | None
    """When the request of the last complete poll left: how old the data is at most."""
    next_poll: datetime | None
    """When it is asked next; null where that isn't planned."""
    interval_seconds: float
    """How often it is asked."""
    poll_duration_seconds: float | None
    """How long the last poll took."""
    polls: int
    """Polls since the start."""
    failures: dict[str, int]
    """Failed polls by reason; what never happened is left out."""
    anomalies: dict[str, int]
    """What was odd in complete polls, by kind; what never happened is left out."""
    drift_items: int | None
    """Length of the API's list of differences; null where it sent none."""
    healing: TargetHealing
    """Healing of its numbers."""


class Listed(Model):
    """One page of a list."""

    page: int
    """Which page this is."""
    per_page: int
    """How many a page has."""
    total: int
    """How many there are on all pages."""
    pages: int
    """How many pages there are; at least 1."""


class Dids(Listed):
    """One page of numbers."""

    data: tuple[Did, ...]
    """What is on this page."""


class Targets(Listed):
    """One page of targets."""

    data: tuple[Target, ...]
    """What is on this page."""


class Heals(Listed):
    """One page of heals, newest first."""

    data: tuple[Heal, ...]
    """What is on this page."""


class OneDid(Model):
    """All about one number."""

    data: tuple[DidDetail, ...]
    """One for each target that knows it: several where two connections list the same number."""
    transitions: tuple[Transition, ...]
    """Changes of state, newest first, up to 1000."""
    heals: tuple[Heal, ...]
    """Its rows of the ledger, newest first, up to 1000."""


class Detail(Model):
    """One thing that is wrong with a request."""

    field: str
    """The parameter."""
    message: str
    """What is wrong with it."""


class Error(Model):
    """What went wrong."""

    code: str = Field(examples=["bad_request"])
    """bad_request, not_found, method_not_allowed, store_unavailable or internal: these don't change."""
    message: str
    """A sentence for people."""
    details: tuple[Detail, ...]
    """What is wrong with which parameter; empty where it isn't about parameters."""


class Failed(Model):
    """The answer where there is none."""

    model_config = _example(
        {
            "error": {
                "code": "bad_request",
                "message": "a parameter can't be used",
                "details": [{"field": "per_page", "message": "Input should be less than or equal to 1000"}],
            }
        }
    )

    error: Error
    """What went wrong."""
