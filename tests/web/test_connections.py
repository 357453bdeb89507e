"""What a client may do with a connection: no request may be huge, slow or one too many, and none takes others along."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exporter.addresses import Address, parse_address
from exporter.errors import StartupError
from exporter.web.listening import open_sockets
from exporter.web.server import HEADER_TIMEOUT, KEEP_ALIVE, MAX_CONNECTIONS, TAKE_TIMEOUT, GuardedProtocol
from tests.support.http import ask, connect, read_reply, read_to_end
from tests.support.processes import until

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from tests.web.conftest import Web

    Start = Callable[..., Web]

GET = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"
PIECE = 0.05  # seconds between two bytes of a client that takes its time


class Impatient(GuardedProtocol):
    header_timeout = 0.4


class Cramped(GuardedProtocol):
    """Gives clients little time to take their answer, and the kernel little room to take it for them."""

    take_timeout = 1.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn does
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


def connect_cramped(port: int) -> socket.socket:
    """Open a connection whose client takes little before it reads."""
    sock = socket.socket()
    sock.settimeout(10)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    return sock


def drip(sock: socket.socket, data: bytes) -> float:
    """Send byte by byte until the other side closes or all is sent; return the seconds that took."""
    started = time.monotonic()
    sock.settimeout(PIECE)
    for byte in data:
        with contextlib.suppress(TimeoutError):
            try:
                sock.sendall(bytes([byte]))
                if sock.recv(1) == b"":
                    break
            except ConnectionError:
                break
    return time.monotonic() - started


def test_the_limits_are_the_documented_ones() -> None:
    assert (HEADER_TIMEOUT, TAKE_TIMEOUT, KEEP_ALIVE, MAX_CONNECTIONS) == (10.0, 30.0, 75, 512)
    assert GuardedProtocol.header_timeout == HEADER_TIMEOUT
    assert GuardedProtocol.take_timeout == TAKE_TIMEOUT
    page = Path(__file__).parents[2] / "docs" / "reference" / "http.md"
    assert f"does not take its whole answer within {TAKE_TIMEOUT:g} s is cut off" in page.read_text()


def test_headers_that_never_end_are_refused(web: Web) -> None:
    with connect(web.port) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 2_000_000)
        answer = read_to_end(sock)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert web.get("/-/healthy").status == 200


def test_headers_beyond_the_limit_are_refused_before_they_end(web: Web) -> None:
    with connect(web.port) as sock, sock.makefile("rb") as stream:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 17_000)
        assert read_reply(stream).status == 400


def test_headers_below_the_limit_are_taken(web: Web) -> None:
    assert web.get("/-/healthy", X="x" * 15_000).status == 200


def test_headers_that_drip_are_cut_off(start: Start) -> None:
    web = start(polled=False, server={"http": Impatient})
    with connect(web.port) as sock:
        took = drip(sock, b"GET /-/healthy HTTP/1.1\r\n" + b"X: y\r\n" * 20)
    assert 0.3 < took < 3


def test_headers_that_drip_are_cut_off_on_a_used_connection_too(start: Start) -> None:
    web = start(polled=False, server={"http": Impatient})
    with connect(web.port) as sock:
        with sock.makefile("rb") as stream:
            for _ in range(2):
                sock.sendall(GET)
                assert read_reply(stream).status == 200
        took = drip(sock, b"GET /-/healthy HTTP/1.1\r\n" + b"X: y\r\n" * 20)
    assert 0.3 < took < 3


def test_a_body_that_nobody_asked_for_is_cut_off(start: Start) -> None:
    web = start(polled=False, server={"http": Impatient})
    with connect(web.port) as sock:
        sock.sendall(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        with sock.makefile("rb") as stream:
            assert read_reply(stream).status == 405
        took = drip(sock, b"x" * 100)
    assert took < 3


def test_a_connection_without_a_request_is_closed(start: Start) -> None:
    web = start(polled=False, server={"http": Impatient})
    started = time.monotonic()
    with connect(web.port) as sock:
        assert sock.recv(1) == b""
    assert 0.3 < time.monotonic() - started < 3


def test_an_answer_that_takes_longer_than_headers_may_is_waited_for(start: Start) -> None:
    web = start(polled=False, latency=0.6, server={"http": Impatient})
    web.discover()
    assert web.get("/probe?target=918011223344").status == 200


def test_an_idle_connection_is_closed(start: Start) -> None:
    web = start(polled=False, server={"timeout_keep_alive": 1})
    with connect(web.port) as sock, sock.makefile("rb") as stream:
        sock.sendall(GET)
        assert read_reply(stream).status == 200
        started = time.monotonic()
        assert stream.read(1) == b""
    assert 0.5 < time.monotonic() - started < 4


def test_a_connection_in_use_is_kept(start: Start) -> None:
    web = start(polled=False, server={"http": Impatient})
    began = time.monotonic()
    with connect(web.port) as sock, sock.makefile("rb") as stream:
        while time.monotonic() - began < 3 * Impatient.header_timeout:
            sock.sendall(GET)
            assert read_reply(stream).status == 200


def test_pipelined_requests_are_answered_in_order(web: Web) -> None:
    with connect(web.port) as sock, sock.makefile("rb") as stream:
        paths = ("/-/healthy", "/-/ready", "/nothing", "/metrics", "/-/healthy")
        sock.sendall(b"".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths))
        assert [read_reply(stream).status for _ in paths] == [200, 200, 404, 200, 200]


def test_beyond_the_limit_of_connections_the_answer_is_503(start: Start) -> None:
    web = start(polled=False, server={"limit_concurrency": 5})
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(connect(web.port)) for _ in range(10)]
        for sock in held[:4]:
            sock.sendall(GET)
        reply = ask(web.port, "/metrics")
        assert (reply.status, reply.body) == (503, b"Service Unavailable")
    until(lambda: ask(web.port, "/metrics").status == 200, "the server sees that they are gone")


@pytest.mark.parametrize("dids", [3, 300])  # an answer that uvicorn thinks it has sent, and one that it waits with
def test_clients_that_read_nothing_are_hung_up_on(start: Start, dids: int) -> None:
    web = start(dids=dids, server={"http": Cramped, "limit_concurrency": 4})
    with contextlib.ExitStack() as stack:
        for _ in range(3):  # and who asks is one too many
            sock = stack.enter_context(connect_cramped(web.port))
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 200"
        assert ask(web.port, "/-/healthy").status == 503
        until(lambda: ask(web.port, "/-/healthy").status == 200, "the server lets go of them", within=5)


def test_a_client_that_says_no_more_and_reads_nothing_is_hung_up_on(start: Start) -> None:
    web = start(dids=3, server={"http": Cramped, "limit_concurrency": 2})
    with connect_cramped(web.port) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert sock.recv(12) == b"HTTP/1.1 200"
        assert ask(web.port, "/-/healthy").status == 503
        until(lambda: ask(web.port, "/-/healthy").status == 200, "the server lets go of it", within=5)


def test_a_client_that_takes_its_time_gets_every_answer(start: Start) -> None:
    web = start(dids=300, server={"http": Cramped})
    with connect_cramped(web.port) as sock, sock.makefile("rb") as stream:
        for _ in range(4):
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(Cramped.take_timeout * 0.4)  # the client's own pace
            reply = read_reply(stream)
            assert (reply.status, reply.text.count("\nvoicelink_did_ready{")) == (200, 300)


def test_an_old_client_is_answered(web: Web) -> None:
    with connect(web.port) as sock:
        sock.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
        answer = read_to_end(sock)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nHealthy.\n")


def test_a_client_that_leaves_in_the_middle_harms_nobody(start: Start) -> None:
    web = start(dids=2000)
    for _ in range(20):
        with connect(web.port) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # hang up, no goodbye
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            sock.recv(10)
    assert web.get("/metrics").status == 200


def test_no_answer_names_the_server(web: Web) -> None:
    assert "server" not in web.get("/").headers


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError) as caught:
            open_sockets(Address("127.0.0.1", port))
    assert str(caught.value) == f"web.listen_address: can't listen on 127.0.0.1:{port}: Address already in use"


def test_a_port_in_use_is_named_without_a_host_too() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError) as caught:
            open_sockets(Address("", port), "--listen")
    assert str(caught.value) == f"--listen: can't listen on :{port}: Address already in use"


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "x" * 70])
def test_a_host_that_is_none_is_named(host: str) -> None:
    with pytest.raises(StartupError) as caught:
        open_sockets(parse_address(f"{host}:0"))
    assert str(caught.value) == f"web.listen_address: can't listen on {host}:0: the name can't be resolved"


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(StartupError) as caught:
        open_sockets(Address("192.0.2.1", 0))
    assert str(caught.value) == "web.listen_address: can't listen on 192.0.2.1:0: Cannot assign requested address"


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0", ":0", "[::1]:0"])
def test_it_listens_on(address: str) -> None:
    if "::" in address and not socket.has_dualstack_ipv6():
        return  # a machine without IPv6
    for sock in open_sockets(parse_address(address)):
        with sock:
            assert sock.getsockname()[1] > 0
            if address == ":0":
                connect(sock.getsockname()[1]).close()
