"""The real client on real sockets: what goes wrong between two machines, and what it is called."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from typing import TYPE_CHECKING

import pytest
import trustme

from exporter.clock import Lease, SystemClock
from exporter.errors import (
    ApiError,
    ApiTimeoutError,
    AuthError,
    BrokenAnswerError,
    ConflictError,
    ConnectError,
    ForbiddenError,
    RateLimitedError,
    RedirectError,
    RejectedError,
    ServerError,
    StartupError,
    TooLargeError,
    ValidationError,
)
from exporter.simulator import SimulatorOptions, create_app
from exporter.vocobase import parse_sync, ssl_context
from tests.support.api import KEY, Requests, answering, api_config, client_of, served, served_simulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from exporter.vocobase import VocobaseClient
    from exporter.vocobase.client import Reply

SYNC = "voicelink/sync"


async def failure(
    base_url: str, *, tls: ssl.SSLContext | None = None, tries: int = 1, patience: float = 20, size: int = 1 << 20
) -> tuple[ApiError, list[str]]:
    """Return what a sync fails with, and the statuses of its requests. With one try, the deadline is now."""
    clock, requests = SystemClock(), Requests()
    config = api_config(base_url, timeout=patience, max_response_bytes=size)
    async with client_of(config, requests=requests, tls=tls, clock=clock) as client:
        with pytest.raises(ApiError) as caught:
            await client.sync(None, deadline=clock.monotonic() + (0 if tries == 1 else 60))
    error: BaseException | None = caught.value
    while error:
        assert KEY not in f"{error!s} {error!r}"
        error = error.__cause__
    assert len(requests.done) == tries
    return caught.value, requests.statuses


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def test_an_answer_over_http() -> None:
    async with served_simulator(dids=30) as (simulator, base_url), client_of(api_config(base_url)) as client:
        answer = parse_sync((await client.sync(None, deadline=client_deadline())).body)
        assert [entry.number for entry in answer.entries] == simulator.numbers


def client_deadline() -> float:
    return SystemClock().monotonic() + 60


async def test_a_name_that_nobody_knows() -> None:
    error, statuses = await failure("http://api.vocobase.invalid/api/v2")
    assert type(error) is ConnectError
    assert str(error) == "no connection to api.vocobase.invalid: the name can't be resolved"
    assert (error.reason.value, statuses) == ("connect", ["error"])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_port_that_nobody_listens_on_is_tried_three_times(host: str) -> None:
    error, statuses = await failure(f"http://{host}:{free_port()}", tries=3)
    assert type(error) is ConnectError
    assert str(error) == f"no connection to {host}: refused"
    assert statuses == ["error"] * 3


async def test_a_connection_that_is_never_made_was_not_sent() -> None:
    """Whoever accepts and never answers the TLS greeting has not seen the request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        error, statuses = await failure(f"https://127.0.0.1:{listener.getsockname()[1]}", patience=0.4)
    assert type(error) is ConnectError
    assert str(error) == "no connection to 127.0.0.1: it took too long"
    assert statuses == ["error"]


@contextlib.asynccontextmanager
async def secure_simulator(folder: Path) -> AsyncIterator[tuple[str, trustme.CA]]:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    app = create_app(SimulatorOptions(dids=1))
    async with served(app, ssl_certfile=str(chain), ssl_keyfile=str(key)) as address:
        yield f"{address}/api/v2", authority


async def test_an_authority_that_is_not_trusted(tmp_path: Path) -> None:
    async with secure_simulator(tmp_path) as (base_url, _):
        error, statuses = await failure(base_url, tls=ssl_context())
    assert type(error) is ConnectError
    assert str(error) == "no connection to 127.0.0.1: TLS failed: unable to get local issuer certificate"
    assert statuses == ["error"]


async def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    async with secure_simulator(tmp_path) as (base_url, authority):
        context = ssl.create_default_context()
        authority.configure_trust(context)
        error, _ = await failure(base_url.replace("127.0.0.1", "localhost"), tls=context)
    assert type(error) is ConnectError
    assert str(error).startswith("no connection to localhost: TLS failed: Hostname mismatch")


