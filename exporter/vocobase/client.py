"""Requests to the API over HTTP. The one place that knows httpx; its errors end here."""

from __future__ import annotations

import asyncio
import math
import re
import socket
import ssl
from contextlib import asynccontextmanager, contextmanager
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
    NotFoundError,
    RateLimitedError,
    RedirectError,
    RejectedError,
    ServerError,
    StartupError,
    TooLargeError,
    ValidationError,
)
from exporter.vocobase.budget import Priority, RequestBudget
from exporter.vocobase.parse import error_code

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from pydantic import SecretStr

    from exporter.clock import Clock
    from exporter.config import Config

ATTEMPTS: Final = 3  # of a read request: the first and two retries
SYNC: Final = "voicelink/sync"
CONNECTIONS: Final = "telephony/connections"
CALL_READY: Final = "voicelink/call-ready"
ENDPOINTS: Final = (SYNC, CONNECTIONS, CALL_READY)
_ERROR_BODY: Final = 65_536  # bytes; an error's envelope is short
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


class VocobaseClient:
    """One account's requests, over one pool of connections.

    `transport` replaces the network in tests (an in-process simulator); `tls` can be shared, as loading the
    authorities takes longer than a request. Making one raises `StartupError` where the environment's proxies are wrong.
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
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.account = account
        self.budget = budget
        self._api = config.api
        self._timeout = config.api.timeout.total_seconds()
        self._observer = observer
        self._clock = clock
        self._users = 0  # requests that were asked for and aren't over, waiting ones included
        self._idle = asyncio.Event()
        with _environment_used():
            self._http = httpx.AsyncClient(
                base_url=config.api.base_url,
                headers={
                    "Authorization": f"Bearer {key.get_secret_value()}",
                    "Accept": "application/json",
                    "User-Agent": f"voicelink-exporter/{__version__}",
                },
                follow_redirects=False,
                # The whole is timed in `_once`; a connection that takes half of that is told apart: nothing was sent.
                timeout=httpx.Timeout(None, connect=self._timeout / 2),
                verify=tls or True,
                transport=transport,
            )

    async def aclose(self) -> None:
        """Close the pool."""
        await self._http.aclose()

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

    async def sync(self, connection_id: str | None, *, deadline: float) -> bytearray:
        """Ask for the readiness of all DIDs of a connection: one request that writes nothing.

        Returns the answer's body. Retries end before `deadline`, on the clock's `monotonic`. Raises `ApiError`.
        """
        body: dict[str, Any] = {"import_dids": False}  # the API's default is true, which would write
        if connection_id:
            body["connection_id"] = connection_id
        request = self._http.build_request("POST", f"/{SYNC}", json=body)
        return await self._read(request, SYNC, Priority.POLL, deadline)

    async def connections(self, *, deadline: float, urgent: bool = False) -> bytearray:
        """Ask for the list of VoiceLink connections; `urgent` gives it the rank of a poll.

        Returns the answer's body. Raises `ApiError`.
        """
        priority = Priority.POLL if urgent else Priority.DISCOVERY
        request = self._http.build_request("GET", f"/{CONNECTIONS}", params={"provider": "voicelink"})
        return await self._read(request, CONNECTIONS, priority, deadline)

    async def call_ready(
        self, body: Mapping[str, Any], *, deadline: float, gate: Callable[[], Awaitable[bool]]
    ) -> bytearray | None:
        """Ask the API to make a DID call-ready: a write, sent once and never again.

        When the request has its place in the budget, `gate` is awaited: only if it allows is anything sent, and nothing
        comes between. Returns the answer's body, `None` where the gate did not allow. Raises `ApiError`: a
        `NotSentError` says that nothing reached the API.
        """
        request = self._http.build_request("POST", f"/{CALL_READY}", json=dict(body))
        with self._used():
            async with self.budget.request(Priority.HEAL, deadline):
                return await self._exchange(request, CALL_READY, self._timeout) if await gate() else None

    async def _read(self, request: httpx.Request, endpoint: str, priority: Priority, deadline: float) -> bytearray:
        """Send a request that may be repeated, since it changes nothing."""

        def too_late(state: RetryCallState) -> bool:
            return self._clock.monotonic() + state.upcoming_sleep >= deadline

        tries = count()

        async def attempt() -> bytearray:
            last_moment = deadline if next(tries) else math.inf
            return await self._once(request, endpoint, priority, deadline=deadline, last_moment=last_moment)

        retrying = AsyncRetrying(
            stop=lambda state: stop_after_attempt(ATTEMPTS)(state) or too_late(state),
            wait=wait_random_exponential(multiplier=0.5, max=5.0),
            retry=retry_if_exception(lambda error: isinstance(error, ApiError) and error.retryable),
            sleep=self._clock.sleep,
            reraise=True,
        )
        with self._used():
            return await retrying(attempt)

    async def _once(
        self, request: httpx.Request, endpoint: str, priority: Priority, *, deadline: float, last_moment: float
    ) -> bytearray:
        async with self.budget.request(priority, deadline):
            return await self._exchange(request, endpoint, min(self._timeout, last_moment - self._clock.monotonic()))

    async def _exchange(self, request: httpx.Request, endpoint: str, within: float) -> bytearray:
        """Send a request once, whose place in the budget is held, and read the answer."""
        async with self._observed(endpoint) as answered:
            try:
                async with asyncio.timeout(within):
                    with _translated(endpoint, request.url.host):
                        response = await self._http.send(request, stream=True)
                        answered(response.status_code)
                        try:
                            return await self._body(response)
                        finally:
                            await response.aclose()
            except TimeoutError:
                raise ApiTimeoutError(f"no complete answer to {endpoint} within {within:g} s") from None

    @asynccontextmanager
    async def _observed(self, endpoint: str) -> AsyncIterator[Callable[[int], None]]:
        started, status = self._clock.monotonic(), "error"

        def answered(code: int) -> None:
            nonlocal status
            status = str(code)

        try:
            yield answered
        finally:
            self._observer.request_done(self.account, endpoint, status, self._clock.monotonic() - started)

    async def _body(self, response: httpx.Response) -> bytearray:
        if response.status_code != HTTPStatus.OK:
            retry_after = _retry_after(response.headers.get("Retry-After"), self._clock.time())
            if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
                self.budget.pause(retry_after)  # before the body, which may never come
            raise _rejection(response.status_code, await _code(response), retry_after)
        limit = self._api.max_response_bytes
        body = await _read_up_to(response, limit + 1)
        if len(body) > limit:
            raise TooLargeError(f"the answer is longer than api.max_response_bytes, which is {limit}")
        return body


async def _read_up_to(response: httpx.Response, limit: int) -> bytearray:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) >= limit:
            break
    return body


async def _code(response: httpx.Response) -> str | None:
    """Return the `error.code` of an answer whose status says enough: a body that can't be read changes nothing."""
    try:
        return error_code(await _read_up_to(response, _ERROR_BODY))
    except httpx.HTTPError:
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
