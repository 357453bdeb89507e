"""`healthcheck`: asks the daemon whether it is healthy, as a container's health check does."""

from __future__ import annotations

import http.client
from http import HTTPStatus
from typing import Final

from exporter.config import parse_address
from exporter.errors import StartupError

TIMEOUT: Final = 3.0  # seconds


def is_healthy(listen_address: str) -> bool:
    """Whether the daemon that listens there answers 200 on `/-/healthy`. Raises `StartupError` for no address."""
    try:
        address = parse_address(listen_address)
    except ValueError as error:
        raise StartupError(f"web.listen_address: {error}") from None
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104
    connection = http.client.HTTPConnection(host, address.port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/-/healthy")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, UnicodeError, http.client.HTTPException):
        return False
    finally:
        connection.close()