async def test_an_authority_that_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with secure_simulator(tmp_path) as (base_url, authority):
        bundle = tmp_path / "ca.pem"
        bundle.write_bytes(authority.cert_pem.bytes())
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
        async with client_of(api_config(base_url), tls=ssl_context()) as client:
            assert len(parse_sync((await client.sync(None, deadline=client_deadline())).body).entries) == 1


async def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n") as (proxy, received):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        error, statuses = await failure("https://api.vocobase.invalid/api/v2")
    assert type(error) is ConnectError
    assert str(error) == "no connection to api.vocobase.invalid: 403 Forbidden"
    assert statuses == ["error"]
    assert KEY.encode() not in b"".join(received)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PROXY", "socks5://me:hidden@proxy:1080"),
        ("ALL_PROXY", "gopher://me:hidden@proxy"),
        ("HTTPS_PROXY", "http://me:hidden@proxy:port"),
        ("NO_PROXY", "fe80::/10"),
    ],
)
async def test_proxies_that_can_not_be_used_are_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StartupError) as caught:
        await failure("https://api.vocobase.invalid/api/v2")
    said = "can't use the environment's proxies; see HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY"
    assert str(caught.value) == said
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(("content", "why"), [(None, "No such file or directory"), ("", "no usable certificate in it")])
def test_authorities_that_can_not_be_loaded_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, why: str
) -> None:
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    with pytest.raises(StartupError) as caught:
        ssl_context()
    assert str(caught.value) == f"can't load the trusted authorities: {why}; see SSL_CERT_FILE and SSL_CERT_DIR"


async def test_https_where_http_is_spoken() -> None:
    async with served_simulator() as (_, base_url):
        error, _ = await failure(base_url.replace("http:", "https:"))
    assert type(error) is ConnectError
    assert str(error).startswith("no connection to 127.0.0.1: TLS failed: ")


@pytest.mark.parametrize("fault", ["hang", "drip:seconds=0.05,size=1", "latency:seconds=60"])
async def test_an_answer_that_takes_too_long_all_in_all(fault: str) -> None:
    async with served_simulator(dids=3) as (simulator, base_url):
        simulator.add_fault(fault)
        started = time.monotonic()
        error, statuses = await failure(base_url, patience=0.4)
        assert 0.4 <= time.monotonic() - started < 5
    assert type(error) is ApiTimeoutError
    assert str(error) == f"no complete answer to {SYNC} within 0.4 s"
    assert statuses == ["200" if fault.startswith("drip") else "error"]


async def test_an_answer_that_is_cut_is_asked_for_again() -> None:
    async with served_simulator(dids=3) as (simulator, base_url):
        simulator.add_fault("truncate")
        error, statuses = await failure(base_url, tries=3)
    assert type(error) is BrokenAnswerError
    assert str(error) == f"the answer to {SYNC} broke off: RemoteProtocolError"
    assert statuses == ["200"] * 3


async def test_a_connection_that_is_closed_without_a_word() -> None:
    async with answering(b"") as (address, received):
        error, statuses = await failure(address)
    assert type(error) is BrokenAnswerError
    assert str(error) == f"the answer to {SYNC} broke off: RemoteProtocolError"
    assert (len(received), statuses) == (1, ["error"])


async def test_an_answer_that_is_no_http() -> None:
    async with answering(b"SSH-2.0-OpenSSH_9.2\r\n") as (address, _):
        error, _ = await failure(address)
    assert type(error) is BrokenAnswerError


