"""docs/reference/http.md and the routes of the web server say the same."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr
from starlette.routing import Mount, Route

from exporter.app import site_of
from exporter.config import Config, Settings
from exporter.parts import Exporter
from exporter.web.api import create_api
from exporter.web.guard import DEFAULTS, EXEMPT
from exporter.web.passwords import CHECKS_AT_ONCE, MAX_WAITING
from exporter.web.reader import Reader
from exporter.web.server import DRAIN, HANDSHAKE_TIMEOUT, HEADER_TIMEOUT, KEEP_ALIVE, MAX_CONNECTIONS, MAX_HEADERS
from exporter.web.site import create_site
from tests.support.markdown import codes, read, rows, section

PAGE = "docs/reference/http.md"
LIMITS = {
    "Request line and headers": f"{MAX_HEADERS:,} bytes",
    "Time for a TLS handshake": f"{HANDSHAKE_TIMEOUT:g} s",
    "Time for a request's headers": f"{HEADER_TIMEOUT:g} s",
    "Connections at once": str(MAX_CONNECTIONS),
    "Idle connection": f"{KEEP_ALIVE} s",
}
GET = frozenset({"GET", "HEAD"})  # that HEAD is answered everywhere, tests/web/test_api.py shows
Routes = dict[str, frozenset[str]]


def in_the_code() -> Routes:
    exporter = Exporter(Settings(Config(), {"default": SecretStr("rg_live_MadeUp")}))
    site = site_of(exporter, exporter.poller.tick)  # with all that a flag may add
    app, api = create_site(site), create_api(Reader(site))
    exporter.poller.close()
    found: Routes = {}
    for route in app.routes:
        if isinstance(route, Mount):
            assert route.path == "/api/v1", f"{route} is another mount: this test has to learn about it"
            found |= {f"{route.path}{each.path}": GET for each in api.routes if isinstance(each, Route)}
        else:
            assert isinstance(route, Route), f"{route} is no plain route: this test has to learn about it"
            found[route.path] = found.get(route.path, frozenset()) | frozenset(route.methods or ())
    return found


def in_the_docs(text: str) -> Routes:
    return {
        codes(row["Path"])[0]: frozenset(method.strip() for method in row["Methods"].split(","))
        for row in rows(text)
        if "Path" in row
    }


def differences(text: str) -> dict[str, tuple[Any, Any]]:
    """Return what code and page say differently: the code's word and the page's."""
    code, page = in_the_code(), in_the_docs(text)
    wrong: dict[str, tuple[Any, Any]] = {
        path: (code.get(path), page.get(path)) for path in code.keys() | page.keys() if code.get(path) != page.get(path)
    }
    limits = {row["Limit"]: row["Value"] for row in rows(text) if "Limit" in row}
    return wrong | {
        name: (LIMITS.get(name), limits.get(name))
        for name in LIMITS.keys() | limits.keys()
        if LIMITS.get(name) != limits.get(name)
    }


def test_the_page_names_every_path_with_its_methods_and_no_other() -> None:
    assert differences(read(PAGE)) == {}


def test_the_page_names_the_headers_of_every_answer() -> None:
    told = {codes(row["Header"])[0]: codes(row["Value"])[0] for row in rows(read(PAGE)) if "Header" in row}
    assert told == DEFAULTS


def test_the_page_says_what_is_exempt_and_how_many_passwords_may_wait() -> None:
    text = section(read(PAGE), "Before every page").text
    assert "on any path but `/-/healthy` and `/-/ready`" in text
    assert {"/-/healthy", "/-/ready"} == EXEMPT
    assert f"More than {CHECKS_AT_ONCE + MAX_WAITING} passwords" in text


def test_the_page_says_how_long_requests_have_at_the_end() -> None:
    assert f"At SIGTERM requests under way have {DRAIN:g} s to end." in section(read(PAGE), "Limits").text


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("| `/config` | GET, HEAD |", "| `/config` | GET, POST |", {"/config"}),
        ("| `/-/ready` |", "| `/ready` |", {"/-/ready", "/ready"}),
        ("| 16,384 bytes |", "| 8,192 bytes |", {"Request line and headers"}),
    ],
)
def test_a_page_that_says_something_else_is_noticed(old: str, new: str, found: set[str]) -> None:
    text = read(PAGE)
    assert old in text
    assert set(differences(text.replace(old, new, 1))) - set(differences(text)) == found
