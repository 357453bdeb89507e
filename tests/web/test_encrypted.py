"""What a client may do with a connection holds under TLS and on a unix socket as it does on a port."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from exporter.clock import SystemClock
from exporter.web.security import Security
from exporter.web.server import HANDSHAKE_TIMEOUT, GuardedProtocol
from tests.support.certificates import issue, write_authority
from tests.support.http import Reply, connect, read_reply, read_to_end
from tests.support.processes import until
from tests.web.test_connections import Cramped, Impatient, drip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from tests.web.conftest import Web

    Start = Callable[..., Web]

GET = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"
METRICS = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(params=["tls", "unix"])
def secured(
    request: pytest.FixtureRequest, start: Start, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Callable[[], socket.socket]]:
    """Return what starts an exporter and returns what connects to it."""

    def begin(*, small: bool = False, server: dict[str, Any] | None = None, **options: object) -> Callable[..., Any]:
        path = tmp_path_factory.mktemp("s") / "w.sock"
        if request.param == "unix":
            options["listen"] = f"unix:{path}"
        tls = server_options(tmp_path) if request.param == "tls" else {}
        web = start(server={**(server or {}), **tls}, **options)

        def open_one() -> socket.socket:
            sock = socket.socket(socket.AF_UNIX if request.param == "unix" else socket.AF_INET)
            sock.settimeout(10)
            if small:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(str(path) if request.param == "unix" else ("127.0.0.1", web.port))
            return encrypted(sock) if request.param == "tls" else sock

        return open_one

    return begin


def server_options(folder: Path) -> dict[str, Any]:
    pair = issue(folder, "server")
    file = folder / "web.yml"
    file.write_text(f"tls_server_config: {{cert_file: {pair.cert}, key_file: {pair.key}}}\n")
    security = Security(file, SystemClock())
    security.close()
    return security.server_options


def encrypted(sock: socket.socket) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(sock)


def asked(sock: socket.socket, request: bytes) -> Reply:
    sock.sendall(request)
    with sock.makefile("rb") as stream:
        return read_reply(stream)


def ends(sock: socket.socket) -> bool:
    """Tell whether the other side hangs up, politely or not."""
    try:
        return sock.recv(1) == b""
    except (ConnectionError, ssl.SSLError):
        return True


def test_an_answer_of_any_size_arrives_whole(secured: Callable[..., Any]) -> None:
    connecting = secured(dids=1500)
    with connecting() as sock:
        for _ in range(3):  # on one connection
            reply = asked(sock, METRICS)
            assert (reply.status, reply.text.count("\nvoicelink_did_ready{")) == (200, 1500)
            assert asked(sock, GET).text == "Healthy.\n"


def test_headers_that_drip_are_cut_off(secured: Callable[..., Any]) -> None:
    connecting = secured(polled=False, server={"http": Impatient})
    with connecting() as sock, contextlib.suppress(ssl.SSLError):
        assert asked(sock, GET).status == 200
        took = drip(sock, b"GET /-/healthy HTTP/1.1\r\n" + b"X: y\r\n" * 20)
        assert 0.3 < took < 3


def test_a_connection_without_a_request_is_closed(secured: Callable[..., Any]) -> None:
    connecting = secured(polled=False, server={"http": Impatient})
    started = time.monotonic()
    with connecting() as sock:
        assert ends(sock)
    assert 0.3 < time.monotonic() - started < 3


def test_an_idle_connection_is_closed_and_a_used_one_kept(secured: Callable[..., Any]) -> None:
    connecting = secured(polled=False, server={"timeout_keep_alive": 1})
    with connecting() as sock:
        for _ in range(3):
            assert asked(sock, GET).status == 200
            time.sleep(0.4)  # the client's own pace
        assert ends(sock)


def test_a_body_that_nobody_asked_for_is_not_kept_and_cut_off(secured: Callable[..., Any]) -> None:
    connecting = secured(polled=False, server={"http": Impatient})
    with connecting() as sock:
        assert asked(sock, b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n").status == 405
        started, sent, memory = time.monotonic(), 0, psutil.Process().memory_info().rss
        with contextlib.suppress(OSError):
            while time.monotonic() - started < 5:
                sent += sock.send(b"x" * 65536)
        assert time.monotonic() - started < 3
        assert psutil.Process().memory_info().rss - memory < max(sent / 4, 20_000_000)


def test_clients_that_read_nothing_are_hung_up_on(secured: Callable[..., Any]) -> None:
    connecting = secured(small=True, dids=3000, server={"http": Cramped, "limit_concurrency": 4})
    with contextlib.ExitStack() as stack:
        for _ in range(3):  # and who asks is one too many
            sock = stack.enter_context(connecting())
            sock.sendall(METRICS)
            assert sock.recv(12) == b"HTTP/1.1 200"

        def status() -> int:
            with connecting() as sock:
                return asked(sock, GET).status

        assert status() == 503
        until(lambda: status() == 200, "the server lets go of them", within=8)


def test_beyond_the_limit_of_connections_the_answer_is_503(secured: Callable[..., Any]) -> None:
    connecting = secured(polled=False, server={"limit_concurrency": 40})

    def status() -> int:
        with connecting() as sock:
            return asked(sock, GET).status

    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(connecting())
        until(lambda: status() == 503, "all of them are accepted")
    until(lambda: status() == 200, "the server sees that they are gone")


def test_who_never_says_goodbye_is_not_waited_for(start: Start, tmp_path: Path) -> None:
    web = start(polled=False, server={"http": Impatient, **server_options(tmp_path)})
    started = time.monotonic()
    with encrypted(connect(web.port)) as sock, socket.socket(fileno=os.dup(sock.fileno())) as raw:
        raw.settimeout(10)
        while raw.recv(4096):  # beneath TLS, so that nothing is answered to what TLS says
            pass
    assert 0.3 < time.monotonic() - started < 3


class Hasty(GuardedProtocol):
    handshake_timeout = 0.4


def test_half_a_handshake_is_cut_off(start: Start, tmp_path: Path) -> None:
    assert GuardedProtocol.handshake_timeout == HANDSHAKE_TIMEOUT
    web = start(polled=False, server={"http": Hasty, **server_options(tmp_path)})
    started = time.monotonic()
    with connect(web.port) as silent, connect(web.port) as stuck:
        stuck.sendall(b"\x16\x03\x01\x02\x00\x01")  # as a handshake begins
        assert ends(silent)
        assert ends(stuck)
    assert 0.3 < time.monotonic() - started < 3


def test_what_is_no_handshake_is_hung_up_on_at_once(start: Start, tmp_path: Path) -> None:
    web = start(polled=False, server=server_options(tmp_path))
    started = time.monotonic()
    with connect(web.port) as sock:
        sock.sendall(GET)
        assert read_to_end(sock) == b""
    assert time.monotonic() - started < 3


def test_who_speaks_plainly_first_does_not_stop_the_others(start: Start, tmp_path: Path) -> None:
    web = start(polled=False, server=server_options(tmp_path))
    for garbage in (b"\0" * 100, b"\x16\x03\x01\x00\x05hello", b"SSH-2.0-x\r\n"):
        with connect(web.port) as sock, contextlib.suppress(ConnectionError):
            sock.sendall(garbage)
    with encrypted(connect(web.port)) as sock:
        assert asked(sock, GET).status == 200


@pytest.fixture
def required(start: Start, tmp_path: Path) -> Iterator[tuple[Web, Security, Path]]:
    pair, file = issue(tmp_path, "server"), tmp_path / "web.yml"
    file.write_text(
        f"tls_server_config: {{cert_file: {pair.cert}, key_file: {pair.key}, "
        f"client_auth_type: RequireAndVerifyClientCert, client_ca_file: {write_authority(tmp_path)}}}\n"
    )
    security = Security(file, SystemClock())
    yield start(polled=False, server=security.server_options), security, file
    security.close()


def test_a_running_connection_outlives_a_change_and_a_new_one_obeys_it(
    required: tuple[Web, Security, Path], tmp_path: Path
) -> None:
    web, security, file = required
    context = ssl.create_default_context(cafile=str(write_authority(tmp_path)))
    pair = issue(tmp_path, "client", "prometheus.example")
    context.load_cert_chain(pair.cert, pair.key)
    with context.wrap_socket(connect(web.port), server_hostname="127.0.0.1") as sock:
        assert asked(sock, GET).status == 200
        file.write_text(file.read_text().replace("}", ", client_allowed_sans: [other.example]}"))
        security.reread()
        assert asked(sock, GET).status == 200
        with context.wrap_socket(connect(web.port), server_hostname="127.0.0.1", session=sock.session) as other:
            other.sendall(GET)
            assert ends(other)
        file.write_text(file.read_text().replace("other.example", "prometheus.example"))
        security.reread()
        with context.wrap_socket(connect(web.port), server_hostname="127.0.0.1") as other:
            assert asked(other, GET).status == 200


def test_who_is_refused_is_told_why(required: tuple[Web, Security, Path]) -> None:
    web, _, _ = required
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"), encrypted(connect(web.port)) as sock:
        asked(sock, GET)
