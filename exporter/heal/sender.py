"""The one way from a decision to a request, for the daemon and for `heal run`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.clock import Lease
from exporter.config.schema import masked_url
from exporter.errors import ApiError, NotSentError, QuotaError, StoreError
from exporter.heal import results
from exporter.store.records import SEND_WITHIN, Attempt, Refused, Result, Wish

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Any

    from exporter.accounts import AccountRuntime
    from exporter.clock import Clock
    from exporter.heal.decide import Send
    from exporter.heal.guards import GuardCheck
    from exporter.model import Target
    from exporter.store.ledger import Next
    from exporter.store.worker import StoreWorker
    from exporter.vocobase.client import Reservation


@dataclass(frozen=True, slots=True)
class HealRequest:
    """Heal that is to be sent: the decision, and whose it is."""

    account: AccountRuntime
    target: Target
    send: Send
    manual: bool = False

    @property
    def wish(self) -> Wish:
        """The row that its claim inserts."""
        return Wish(
            self.send.number,
            self.target.account,
            self.target.connection,
            self.send.issues,
            masked(self.send.body),
            self.send.broken_since,
            manual=self.manual,
            credential=self.account.credential,
            heal_issues=self.account.heal.issues,
            did_id=self.send.did_id,
        )


@dataclass(frozen=True, slots=True)
class Sent:
    """End of a send: the row that was claimed and its result, or why nothing was claimed."""

    attempt: Attempt | None = None
    result: Result | None = None
    reasons: tuple[str, ...] = ()


class HealSender:
    """Sender of heals.

    1. Reserve: a place in the key's request budget and an open connection, TLS included, for this one request; and wait
       for its turn to leave. This holds no claim, and may take as long as `patience`.
    2. Decide anew, by the newest poll. Where that asks for anything else, stop.
    3. Claim: insert the open row of the DID. All guards are asked, while the credential's row is locked.
    4. Begin: change the row from `claimed` to `sent`, if all guards still allow it, and commit.
    5. Send: the first byte leaves within 5 s of the claim by every clock, or never.
    6. Record what became of it.

    Nothing is sent without its committed row, and no request is made inside a transaction.

    `busy` are the ids of the attempts between claim and record, `claiming` their numbers. `waiting` says since when, on
    the clock's `monotonic`, which heal waits for its place and connection. `after` returns what is known of a DID when
    an attempt on it ends with a result.
    """

    def __init__(self, worker: StoreWorker, clock: Clock, after: Callable[[Result], Next]) -> None:
        self.busy: set[int] = set()
        self.claiming: set[str] = set()
        self.waiting: dict[tuple[str, str], float] = {}  # by account and number
        self._unrecorded: dict[int, tuple[Attempt, Result]] = {}
        self._worker = worker
        self._clock = clock
        self._after = after

    async def send(
        self,
        request: HealRequest,
        revise: Callable[[], Awaitable[Send | str]],
        check: GuardCheck,
        *,
        patience: float,
        observe: Callable[[], Awaitable[None]] | None = None,
        claimed: Callable[[Attempt], None] = lambda _: None,
    ) -> Sent:
        """Send a heal, and return when it is recorded. Raises `StoreError`; then the row says as much as is known.

        `observe` polls once more when the connection is there. `revise` returns the decision by the newest poll, or why
        there is none any more. `patience` is in seconds. `claimed` gets the row before the request leaves.
        """
        where = request.target.account, request.send.number
        self.waiting[where] = self._clock.monotonic()
        try:
            deadline = self._clock.monotonic() + patience
            async with request.account.client.reserve(request.send.body, deadline=deadline) as reservation:
                if observe:
                    await observe()
                await reservation.turn(deadline)
                self.waiting.pop(where, None)
                return await self._claim_and_send(request, revise, check, reservation, claimed)
        except QuotaError as error:
            return Sent(reasons=(str(error),))
        except NotSentError as error:
            return await self._note_unsent(request, check, error)
        finally:
            self.waiting.pop(where, None)

    async def _claim_and_send(
        self,
        request: HealRequest,
        revise: Callable[[], Awaitable[Send | str]],
        check: GuardCheck,
        reservation: Reservation,
        claimed: Callable[[Attempt], None],
    ) -> Sent:
        revised = await revise()
        if isinstance(revised, str):
            return Sent(reasons=(revised,))
        if revised.body != request.send.body:
            return Sent(reasons=("the newest poll asks for another request",))
        check = check.for_version(revised.version)
        lease = Lease.begin(self._clock, SEND_WITHIN)
        ledger = self._worker.store.ledger
        self.claiming.add(request.send.number)
        try:
            attempt = await self._worker.call(ledger.claim, request.wish, check, self._clock.time())
            if isinstance(attempt, Refused):
                return Sent(reasons=attempt.reasons)
            self.busy.add(attempt.id)
            try:
                claimed(attempt)
                result = await self._deliver(request, attempt, check, reservation, lease)
                await self.record(attempt, result)
            finally:
                self.busy.discard(attempt.id)
        finally:
            self.claiming.discard(request.send.number)
        return Sent(attempt, result)

    async def _deliver(
        self, request: HealRequest, attempt: Attempt, check: GuardCheck, reservation: Reservation, lease: Lease
    ) -> Result:
        """Begin and send; return what became of it."""
        fingerprint = request.account.fingerprint
        try:
            begin = self._worker.store.ledger.begin_send
            refused = await self._worker.call(begin, attempt, check, self._clock.time())
            if refused:
                return results.not_sent("; ".join(refused.reasons))
            return results.answered(await reservation.send(lease))
        except StoreError:  # whether the row says sent is not known, but nothing was sent
            return results.not_sent("the store did not answer before the request, so nothing was sent")
        except ApiError as error:
            return results.failed(error, fingerprint=fingerprint, http_status=reservation.heard.status)
        except asyncio.CancelledError:
            if reservation.left:
                result = results.ambiguous("the exporter stopped while it waited for the answer")
            else:
                result = results.not_sent("the exporter stopped before the request left, so nothing was sent")
            with suppress(StoreError):
                self._worker.store.ledger.answered(attempt, result, self._after(result), self._clock.time())
            raise

    async def _note_unsent(self, request: HealRequest, check: GuardCheck, error: NotSentError) -> Sent:
        """Record a heal for which there was no connection: the DID is left alone for a while, as after a failure."""
        result = results.failed(error, fingerprint=request.account.fingerprint)
        ledger, now = self._worker.store.ledger, self._clock.time()
        check = check.for_version(request.send.version)
        noted = await self._worker.call(ledger.not_sent, request.wish, result, check, self._after(result), now)
        return Sent(reasons=noted.reasons) if isinstance(noted, Refused) else Sent(noted, result)

    async def record(self, attempt: Attempt, result: Result) -> bool:
        """Record what became of a request; returns whether the row was still open. Raises `StoreError`.

        What can't be recorded now is recorded by `record_rest`.
        """
        self._unrecorded[attempt.id] = attempt, result
        answered, now = self._worker.store.ledger.answered, self._clock.time()
        recorded = await self._worker.call(answered, attempt, result, self._after(result), now)
        self._unrecorded.pop(attempt.id, None)
        return recorded

    async def record_rest(self) -> list[tuple[Attempt, Result]]:
        """Record what could not be recorded before; return what was. Raises `StoreError`."""
        rest = list(self._unrecorded.values())
        return [(attempt, result) for attempt, result in rest if await self.record(attempt, result)]

    @property
    def unfinished(self) -> set[int]:
        """The ids of the attempts whose results this process has or will have."""
        return self.busy | self._unrecorded.keys()


def masked(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request's body as it may be kept: a websocket URL without its query and password."""
    return {key: masked_url(value) if key == "websocket_url" else value for key, value in body.items()}
