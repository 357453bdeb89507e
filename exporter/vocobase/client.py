"""Requests to the API over HTTP. The one place that knows httpx; its errors end here."""

from __future__ import annotations

import asyncio
import json
import math
import re
import select
import socket
import ssl
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Protocol

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from exporter import __version__
from exporter.errors import (
    ApiError,
    ApiTimeoutError,
    AuthError,
    BadResponseError,
    BrokenAnswerError,
    ConflictError,
    ConnectError,
    ForbiddenError,
    LeaseExpiredError,
    NotFoundError,
    NotSentError,
    RateLimitedError,
    RedirectError,
    RejectedError,
    ServerError,
    StartupError,
    TooLargeError,
    ValidationError,
)
from exporter.vocobase.budget import LEAVES_WITHIN, WINDOW, Place, Priority, RequestBudget
from exporter.vocobase.parse import error_code

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Collection, Iterator, Mapping

    from pydantic import SecretStr

    from exporter.clock import Clock, Lease
    from exporter.config import Config

ATTEMPTS: Final = 3  # of a read request: the first and two retries
SYNC: Final = "voicelink/sync"
CONNECTIONS: Final = "telephony/connections"
CALL_READY: Final = "voicelink/call-ready"
ACCEPTED: Final = frozenset({HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED})  # of call-ready
UNACKNOWLEDGED: Final = 5.0  # seconds that bytes of a write may be without acknowledgement; then the connection ends
_ERROR_BODY: Final = 65_536  # bytes; an error's envelope is short
_ERROR_BODY_WITHIN: Final = 5.0  # seconds; the status says enough
_HEADERS: Final = "http11.send_request_headers.started"  # httpcore's name of the moment before the first byte
_BY_STATUS: Final[dict[int, type[RejectedError]]] = {
    400: ValidationError,
    401: AuthError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    422: ValidationError,
}


class RequestObserver(Protocol):
    """Who counts the requests."""

    def request_done(self, account: str, endpoint: str, status: str, seconds: float) -> None:
        """Count one request; `status` is the HTTP code, or `error` where none came."""


def ssl_context() -> ssl.SSLContext:
    """Return a context that trusts the usual authorities, and those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.

    Raises `StartupError`.
    """
    with _environment_used():
        return httpx.create_ssl_context()


TransportFactory = Callable[[httpx.Limits], httpx.AsyncBaseTransport]


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer to a request: its HTTP status and its body."""

    status: int
    body: bytearray


@dataclass(frozen=True, slots=True)
class Reading:
    """Body of a read request's answer, and when it was asked for: what it says was so then or later.

    `asked` is on the clock's `monotonic`, `asked_at` is the same as a Unix time; the request left then or later.
    """

    body: bytearray
    asked: float
    asked_at: float


@dataclass(slots=True)
class Heard:
    """What has come of an answer so far: its status, and what that alone means where it is an error's."""

    status: int | None = None
    rejection: RejectedError | None = None

    @property
    def label(self) -> str:
        """Return the status as it is counted."""
        return "error" if self.status is None else str(self.status)


