"""Every page for machines but `/metrics`, `/probe` and the JSON API, and what is answered where there is no page."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from exporter.config import Config
from tests.support.http import connect, read_reply
from tests.web.conftest import KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.web.conftest import Web

    Start = Callable[..., Web]

PAGES = ("/", "/dids/%2B918011223344", "/static/status.css", "/metrics", "/-/healthy", "/-/ready", "/config", "/probe")


def test_healthy_from_the_start(start: Start) -> None:
    reply = start(polled=False).get("/-/healthy")
    assert (reply.status, reply.text) == (200, "Healthy.\n")


def test_ready_once_every_target_was_tried(start: Start) -> None:
    web = start(polled=False, connections=2)
    reply = web.get("/-/ready")
    assert (reply.status, reply.text) == (503, "Not ready: some target has not been tried yet.\n")
    web.discover()
    first, second = web.poller.fleet.targets
    web.call(web.poller.poll(first))
    assert web.get("/-/ready").status == 503
    web.call(web.poller.poll(second))
    reply = web.get("/-/ready")
    assert (reply.status, reply.text) == (200, "Ready: every target has been tried.\n")


def test_ready_while_the_api_is_down(start: Start) -> None:
    web = start(polled=False)
    web.simulator.add_fault("status:status=401")
    assert web.get("/-/ready").status == 503
    web.discover()
    web.poll()
    assert web.get("/-/ready").status == 200


def test_the_configuration_is_shown_without_its_secrets_and_loads_again(start: Start) -> None:
    written = {
        "accounts": [
            {
                "name": "default",
                "api_key_env": "VOCOBASE_API_KEY",
                "dids": [{"did_number": "+918011223344", "websocket_url": "wss://me:pass@bot.example/x?token=hidden"}],
                "exclude": ["+918011223345"],
            }
        ],
        "store": {"url": "postgresql+psycopg://me:pass@db.example/x?sslpassword=hidden"},
        "heal": {"windows": [{"cron": "0 9 * * mon-fri", "duration": "8h", "timezone": "Asia/Kolkata"}]},
        "poll": {"interval": "90s"},
    }
    reply = start(written, polled=False).get("/config")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("application/yaml")
    for secret in (KEY, "hidden", "pass@", os.environ.get("VOCOBASE_API_KEY") or KEY):
        assert secret not in reply.text
    shown = YAML(typ="safe", pure=True).load(reply.text)
    assert shown["accounts"][0]["dids"][0]["websocket_url"].endswith("<secret>@bot.example/x?<secret>")
    assert shown["store"]["url"].endswith("<secret>@db.example/x?<secret>")
    assert shown["heal"]["mode"] == "off"
    assert shown["poll"] == {"interval": "1m30s", "jitter": "5s", "stale_after": "5m"}
    assert Config.model_validate(shown).model_dump(mode="json") == shown


@pytest.mark.parametrize("path", PAGES)
def test_another_method_is_refused_with_those_that_are_not(web: Web, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"):
        reply = web.get(path, method)
        assert (reply.status, reply.text) == (405, "Method Not Allowed")
        assert set(reply.headers["allow"].split(", ")) == {"GET", "HEAD"}
    assert web.get(path, "HEAD").body == b""


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/metrics/",
        "/metrics/x",
        "/-/reload",
        "/-/",
        "/dids",
        "/dids/",
        "/dids/918011223344/",
        "/static/",
        "/static/status.html",
        "/static/../site.py",
        "/static/%2e%2e%2fsite.py",
        "/api",
        "/api/v1",
        "//metrics",
        "/../etc/passwd",
        "/metrics%00",
        "/%00",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/%ff%fe",
        "/<script>alert(1)</script>",
        "/" + "x" * 8000,
        "http://elsewhere.example/metrics",
        "*",
    ],
)
def test_an_unknown_path_is_not_found(web: Web, path: str) -> None:
    reply = web.get(path)
    assert (reply.status, reply.text) == (404, "Not Found")
    assert "location" not in reply.headers


def test_a_host_that_is_none_changes_nothing(web: Web) -> None:
    for host in ("[", "a b", "x" * 1000, "\xff", ""):
        assert web.get("/metrics/", Host=host).status == 404
        assert web.get("/metrics", Host=host).status == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /\x00metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: \x00\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n\r\n",
        b"GET /m\xc3\xa9trics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET  HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
        b"\r\n\r\n\x00\xff",
    ],
)
def test_what_is_no_request_is_refused(web: Web, request_bytes: bytes) -> None:
    with connect(web.port) as sock, sock.makefile("rb") as stream:
        sock.sendall(request_bytes)
        reply = read_reply(stream)
    assert (reply.status, reply.body) == (400, b"Invalid HTTP request received.")
    assert reply.headers["connection"] == "close"
    assert web.get("/-/healthy").status == 200
