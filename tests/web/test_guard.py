"""What stands before every page, around an application that only says that it was reached."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from starlette.responses import PlainTextResponse

from exporter.web.guard import DEFAULTS, EXEMPT, SAFE, Guard, Rules, headers_of
from exporter.web.limit import TokenBucket
from exporter.web.passwords import PasswordChecker, Users
from tests.support.certificates import hashed
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from typing import Any

    from starlette.types import Receive, Scope, Send

ALICE = base64.b64encode(b"alice:secret").decode()
RIGHT = ("Authorization", f"Basic {ALICE}")
WRONG = ("Authorization", "Basic " + base64.b64encode(b"alice:wrong").decode())
PLAIN = Rules(headers_of({}))
Header = tuple[str, str]


@pytest.fixture
def rules() -> Iterator[Rules]:
    """Return rules with one user."""
    checker = PasswordChecker()
    yield Rules(headers_of({}), Users({"alice": hashed("secret")}, checker))
    checker.close()


async def ask(
    rules: Rules, path: str = "/metrics", method: str = "GET", *headers: Header, said: dict[str, str] | None = None
) -> tuple[int, dict[str, list[str]], str]:
    """Ask a guarded application, whose own answer has the headers `said`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("reached", headers=said)(scope, receive, send)

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError("nobody has to read the body")

    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
    }
    await Guard(app, lambda: rules)(scope, receive, send)
    found: dict[str, list[str]] = {}
    for name, value in sent[0]["headers"]:
        found.setdefault(name.decode(), []).append(value.decode())
    return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent).decode()


async def test_every_answer_carries_the_strict_headers_once() -> None:
    status, headers, body = await ask(PLAIN)
    assert (status, body) == (200, "reached")
    for name, value in DEFAULTS.items():
        assert headers[name.lower()] == [value]
    assert "cache-control" not in headers


async def test_refusals_and_exempt_paths_carry_them_too(rules: Rules) -> None:
    for path in ("/metrics", *EXEMPT):
        _, headers, _ = await ask(rules, path)
        assert headers["content-security-policy"] == [DEFAULTS["Content-Security-Policy"]]


async def test_what_is_configured_replaces_them_and_what_is_blank_is_not_sent() -> None:
    configured = {"Content-Security-Policy": "default-src *", "X-Content-Type-Options": "", "X-Frame-Options": "deny"}
    _, headers, _ = await ask(Rules(headers_of(configured)), said={"Content-Security-Policy": "img-src *"})
    assert headers["content-security-policy"] == ["default-src *"]
    assert headers["x-frame-options"] == ["deny"]
    assert "x-content-type-options" not in headers


async def test_without_a_password_nobody_comes_in(rules: Rules) -> None:
    for header in ((), (WRONG,), (RIGHT, RIGHT), (("Authorization", "Basic"),)):
        status, headers, body = await ask(rules, "/metrics", "GET", *header)
        assert (status, body) == (401, "Unauthorized: a user and password are needed.\n")
        assert headers["www-authenticate"] == ['Basic realm="voicelink-exporter", charset="UTF-8"']
        assert headers["cache-control"] == ["no-store"]


async def test_with_the_right_one_everybody_does(rules: Rules) -> None:
    status, headers, body = await ask(rules, "/metrics", "GET", RIGHT)
    assert (status, body) == (200, "reached")
    assert headers["cache-control"] == ["private, no-cache"]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("public, max-age=3600", "private, no-cache"),
        ("max-age=3600", "private, no-cache"),
        ("private, max-age=3600", "private, max-age=3600"),
        ("no-store", "no-store"),
    ],
)
async def test_what_needs_a_password_is_stored_by_no_shared_cache(rules: Rules, said: str, kept: str) -> None:
    _, headers, _ = await ask(rules, "/metrics", "GET", RIGHT, said={"Cache-Control": said})
    assert headers["cache-control"] == [kept]
    _, headers, _ = await ask(PLAIN, said={"Cache-Control": said})
    assert headers["cache-control"] == [said]


@pytest.mark.parametrize("path", sorted(EXEMPT))
async def test_exempt_paths_ask_for_nothing(rules: Rules, path: str) -> None:
    assert (await ask(rules, path))[0] == 200
    assert (await ask(rules, path, "GET", WRONG))[0] == 200


@pytest.mark.parametrize(
    "path", ["/", "/-/healthy/", "/-/Healthy", "//-/healthy", "/-/reload", "/-/healthy/../metrics"]
)
async def test_no_other_path_is_exempt(rules: Rules, path: str) -> None:
    assert (await ask(rules, path))[0] == 401


async def test_beyond_the_rate_limit_the_answer_is_429() -> None:
    limited = Rules(headers_of({}), None, TokenBucket(2.5, 2, ManualClock()))
    assert [(await ask(limited))[0] for _ in range(2)] == [200, 200]
    status, headers, body = await ask(limited)
    assert (status, headers["retry-after"], body) == (429, ["3"], "Too many requests.\n")
    assert [(await ask(limited, path))[0] for path in EXEMPT] == [200, 200]


async def test_beyond_the_rate_limit_no_password_is_checked(rules: Rules) -> None:
    limited = Rules(rules.headers, rules.users, TokenBucket(60, 1, ManualClock()))
    assert [(await ask(limited, "/metrics", "GET", RIGHT))[0] for _ in range(2)] == [200, 429]


async def test_when_too_many_passwords_wait_the_answer_is_503() -> None:
    class Busy(PasswordChecker):
        most_waiting = 0

    checker = Busy()
    busy = Rules(headers_of({}), Users({"alice": hashed("secret")}, checker))
    status, headers, _ = await ask(busy, "/metrics", "GET", RIGHT)
    checker.close()
    assert (status, headers["retry-after"]) == (503, ["1"])


HOST = ("Host", "exporter.example:10880")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "BREW"])
async def test_a_foreign_page_changes_nothing(method: str) -> None:
    for origin in (
        "https://evil.example",
        "null",
        "https://exporter.example",
        "https://exporter.example:10880.evil",
        "http://[",
        "http://é",
    ):
        status, _, body = await ask(PLAIN, "/-/reload", method, HOST, ("Origin", origin))
        assert status == 403
        assert body == "Refused: the page that sent this request comes from elsewhere.\n"


async def test_our_own_pages_and_who_is_no_browser_may() -> None:
    for origin in ("https://exporter.example:10880", "HTTP://EXPORTER.example:10880"):
        assert (await ask(PLAIN, "/-/reload", "POST", HOST, ("Origin", origin)))[0] == 200
    assert (await ask(PLAIN, "/-/reload", "POST", HOST))[0] == 200


async def test_two_hosts_or_a_second_origin_pass_for_no_page_of_ours() -> None:
    ours = ("Origin", "https://exporter.example:10880")
    assert (await ask(PLAIN, "/-/reload", "POST", HOST, HOST, ours))[0] == 403
    assert (await ask(PLAIN, "/-/reload", "POST", HOST, ours, ("Origin", "https://evil.example")))[0] == 403
    assert (await ask(PLAIN, "/-/reload", "POST", ours))[0] == 403


@pytest.mark.parametrize("method", sorted(SAFE))
async def test_foreign_pages_may_read_what_they_then_are_not_shown(method: str) -> None:
    assert (await ask(PLAIN, "/metrics", method, HOST, ("Origin", "https://evil.example")))[0] == 200
