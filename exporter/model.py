"""The domain: targets, DIDs, and what one complete poll of a target said. Pure data, no I/O.

What the API sends is turned into these types once, at the edge (`exporter.vocobase.parse`); everything behind it relies
on them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

READY: Final = "READY"
MISSING: Final = "MISSING"  # ours: a configured DID that a complete poll did not contain
OTHER: Final = "OTHER"  # ours: a state or code that can't be shown as the API spells it
API_STATES: Final = (READY, "NO_BOT", "ROUTING_MISSING", "NO_VOCOBASE_AGENT")  # those the vendor documents
KNOWN_STATES: Final = (*API_STATES, MISSING)
KNOWN_CODES: Final = API_STATES[1:]
CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)
DEFAULT_CONNECTION: Final = "default"  # the label where the API named no connection


class Anomaly(StrEnum):
    """What was odd in a poll that was complete all the same."""

    INVALID_ENTRY = "invalid_entry"
    DUPLICATE_DID = "duplicate_did"
    UNKNOWN_CODE = "unknown_code"


class HealState(StrEnum):
    """Where a DID is in its heal."""

    IDLE = "idle"
    PENDING = "pending"
    IN_FLIGHT = "in_flight"
    VERIFYING = "verifying"
    PROBATION = "probation"
    BACKOFF = "backoff"
    QUARANTINED = "quarantined"


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"  # the polls saw the issue gone
    FAILED = "failed"  # answered, and the polls still saw the issue
    AMBIGUOUS = "ambiguous"  # no usable answer, and the polls still saw the issue
    REJECTED = "rejected"  # the API refused
    NOT_SENT = "not_sent"  # nothing reached the API
    WOULD_SEND = "would_send"  # observe mode: decided, recorded, not sent


COUNTED: Final = tuple(outcome for outcome in Outcome if outcome is not Outcome.WOULD_SEND)


class Guard(StrEnum):
    """What holds healing back: the `guard` label of `voicelink_heal_blocked`."""

    PAUSED = "paused"
    WINDOW = "window"
    HOLD_OFF = "hold_off"
    STALE = "stale"
    MAX_UNHEALTHY = "max_unhealthy"
    MAX_IN_FLIGHT = "max_in_flight"
    MAX_PER_HOUR = "max_per_hour"
    BREAKER = "breaker"
    ACCOUNT_LATCHED = "account_latched"
    RATE_LIMITED = "rate_limited"
    STORE = "store"


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """What one poll asks about: one connection of one account.

    `connection_id` is `None` where the API named none: then requests go without one.
    """

    account: str
    connection_id: str | None = None

    @property
    def connection(self) -> str:
        """The `connection` label."""
        return self.connection_id or DEFAULT_CONNECTION


@dataclass(frozen=True, slots=True)
class Connection:
    """One VoiceLink connection as the API lists it. What the API left out is an empty string or `False`."""

    connection_id: str
    name: str = ""
    status: str = ""
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a poll's readiness list, in our types but with the API's own words.

    `state` and `issues` may hold anything: `exporter.snapshots` decides how they are shown. Identifiers are strings
    because they are only ever shown; `did_id` and `client_id` are numbers by the API's word, `None` where absent.
    """

    number: str
    state: str
    issues: tuple[str, ...] = ()
    expired: bool | None = False  # `None` where the API didn't say
    did_id: int | None = None
    client_id: int | None = None
    did_number: str = ""  # as VoiceLink has it, and only where this very answer named no `did_id`
    id_remembered: bool = False  # `did_id` is from an earlier answer: this one named none
    did_status: str = ""
    friendly_name: str = ""
    agent_id: str = ""
    agent_name: str = ""
    bot_id: str = ""
    bot_name: str = ""
    routing_id: str = ""
    repeated: bool = False  # the answer held it more than once; this is the first
    actions: tuple[tuple[str, str], ...] = ()  # what a person would do: issue code, or nothing, and sentence


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete poll's answer: entries in the API's order, duplicates included, and what was odd about it.

    `drift_items` is `None` where the API sent no list.
    """

    entries: tuple[Entry, ...]
    drift_items: int | None = None
    anomalies: Mapping[Anomaly, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Did:
    """A DID as its target's snapshot shows it.

    `entry` is what the API said. `state` and `codes` are the spellings that metrics show: the API's own where they can
    be shown, else `OTHER`. A DID that is `MISSING` has an entry with nothing but what was known of it.
    """

    entry: Entry
    state: str
    codes: tuple[str, ...] = ()
    since: float = 0.0  # Unix time of the last change of state, or of the first sight
    changes: int = 0  # changes of state seen
    label: str = ""  # the `phone_number` label: the number, or its keyed hash
    labels: tuple[tuple[str, str], ...] = ()  # the user's, onto voicelink_did_info
    heal: str = ""  # where it is in its heal; empty when it is idle or nothing is healed

    @property
    def number(self) -> str:
        """E.164, or `did:812` for one that is configured by id and was never seen."""
        return self.entry.number

    @property
    def ready(self) -> bool:
        """Whether calls can be made over it."""
        return self.state == READY


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one complete poll of a target said. Replaced whole, never changed.

    `at` is the Unix time at which its request left: what it says was so then or later, and what happened after that, it
    may not have seen. `dids` is keyed by number, in the order of the numbers.
    """

    target: Target
    at: float
    dids: Mapping[str, Did]
    drift_items: int | None = None
    asked: float = 0.0  # `at`, on a clock that nobody sets
    heard: float = 0.0  # when the answer was there, on that clock