class VocobaseClient:
    """One account's requests. Reads share a pool of connections; each write has a connection of its own.

    `transport` makes what replaces the network in tests, once for reads and once for writes; it has to report moments
    by the extension `trace`, as httpcore does. `tls` can be shared, as loading the authorities takes longer than a
    request. Making one raises `StartupError` where the environment's proxies are wrong.
    """

    def __init__(
        self,
        config: Config,
        account: str,
        key: SecretStr,
        *,
        budget: RequestBudget,
        observer: RequestObserver,
        clock: Clock,
        tls: ssl.SSLContext | None = None,
        transport: TransportFactory | None = None,
    ) -> None:
        self.account = account
        self.budget = budget
        self._api = config.api
        self._timeout = config.api.timeout.total_seconds()
        self._observer = observer
        self.clock = clock
        self._users = 0  # requests that were asked for and aren't over, waiting ones included
        self._idle = asyncio.Event()

        def pool(limits: httpx.Limits) -> httpx.AsyncClient:
            return httpx.AsyncClient(
                base_url=config.api.base_url,
                headers={
                    "Authorization": f"Bearer {key.get_secret_value()}",
                    "Accept": "application/json",
                    "User-Agent": f"voicelink-exporter/{__version__}",
                },
                follow_redirects=False,
                # Callers time the whole; a connection that takes half of that is told apart: nothing was sent.
                timeout=httpx.Timeout(None, connect=self._timeout / 2),
                limits=limits,
                verify=tls or True,
                transport=transport(limits) if transport else None,
            )

        with _environment_used():
            self._http = pool(httpx.Limits(max_connections=100, max_keepalive_connections=20))
            self._writes = pool(httpx.Limits(max_keepalive_connections=0))  # none is ever used again

    @property
    def patience(self) -> float:
        """Seconds in which a place in the budget is to be had, unless the API asks us to wait for longer."""
        return 2 * WINDOW + self._timeout + 2 * self.budget.gap

    async def aclose(self) -> None:
        """Close the pools."""
        await self._http.aclose()
        await self._writes.aclose()

    async def retire(self) -> None:
        """Close the pool as soon as no request needs it any more."""
        while self._users:
            self._idle.clear()
            await self._idle.wait()
        await self.aclose()

    @contextmanager
    def _used(self) -> Iterator[None]:
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._idle.set()

    async def sync(self, connection_id: str | None, *, deadline: float) -> Reading:
        """Ask for the readiness of all DIDs of a connection: one request that writes nothing.

        Retries end before `deadline`, on the clock's `monotonic`. Raises `ApiError`.
        """
        body: dict[str, Any] = {"import_dids": False}  # the API's default is true, which would write
        if connection_id:
            body["connection_id"] = connection_id
        request = self._http.build_request("POST", f"/{SYNC}", json=body)
        return await self._read(request, SYNC, Priority.POLL, deadline)

    async def connections(self, *, deadline: float) -> bytearray:
        """Ask for the list of VoiceLink connections.

        Returns the answer's body. Raises `ApiError`.
        """
        request = self._http.build_request("GET", f"/{CONNECTIONS}", params={"provider": "voicelink"})
        return (await self._read(request, CONNECTIONS, Priority.DISCOVERY, deadline)).body

    @asynccontextmanager
    async def reserve(self, body: Mapping[str, Any], *, deadline: float) -> AsyncIterator[Reservation]:
        """Hold a place in the budget and an open connection, TLS included, for one call-ready request: a write.

        Waits for both until `deadline`, on the clock's `monotonic`. The connection is used for this request alone. A
        place that no request left on is free again. Raises `QuotaError` where there is no place, `ConnectError` where
        there is no connection.
        """
        with self._used():
            async with self.budget.reserve(Priority.HEAL, deadline) as place:
                reservation = Reservation(self, body, place)
                try:
                    await reservation.open(max(0.0, min(self._timeout, deadline - self.clock.monotonic())))
                    yield reservation
                finally:
                    await reservation.close()

    async def transfer_write(self, content: AsyncIterator[bytes], length: int, reservation: Reservation) -> Reply:
        """Send a call-ready request on a connection of its own, for a reservation, and read the answer."""
        request = self._writes.build_request(
            "POST",
            f"/{CALL_READY}",
            content=content,
            headers={"Content-Type": "application/json", "Content-Length": str(length)},
            extensions={"trace": reservation.trace},
        )
        return await self._transfer(self._writes, request, CALL_READY, reservation.heard)

    async def answer_within(
        self, endpoint: str, exchange: Awaitable[Reply], heard: Heard, seconds: float | None = None
    ) -> Reply:
        """Return the answer of an exchange, of which so much was `heard`.

        Raises `ApiTimeoutError` where it takes longer than `api.timeout`. An error counts by its status even then.
        """
        within = self._timeout if seconds is None else max(0.0, seconds)
        try:
            async with asyncio.timeout(within):
                return await exchange
        except TimeoutError:
            if heard.rejection:
                raise heard.rejection from None
            raise ApiTimeoutError(f"no complete answer to {endpoint} within {within:g} s") from None

    def count(self, endpoint: str, status: str, started: float) -> None:
        """Count a request that began at `started`, on the clock's `monotonic`."""
        self._observer.request_done(self.account, endpoint, status, self.clock.monotonic() - started)

    async def _read(self, request: httpx.Request, endpoint: str, priority: Priority, deadline: float) -> Reading:
        """Send a request that may be repeated, since it changes nothing."""

        def too_late(state: RetryCallState) -> bool:
            return self.clock.monotonic() + state.upcoming_sleep >= deadline

        tries = count()

        async def attempt() -> Reading:
            last_moment = deadline if next(tries) else math.inf
            return await self._once(request, endpoint, priority, deadline=deadline, last_moment=last_moment)

        retrying = AsyncRetrying(
            stop=lambda state: stop_after_attempt(ATTEMPTS)(state) or too_late(state),
            wait=wait_random_exponential(multiplier=0.5, max=5.0),
            retry=retry_if_exception(lambda error: isinstance(error, ApiError) and error.retryable),
            sleep=self.clock.sleep,
            reraise=True,
        )
        with self._used():
            return await retrying(attempt)

    async def _once(
        self, request: httpx.Request, endpoint: str, priority: Priority, *, deadline: float, last_moment: float
    ) -> Reading:
        async with self.budget.request(priority, deadline):
            return await self._exchange(request, endpoint, min(self._timeout, last_moment - self.clock.monotonic()))

    async def _exchange(self, request: httpx.Request, endpoint: str, within: float) -> Reading:
        """Send a request once, whose place in the budget is held, and read the answer."""
        asked_at, started, heard = self.clock.time(), self.clock.monotonic(), Heard()
        try:
            exchange = self._transfer(self._http, request, endpoint, heard)
            body = (await self.answer_within(endpoint, exchange, heard, within)).body
            return Reading(body, asked=started, asked_at=asked_at)
        finally:
            self.count(endpoint, heard.label, started)

    async def _transfer(self, pool: httpx.AsyncClient, request: httpx.Request, endpoint: str, heard: Heard) -> Reply:
        with _translated(endpoint, request.url.host):
            response = await pool.send(request, stream=True)
            heard.status = response.status_code
            try:
                accepted = ACCEPTED if endpoint == CALL_READY else {HTTPStatus.OK}
                return Reply(response.status_code, await self._body(response, accepted, heard))
            finally:
                await response.aclose()

    async def _body(self, response: httpx.Response, accepted: Collection[int], heard: Heard) -> bytearray:
        if response.status_code not in accepted:
            retry_after = _retry_after(response.headers.get("Retry-After"), self.clock.time())
            if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
                self.budget.pause(retry_after)  # before the body, which may never come
            heard.rejection = _rejection(response.status_code, None, retry_after)
            raise _rejection(response.status_code, await _code(response), retry_after)
        limit = self._api.max_response_bytes
        body = await _read_up_to(response, limit + 1)
        if len(body) > limit:
            raise TooLargeError(f"the answer is longer than api.max_response_bytes, which is {limit}")
        return body


