"""What the store keeps of healing: pure data that policy, ledger and controller share. Times are Unix seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from exporter.model import HealState, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping


HOUR: Final = 3600.0  # seconds; the window of `heal.max_per_hour`
SEND_WITHIN: Final = 5.0  # seconds after its claim by which a request leaves, or it is not sent
LATE: Final = SEND_WITHIN  # a request may leave so much later than its row says: budget windows are longer by that


class Status(StrEnum):
    """How far an attempt got. All but the last are open: at most one open attempt per DID exists."""

    CLAIMED = "claimed"  # somebody means to send; nothing was sent
    SENT = "sent"  # it may have been sent, and its sender waits for the answer
    AMBIGUOUS = "ambiguous"  # it may have been carried out; only an observation tells
    VERIFYING = "verifying"  # it was answered; the polls decide
    ENDED = "ended"


class Opened(StrEnum):
    """Which store a process has opened."""

    FOUND = "found"  # one that was there, at the first time; then the same one
    MADE = "made"  # there was none, at the first time
    ANOTHER = "another"  # than before, since a person has accepted it


OPEN: Final = (Status.CLAIMED, Status.SENT, Status.AMBIGUOUS, Status.VERIFYING)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One row of the ledger: one heal that was sent, may have been sent, or would have been."""

    id: int
    number: str
    account: str
    connection: str
    status: Status
    token: str  # of the claim: only its holder may send
    replica: str
    issues: tuple[str, ...]
    body: Mapping[str, Any]  # of the request, exactly
    claimed_at: float
    manual: bool = False
    charged: bool = False  # counts towards the DID's max_attempts
    feeds: bool = False  # counts towards the account's breaker
    outcome: Outcome | None = None
    sent_at: float | None = None
    answered_at: float | None = None
    ended_at: float | None = None
    http_status: int | None = None
    steps: tuple[Mapping[str, Any], ...] = ()
    readiness_before: Mapping[str, Any] | None = None
    readiness: Mapping[str, Any] | None = None
    reason: str = ""
    broken_since: float | None = None
    credential: str = ""  # mark of the API key that it was made with
    heal_issues: tuple[str, ...] = ()  # `heal.issues` of its maker: these have to be gone
    observed_at: float | None = None  # the last complete poll that listed its DID, or its claim
    did_id: int | None = None  # VoiceLink's id of the DID, where it was known

    @property
    def open(self) -> bool:
        """Whether it may still act, so that nobody else may send for the DID."""
        return self.status is not Status.ENDED


@dataclass(frozen=True, slots=True)
class EndedAttempt:
    """What the breaker and the ramp look at of an attempt that ended."""

    id: int
    account: str
    outcome: Outcome
    ended_at: float


@dataclass(frozen=True, slots=True)
class Counts:
    """The attempts on one DID that its own limits count."""

    open: Attempt | None = None
    charged: tuple[float, ...] = ()  # when, within `heal.attempts_window` and not forgotten
    would_at: float = float("-inf")  # the last that observe mode would have made

    def charged_since(self, moment: float) -> int:
        """Return how many attempts count that were claimed after a Unix time."""
        return sum(at > moment for at in self.charged)


@dataclass(frozen=True, slots=True)
class DidRecord:
    """What all replicas know of a DID between attempts. One that was never healed has none."""

    number: str
    account: str = ""
    connection: str = ""
    state: HealState = HealState.IDLE  # idle, backoff, probation or quarantined
    since: float = 0.0
    until: float = 0.0  # the end of backoff
    failures: int = 0  # unverified heals since the last verified one
    forgotten_at: float = 0.0  # when its attempts until then ceased to count
    broken_since: float | None = None  # the first sight of the incident that an attempt was made for
    reason: str = ""
    version: int = 0  # counts changes: a change made on an older view is refused
    heal_issues: tuple[str, ...] = ()  # of the last attempt's maker: by these it is judged
    did_id: int | None = None  # of the last attempt that named one
    forgotten_id: int = 0  # the last attempt that does not count any more


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """What all replicas know of a credential: the facts that the guards of its accounts judge by."""

    credential: str
    paused: str | None = None  # the reason of `heal pause`; holds every account
    resumed_at: float = 0.0
    resume_mark: float = 0.0  # `resumed_at` as it stands in the store: differs after each resume
    latched: str | None = None  # why nothing is healed until the credential or the configuration changed
    latched_at: float = 0.0
    refused: frozenset[str] = frozenset()  # fingerprints of every credential and configuration that was refused
    key_paused_at: float = 0.0  # the API said 429
    key_paused_for: float = 0.0  # seconds
    forbidden_at: float = 0.0  # the last 403
    open: tuple[Attempt, ...] = ()
    sent: tuple[float, ...] = ()  # when requests were sent in the last hour, claims included
    would: tuple[float, ...] = ()  # when observe mode would have sent in the last hour
    recent: tuple[EndedAttempt, ...] = ()  # the last ended attempts that count, newest first

    @property
    def verified_at(self) -> float:
        """When a heal was verified last, among the recent ones."""
        return max((each.ended_at for each in self.recent if each.outcome is Outcome.SUCCEEDED), default=0.0)

    @property
    def key_paused_until(self) -> float:
        """When the pause that the API asked for is over; 0 where it asked for none."""
        return self.key_paused_at + self.key_paused_for if self.key_paused_for else 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the ledger tells: the facts of an account, and of the DIDs of all accounts, by number."""

    account: AccountRecord
    records: Mapping[str, DidRecord]
    counts: Mapping[str, Counts]  # the attempts that count


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a replica learns when it gives a sign of life."""

    released: tuple[Attempt, ...]  # claims of replicas that are gone, which are over now
    open: tuple[Attempt, ...]  # of all accounts
    accounts: Mapping[str, AccountRecord]  # by credential


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a request, as the executor saw it."""

    status: Status  # verifying, ambiguous or ended
    outcome: Outcome | None
    reason: str
    charged: bool
    feeds: bool
    http_status: int | None = None
    steps: tuple[Mapping[str, Any], ...] = ()
    readiness_before: Mapping[str, Any] | None = None
    readiness: Mapping[str, Any] | None = None
    quarantine: bool = False  # repeating it can't help
    backoff: bool = True  # whether the DID is left alone for a while
    latch: str | None = None  # why the account heals nothing any more
    fingerprint: str = ""  # of the credential and configuration that were in use
    forbidden: bool = False  # a 403: the second one within ten minutes latches the account
    key_pause: float | None = None  # seconds


@dataclass(frozen=True, slots=True)
class Transition:
    """A DID's change of state, as the polls saw it. `old` is `None` at the first sight."""

    account: str
    connection: str
    number: str
    at: float
    old: str | None
    new: str
    issues: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which attempts somebody asks for; `None` is any."""

    number: str | None = None
    account: str | None = None
    outcome: Outcome | None = None
    since: float | None = None  # claimed then or later


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a claim was not made."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to send."""

    number: str
    account: str
    connection: str
    issues: tuple[str, ...]
    body: Mapping[str, Any]  # as it may be kept: without secrets
    broken_since: float | None = None
    manual: bool = False
    credential: str = ""  # mark of the API key
    heal_issues: tuple[str, ...] = ()  # `heal.issues`
    did_id: int | None = None
