"""`healthcheck`: asks the daemon whether it is healthy, as a container's health check does."""

from __future__ import annotations

import http.client
import socket
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from exporter.addresses import UnixAddress, parse_listen_address
from exporter.errors import ConfigError, StartupError

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.addresses import Address
    from exporter.config.web_file import TlsServer

TIMEOUT: Final = 3.0  # seconds
_ITSELF: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask, not to listen


def why_unhealthy(listen_address: str, web_file: Path | None = None) -> str:
    """Ask the daemon that listens there for `/-/healthy`; return why it is not healthy, or an empty string.

    Raises `StartupError` for no address.

    With TLS in the web configuration, one that refuses us for having no certificate is healthy, too. While that file
    is broken, the daemon may go on as the file was: then either way of asking will do.
    """
    try:
        address = parse_listen_address(listen_address)
    except ValueError as error:
        raise StartupError(f"web.listen_address: {error}") from None
    try:
        tls = _tls_of(web_file) if web_file else None
    except ConfigError:
        return _problem(address) and _problem_over_tls(address, refusal_counts=True)
    if tls is None:
        return _problem(address)
    return _problem_over_tls(address, refusal_counts=tls.client_auth_type == "RequireAndVerifyClientCert")


def _tls_of(web_file: Path) -> TlsServer | None:
    from exporter.config.web_file import load_web_file  # noqa: PLC0415 - a check that runs every few seconds: mostly without

    return load_web_file(web_file).tls_server_config


def _problem(address: Address | UnixAddress, context: ssl.SSLContext | None = None) -> str:
    try:
        with _connected(address) as plain, context.wrap_socket(plain) if context else plain as sock:
            connection = http.client.HTTPConnection("localhost")
            connection.sock = sock
            connection.request("GET", "/-/healthy")
            status = connection.getresponse().status
    except ssl.SSLError:
        raise
    except TimeoutError:
        return f"nothing answers within {TIMEOUT:g} s"
    except OSError as error:
        return f"no connection: {error.strerror or error}"
    except (UnicodeError, http.client.HTTPException):
        return "what answers there is no exporter"
    return "" if status == HTTPStatus.OK else f"what answers there says {status}, which an exporter would not"


def _problem_over_tls(address: Address | UnixAddress, *, refusal_counts: bool) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # it is this machine's own daemon, by whatever name its certificate knows it
    context.verify_mode = ssl.CERT_NONE
    try:
        return _problem(address, context)
    except ssl.SSLError as error:
        # An alert comes from a server that read what was sent to it, and judged it.
        return (
            ""
            if refusal_counts and "_ALERT_" in str(error.reason)
            else "TLS failed; is --web.config.file the daemon's?"
        )


def _connected(address: Address | UnixAddress) -> socket.socket:
    if isinstance(address, UnixAddress):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(TIMEOUT)
        try:
            sock.connect(address.path)
        except OSError:
            sock.close()
            raise
        return sock
    return socket.create_connection((_ITSELF.get(address.host, address.host), address.port), TIMEOUT)