class Reservation:
    """Open connection for one request, which waits just before its first byte until it is sent, or never is.

    `left` says whether any byte may have left, `heard` what has come of the answer. The request's body is guarded as
    well: whatever becomes of the moments that the transport reports, a body without a lease is never sent, and no API
    acts on a request without its body.
    """

    def __init__(self, client: VocobaseClient, body: Mapping[str, Any], place: Place) -> None:
        loop = asyncio.get_running_loop()
        self.left = False
        self._place = place
        self._client = client
        self.heard = Heard()
        self._stream: Any = None  # httpcore's network stream
        self._opened: asyncio.Future[None] = loop.create_future()
        self._lease: asyncio.Future[Lease] = loop.create_future()
        content = json.dumps(dict(body)).encode()
        self._exchange = loop.create_task(
            client.transfer_write(self._guarded(content), len(content), self), name=CALL_READY
        )

    async def open(self, within: float) -> None:
        """Return when the connection is open. Raises `ConnectError` where it is not after so many seconds."""
        started = self._client.clock.monotonic()
        both: set[asyncio.Future[Any]] = {self._exchange, self._opened}
        await asyncio.wait(both, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if self._opened.done():
            return
        self._count(started)
        if self._exchange.done():
            await self._exchange  # raises why
        raise ConnectError(f"no connection for {CALL_READY} within {within:g} s")

    async def turn(self, deadline: float) -> None:
        """Wait until the budget lets the request leave, which has to be soon. Raises `QuotaError` at the deadline."""
        await self._place.turn(deadline)

    async def send(self, lease: Lease) -> Reply:
        """Let the request leave while the lease lasts, and return its answer.

        Raises `LeaseExpiredError` where the lease is over before the first byte left, `NotSentError` where the other
        side has closed the connection by then, and any other `ApiError`.
        """
        started = self._client.clock.monotonic()
        self._lease.set_result(lease)
        try:
            return await self._client.answer_within(CALL_READY, self._exchange, self.heard)
        finally:
            if self.left:
                self._count(started)

    async def close(self) -> None:
        """Close the connection; what has not left by now never does."""
        self._exchange.cancel()
        await asyncio.wait({self._exchange})
        if not self.left:
            self._place.unused()
        if not self._exchange.cancelled():
            self._exchange.exception()  # `open` or `send` said it

    async def trace(self, moment: str, info: Mapping[str, Any]) -> None:
        """Follow the request through the transport, and stop it before its first byte until it may leave."""
        if moment.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._stream = info["return_value"]
            _bound_unacknowledged(self._stream)
        elif moment == _HEADERS and info["request"].method != b"CONNECT":  # that one asks a proxy for the way
            if self._opened.done():
                raise NotSentError("the transport asked for a second try, which a write never gets")
            self._opened.set_result(None)
            lease = await self._lease
            if expired := lease.expired:
                raise LeaseExpiredError(
                    f"more than {lease.seconds:g} s after the claim ({expired}), so the request was not sent"
                )
            if _closed_by_peer(self._stream):
                raise NotSentError("the API closed the connection before the request left, so nothing was sent")
            if not self._place.leaves():
                raise LeaseExpiredError(
                    f"it did not leave within {LEAVES_WITHIN:g} s of its turn in the request budget: the store took "
                    "too long to claim it, or the API asked for a pause meanwhile"
                )
            self.left = True

    async def _guarded(self, content: bytes) -> AsyncIterator[bytes]:
        if not self._lease.done() or self._lease.cancelled():
            raise NotSentError("the transport asked for a request that was not to leave")
        if expired := self._lease.result().expired:
            raise BrokenAnswerError(f"the request was cut off before its body: {expired} since the claim")
        yield content

    def _count(self, started: float) -> None:
        self._client.count(CALL_READY, self.heard.label, started)


def _bound_unacknowledged(stream: Any) -> None:  # noqa: ANN401 - httpcore's
    """Have the system give up a connection whose bytes arrive nowhere, so that a request can't arrive much later."""
    sock = stream.get_extra_info("socket") if stream else None
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if sock is not None and option is not None:
        with suppress(OSError):  # a socket that is not TCP
            sock.setsockopt(socket.IPPROTO_TCP, option, int(UNACKNOWLEDGED * 1000))


def _closed_by_peer(stream: Any) -> bool:  # noqa: ANN401 - httpcore's
    """Return whether the other side has closed the connection, as far as the system can tell."""
    sock = stream.get_extra_info("socket") if stream else None
    hang_up = getattr(select, "POLLRDHUP", 0)
    if sock is None or not hang_up:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), hang_up)
    return bool(poll.poll(0))


