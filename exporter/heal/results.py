"""What the result of a request means for its attempt: the table of results, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from exporter.errors import (
    ApiError,
    AuthError,
    ForbiddenError,
    LeaseExpiredError,
    NotSentError,
    QuotaError,
    RateLimitedError,
    RedirectError,
    RejectedError,
    ServerError,
    ValidationError,
)
from exporter.model import Outcome
from exporter.store.records import Result, Status
from exporter.vocobase.budget import LONGEST_PAUSE, PAUSE
from exporter.vocobase.call_ready import parse_call_ready

if TYPE_CHECKING:
    from exporter.vocobase.client import Reply

MAY_HAVE_ACTED: Final = frozenset({408, 425, 499})  # a gateway's: it may have handed the request on


def answered(reply: Reply) -> Result:
    """Say what an accepted request means. Raises `BadResponseError` where its answer can't be read."""
    said = parse_call_ready(reply.body)
    return Result(
        Status.VERIFYING,
        None,
        f"answered with ready: {str(said.ready).lower()}; the polls decide",
        charged=True,
        feeds=True,
        http_status=reply.status,
        steps=said.steps,
        readiness_before=said.readiness_before,
        readiness=said.readiness,
    )


def not_sent(reason: str) -> Result:
    """Return the result of a claim that was not sent, for a reason of ours: nothing is held against the DID."""
    return Result(Status.ENDED, Outcome.NOT_SENT, reason, charged=False, feeds=False, backoff=False)


def ambiguous(reason: str, http_status: int | None = None) -> Result:
    """Return the result of a request of which nobody knows what came of it; only an observation ends it."""
    return Result(Status.AMBIGUOUS, None, reason, charged=True, feeds=True, http_status=http_status)


def failed(error: ApiError, *, fingerprint: str, http_status: int | None = None) -> Result:
    """Say what a failed request means. Whether a 403 is the second one, the ledger knows.

    `fingerprint` is that of the credential and configuration in use; `http_status` is that of an answer that could not
    be read.
    """
    status = error.status if isinstance(error, RejectedError) else http_status
    why = str(error)

    def ended(outcome: Outcome, *, charged: bool, feeds: bool = True, **more: Any) -> Result:  # noqa: ANN401
        return Result(Status.ENDED, outcome, why, charged=charged, feeds=feeds, http_status=status, **more)

    match error:
        case QuotaError() | LeaseExpiredError():  # our own budget and our own clock, not the vendor's fault
            return not_sent(why)
        case NotSentError():
            return ended(Outcome.NOT_SENT, charged=False)
        case AuthError() | RedirectError():
            return ended(Outcome.REJECTED, charged=False, backoff=False, latch=why, fingerprint=fingerprint)
        case ForbiddenError():
            return ended(Outcome.REJECTED, charged=True, forbidden=True, fingerprint=fingerprint)
        case RateLimitedError():
            seconds = PAUSE if error.retry_after is None else min(error.retry_after, LONGEST_PAUSE)
            return ended(Outcome.REJECTED, charged=False, feeds=False, backoff=False, key_pause=seconds)
        case ValidationError():
            return ended(Outcome.REJECTED, charged=True, quarantine=True)
        case RejectedError() if status is not None and 400 <= status < 500 and status not in MAY_HAVE_ACTED:  # noqa: PLR2004 - the client errors
            return ended(Outcome.REJECTED, charged=True)
        case ServerError() | RejectedError() | ApiError():
            return ambiguous(why, status)
