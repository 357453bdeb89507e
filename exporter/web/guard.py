"""What stands before every page: rate limit, foreign origins, passwords, and headers for browsers on every answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping
    from typing import Any

    from starlette.types import ASGIApp, Receive, Scope, Send

    from exporter.web.limit import TokenBucket
    from exporter.web.passwords import Users

    Header = tuple[bytes, bytes]

EXEMPT: Final = frozenset({"/-/healthy", "/-/ready"})  # for supervisors, which have no password
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
DEFAULTS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
}
CHALLENGE: Final = 'Basic realm="voicelink-exporter", charset="UTF-8"'
_NOT_STORED: Final = {"Cache-Control": "no-store"}
_PRIVATE: Final = (b"cache-control", b"private, no-cache")


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for a request. Without users nobody is asked for a password, without a bucket nothing is too much."""

    headers: tuple[Header, ...]
    users: Users | None = None
    bucket: TokenBucket | None = None


def headers_of(configured: Mapping[str, str]) -> tuple[Header, ...]:
    """Return the headers of every answer: the strict ones, and what is configured instead. A blank one is not sent."""
    return tuple((name.lower().encode(), value.encode()) for name, value in {**DEFAULTS, **configured}.items() if value)


class Guard:
    """An ASGI application around another. `rules` are asked for at each request, since they change while it runs."""

    def __init__(self, app: ASGIApp, rules: Callable[[], Rules]) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what may not pass; let the rest through."""
        rules = self._rules()
        guarded = scope["path"] not in EXEMPT
        extra = rules.headers
        private = guarded and rules.users is not None
        names = {name for name, _ in extra}

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = [header for header in message["headers"] if header[0] not in names]
                message["headers"] = [*(_kept_private(headers) if private else headers), *extra]
            await send(message)

        refusal = await _refusal(rules, scope) if guarded else None
        await (refusal or self._app)(scope, receive, send_with_headers)


async def _refusal(rules: Rules, scope: Scope) -> PlainTextResponse | None:
    """Return what is answered to a request that may not pass, `None` to one that may."""
    wait = rules.bucket.wait() if rules.bucket else 0.0
    if wait:
        return _refused(429, "Too many requests.", {"Retry-After": str(math.ceil(wait))})
    if scope["method"] not in SAFE and _is_foreign(scope):
        return _refused(403, "Refused: the page that sent this request comes from elsewhere.")
    if rules.users is None:
        return None
    said = _values(scope, b"authorization")
    allowed = await rules.users.may_enter(said[0]) if len(said) == 1 else False
    if allowed is None:
        return _refused(503, "Too many passwords wait to be checked.", {"Retry-After": "1"})
    if allowed:
        return None
    return _refused(401, "Unauthorized: a user and password are needed.", {"WWW-Authenticate": CHALLENGE})


def _refused(status: int, text: str, headers: Mapping[str, str] | None = None) -> PlainTextResponse:
    return PlainTextResponse(f"{text}\n", status, {**_NOT_STORED, **(headers or {})})


def _is_foreign(scope: Scope) -> bool:
    """Tell whether a browser sends this for a page of another host. Who isn't a browser names no origin."""
    (host, *others), origins = _values(scope, b"host") or [b""], _values(scope, b"origin")
    return bool(others) or any(_host_of(origin) != host.lower() for origin in origins)


def _host_of(origin: bytes) -> bytes:
    try:
        return urlsplit(origin.lower()).netloc
    except ValueError:
        return b"?"


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


def _kept_private(headers: list[Header]) -> list[Header]:
    """Return headers that no shared cache stores the answer by; what is stricter already stays."""
    said = b", ".join(value for name, value in headers if name == b"cache-control")
    if b"private" in said or b"no-store" in said:
        return headers
    return [*(header for header in headers if header[0] != b"cache-control"), _PRIVATE]