async def _read_up_to(response: httpx.Response, limit: int) -> bytearray:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) >= limit:
            break
    return body


async def _code(response: httpx.Response) -> str | None:
    """Return the `error.code` of an answer whose status says enough: a body that does not come changes nothing."""
    try:
        async with asyncio.timeout(_ERROR_BODY_WITHIN):
            return error_code(await _read_up_to(response, _ERROR_BODY))
    except (httpx.HTTPError, TimeoutError):
        return None


def _rejection(status: int, code: str | None, retry_after: float | None) -> RejectedError:
    said = f"{status} {code}" if code else f"{status}"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimitedError(f"the API limits our rate ({said})", status=status, code=code, retry_after=retry_after)
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return RedirectError(f"the API redirects ({said}), which is not followed", status=status, code=code)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ServerError(f"the API has a fault ({said})", status=status, code=code)
    if status >= HTTPStatus.BAD_REQUEST:
        return _BY_STATUS.get(status, RejectedError)(f"the API refuses ({said})", status=status, code=code)
    return RejectedError(f"the API answered with a status it doesn't document ({said})", status=status, code=code)


@contextmanager
def _environment_used() -> Iterator[None]:
    """Turn what httpx raises over the environment into ours, without the values: a proxy's may hold a password."""
    try:
        yield
    except OSError as error:
        why = "no usable certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise StartupError(f"can't load the trusted authorities: {why}; see SSL_CERT_FILE and SSL_CERT_DIR") from None
    except (ImportError, ValueError, httpx.InvalidURL):
        raise StartupError(
            "can't use the environment's proxies; see HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY"
        ) from None


@contextmanager
def _translated(endpoint: str, host: str) -> Iterator[None]:
    """Turn httpx's errors into ours, at the only place where there are any."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        raise ConnectError(f"no connection to {host}: {_why(error)}") from None
    except httpx.DecodingError:
        raise BadResponseError(f"the answer to {endpoint} is compressed in a way that can't be undone") from None
    except httpx.TransportError as error:
        raise BrokenAnswerError(f"the answer to {endpoint} broke off: {type(error).__name__}") from None


def _why(error: BaseException) -> str:
    """Return what lies at the bottom of a failed connection, in an operator's words."""
    if isinstance(error, httpx.TimeoutException):
        return "it took too long"
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {getattr(cause, 'verify_message', '') or cause.reason or 'no common protocol'}"
        if isinstance(cause, socket.gaierror):
            return "the name can't be resolved"
        if isinstance(cause, ConnectionRefusedError):
            return "refused"
    return str(error) or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk down what an error came from; a name with several addresses has several reasons."""
    yield error
    inner = [*error.exceptions] if isinstance(error, BaseExceptionGroup) else [error.__cause__ or error.__context__]
    for cause in inner:
        if cause:
            yield from _causes(cause)


def _retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that a `Retry-After` header names, as a number or as a date; `None` where it names none."""
    text = (value or "").strip()
    if re.fullmatch(r"\d+", text, re.ASCII):
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.fromtimestamp(now, UTC)).total_seconds())
