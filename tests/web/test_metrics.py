"""`/metrics`: which format, how packed, and that it is there whatever the API does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from exporter.web.metrics import wants_gzip, wants_openmetrics
from tests.support.http import connect, read_reply, sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.web.conftest import Web

    Start = Callable[..., Web]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (PROMETHEUS_2, True),
        (PROMETHEUS_3, True),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0", True),
        ("APPLICATION/OpenMetrics-Text;Version=1.0.0", True),
        ("text/plain;q=0.5, application/openmetrics-text;q=0.6", True),
        ("text/html, application/openmetrics-text;q=0.1", True),
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("text/html, application/json", False),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;version=2.0.0", False),
        ("application/openmetrics-text;version=2.0.0, application/openmetrics-text;version=1.0.0;q=0.1", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.000", False),
        ("application/openmetrics-text;q=much", False),
        ("application/openmetrics-text;q=nan", False),
        ("text/plain;q=0.6, application/openmetrics-text;q=0.5", False),
        (";;;,,,=;q", False),
        ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", False),
    ],
)
def test_the_format_is_what_the_client_prefers(accept: str, openmetrics: bool) -> None:  # noqa: FBT001 - a parameter
    assert wants_openmetrics(accept) is openmetrics


@pytest.mark.parametrize(
    ("accept_encoding", "gzipped"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("deflate, gzip;q=0.5", True),
        ("gzip ; q=0.001", True),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("", False),
        ("identity", False),
        ("br, deflate", False),
        ("*", False),
        ("gzip;q=0", False),
        ("gzip;q=0.0", False),
        ("gzip;q=0.000", False),
        ("gzip; q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=x", False),
        ("notgzip", False),
    ],
)
def test_it_is_zipped_where_the_client_names_gzip(
    accept_encoding: str,
    gzipped: bool,  # noqa: FBT001 - a parameter
) -> None:
    assert wants_gzip(accept_encoding) is gzipped


@pytest.mark.parametrize("packed", ["gzip", "identity"])
def test_text(web: Web, packed: str) -> None:
    reply = web.get("/metrics", Accept_Encoding=packed)
    assert reply.status == 200
    assert reply.headers["content-type"] == TEXT
    assert reply.headers["content-length"] == str(len(reply.body))
    assert reply.headers["vary"] == "Accept, Accept-Encoding"
    assert reply.headers.get("content-encoding") == (packed if packed == "gzip" else None)
    names = {family.name for family in text_families(reply.text)}
    assert {"voicelink_did_ready", "voicelink_up", "voicelink_exporter_build_info"} <= names
    assert sample(reply.text, "voicelink_did_ready", phone_number="+918011223344") == 1


@pytest.mark.parametrize("packed", ["gzip", "identity"])
def test_openmetrics(web: Web, packed: str) -> None:
    reply = web.get("/metrics", Accept=PROMETHEUS_2, Accept_Encoding=packed)
    assert reply.headers["content-type"] == OPENMETRICS
    assert reply.headers["content-length"] == str(len(reply.body))
    assert reply.headers.get("content-encoding") == (packed if packed == "gzip" else None)
    assert reply.text.endswith("# EOF\n")
    names = {family.name for family in openmetrics_families(reply.text)}  # type: ignore[no-untyped-call]
    assert {"voicelink_did_ready", "voicelink_polls", "voicelink_exporter_build_info"} <= names


@pytest.mark.parametrize("accept_encoding", ["gzip", "identity"])
def test_head_is_get_without_the_body(web: Web, accept_encoding: str) -> None:
    with connect(web.port) as sock, sock.makefile("rb") as stream:
        request = f"{{}} /metrics HTTP/1.1\r\nHost: test\r\nAccept-Encoding: {accept_encoding}\r\n\r\n"
        sock.sendall(request.format("HEAD").encode())
        head = read_reply(stream, "HEAD")
        sock.sendall(request.format("GET").encode())  # on the same connection: it only parses if no body came before
        get = read_reply(stream)
    assert (head.status, get.status) == (200, 200)
    names = {"content-type", "content-length", "vary", "content-encoding"}
    assert {name: head.headers.get(name) for name in names} == {name: get.headers.get(name) for name in names}


@pytest.mark.parametrize(
    "fault", ["status:status=401", "status:status=500", "html", "truncate", "wrong_types:level=root"]
)
def test_it_answers_whatever_the_api_does(start: Start, fault: str) -> None:
    web = start(polled=False, faults=())
    web.simulator.add_fault(fault)
    before = web.get("/metrics")
    web.discover()
    web.poll()
    after = web.get("/metrics")
    assert (before.status, after.status) == (200, 200)
    assert "voicelink_up" not in before.text.replace("# HELP voicelink_up", "").replace("# TYPE voicelink_up", "")
    assert sample(after.text, "voicelink_up") == 0
    assert "voicelink_did_ready{" not in after.text


def test_what_was_known_stays_while_the_api_is_down(start: Start) -> None:
    web = start()
    web.simulator.add_fault("status:status=503")
    web.poll()
    text = web.get("/metrics").text
    assert sample(text, "voicelink_up") == 0
    assert sample(text, "voicelink_poll_failures_total", reason="server_error") == 1
    assert sample(text, "voicelink_did_ready", phone_number="+918011223344") == 1
