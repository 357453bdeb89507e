"""Sends what was claimed, once, and says what became of it. All that is known of a result is in one table below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from exporter.errors import (
    ApiError,
    AuthError,
    ForbiddenError,
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
    from collections.abc import Awaitable, Callable, Mapping

    from exporter.clock import Clock
    from exporter.vocobase import VocobaseClient

SEND_WITHIN: Final = 5.0  # seconds from the claim; later nobody sends on it
NOT_ALLOWED: Final = "something held it back between the claim and the request"


async def execute(
    client: VocobaseClient,
    body: Mapping[str, Any],
    begin_send: Callable[[], Awaitable[bool]],
    *,
    clock: Clock,
    claimed_at: float,
    fingerprint: str,
) -> Result:
    """Send a claimed request and return what became of it. Never raises `ApiError`.

    `begin_send` commits the row as `sent`; `claimed_at` is on the clock's `monotonic`, taken before the claim.
    """
    deadline = claimed_at + SEND_WITHIN

    async def gate() -> bool:
        if clock.monotonic() >= deadline or not await begin_send():
            return False
        # The row says sent. If committing that took too long, the request stays here all the same, and we know it.
        return clock.monotonic() < deadline

    try:
        answer = await client.call_ready(body, deadline=deadline, gate=gate)
        if answer is None:
            return Result(Status.ENDED, Outcome.NOT_SENT, NOT_ALLOWED, charged=False, feeds=False, backoff=False)
        said = parse_call_ready(answer)
    except ApiError as error:
        return result_of(error, fingerprint=fingerprint)
    return Result(
        Status.VERIFYING,
        None,
        f"answered with ready: {str(said.ready).lower()}; the polls decide",
        charged=True,
        feeds=True,
        http_status=200,
        steps=said.steps,
        readiness_before=said.readiness_before,
        readiness=said.readiness,
    )


def result_of(error: ApiError, *, fingerprint: str) -> Result:
    """Say what a failed request means. Whether a 403 is the second one, the ledger knows."""
    status = error.status if isinstance(error, RejectedError) else None
    why = str(error)

    def ended(outcome: Outcome, *, charged: bool, feeds: bool = True, **more: Any) -> Result:  # noqa: ANN401
        return Result(Status.ENDED, outcome, why, charged=charged, feeds=feeds, http_status=status, **more)

    match error:
        case QuotaError():  # our own budget, not the vendor's fault
            return ended(Outcome.NOT_SENT, charged=False, feeds=False, backoff=False)
        case NotSentError():
            return ended(Outcome.NOT_SENT, charged=False)
        case AuthError() | RedirectError():
            return ended(Outcome.REJECTED, charged=False, backoff=False, latch=why, latch_print=fingerprint)
        case ForbiddenError():
            return ended(Outcome.REJECTED, charged=True, forbidden=True, latch_print=fingerprint)
        case RateLimitedError():
            seconds = PAUSE if error.retry_after is None else min(error.retry_after, LONGEST_PAUSE)
            return ended(Outcome.REJECTED, charged=False, feeds=False, backoff=False, key_pause=seconds)
        case ValidationError():
            return ended(Outcome.REJECTED, charged=True, quarantine=True)
        case RejectedError() if status is not None and 400 <= status < 500:  # noqa: PLR2004 - the client errors
            return ended(Outcome.REJECTED, charged=True)
        case ServerError() | RejectedError() | ApiError():
            return Result(Status.AMBIGUOUS, None, why, charged=True, feeds=True, http_status=status)