@pytest.mark.parametrize("length", [b"", b"Content-Length: 1000000000000\r\n"])
async def test_reading_stops_at_the_limit_whatever_length_was_announced(length: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + b" " * 65536
    async with answering(answer, endless=True) as (address, _):
        error, statuses = await failure(address, size=1 << 20)
    assert type(error) is TooLargeError
    assert str(error) == "the answer is longer than api.max_response_bytes, which is 1048576"
    assert statuses == ["200"]


async def test_an_oversized_answer_of_the_simulator() -> None:
    async with served_simulator(dids=3) as (simulator, base_url):
        simulator.add_fault("oversize:size=1000000000000")
        error, _ = await failure(base_url)
    assert type(error) is TooLargeError


async def test_a_redirect_is_never_followed_so_the_key_stays_here() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as (elsewhere, received):
        async with served_simulator() as (simulator, base_url):
            for status in (301, 302, 303, 307, 308):
                simulator.clear_faults()
                simulator.add_fault(f"status:status={status},location={elsewhere}/api/v2/voicelink/sync")
                error, statuses = await failure(base_url)
                assert type(error) is RedirectError
                assert str(error) == f"the API redirects ({status}), which is not followed"
                assert statuses == [str(status)]
        await asyncio.sleep(0.05)
        assert received == []


async def write(client: VocobaseClient) -> Reply:
    async with client.reserve({"did_id": 812}, deadline=client_deadline()) as reservation:
        await reservation.turn(client_deadline())
        return await reservation.send(Lease.begin(client.clock, 5.0))


ERRORS = [
    (b"302 Found", RedirectError),
    (b"400 Bad Request", ValidationError),
    (b"401 Unauthorized", AuthError),
    (b"403 Forbidden", ForbiddenError),
    (b"408 Request Timeout", RejectedError),
    (b"409 Conflict", ConflictError),
    (b"429 Too Many Requests", RateLimitedError),
    (b"503 Service Unavailable", ServerError),
]


@pytest.mark.parametrize(("line", "kind"), ERRORS)
@pytest.mark.parametrize("what", ["read", "write"])
@pytest.mark.parametrize(
    ("body", "within", "patience"),
    [
        ("never comes", 0.1, 20.0),
        ("never comes", 20.0, 0.3),  # not even when the time for the whole answer is over first
        ("never ends", 20.0, 20.0),
    ],
)
async def test_an_error_counts_by_its_status_whatever_becomes_of_its_body(
    monkeypatch: pytest.MonkeyPatch,
    *,
    line: bytes,
    kind: type[RejectedError],
    what: str,
    body: str,
    within: float,
    patience: float,
) -> None:
    monkeypatch.setattr("exporter.vocobase.client._ERROR_BODY_WITHIN", within)
    clock, requests = SystemClock(), Requests()
    answer = b"HTTP/1.1 " + line + b"\r\nContent-Length: 1000000000\r\n\r\n{"
    answer += b" " * 65536 if body == "never ends" else b""
    async with (
        answering(answer, hang=body == "never comes", endless=body == "never ends") as (address, received),
        client_of(api_config(address, timeout=patience), clock=clock, requests=requests, per_minute=60_000) as client,
        asyncio.timeout(15),
    ):
        with pytest.raises(kind) as caught:
            await (client.sync(None, deadline=clock.monotonic()) if what == "read" else write(client))
    assert (caught.value.status, caught.value.code) == (int(line[:3]), None)
    assert requests.statuses == [str(caught.value.status)]
    assert len(received) == 1


async def test_a_rate_limit_holds_even_if_its_body_never_comes() -> None:
    clock = SystemClock()
    answer = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 90\r\nContent-Length: 5\r\n\r\n{"
    async with (
        answering(answer, hang=True) as (address, received),
        client_of(api_config(address, timeout=0.3), clock=clock) as client,
    ):
        with pytest.raises(RateLimitedError) as caught:
            await client.sync(None, deadline=clock.monotonic())
        assert caught.value.retry_after == 90
        assert 80 < client.budget.paused_for <= 90
    assert len(received) == 1


async def test_a_rate_limit_of_the_simulator() -> None:
    async with (
        served_simulator(rate_limit=1, retry_after=True) as (_, base_url),
        client_of(api_config(base_url)) as client,
    ):
        await client.sync(None, deadline=client_deadline())
        with pytest.raises(RateLimitedError) as caught:
            await client.sync(None, deadline=client_deadline())
        assert str(caught.value) == "the API limits our rate (429 LIMIT_REACHED)"
        assert 50 < client.budget.paused_for <= 60


async def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    requests = Requests()
    async with served_simulator() as (simulator, base_url):
        simulator.add_fault("hang:count=1")
        async with client_of(api_config(base_url), requests=requests) as client:
            waiting = asyncio.create_task(client.sync(None, deadline=client_deadline()))
            async with asyncio.timeout(10):
                while not simulator.requests():  # noqa: ASYNC110 - the simulator has no event for it
                    await asyncio.sleep(0.001)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert client.budget.remaining == client.budget.per_minute - 1
            await client.sync(None, deadline=client_deadline())
    assert requests.statuses == ["error", "200"]
