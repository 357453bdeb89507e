"""Reads and checks what a request to the API says; whatever is wrong is a `Refusal`."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from exporter.simulator.fleet import ACTIVE
from exporter.simulator.heal import Order
from exporter.simulator.refusals import Refusal, invalid, not_found

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.simulator.fleet import Connection, Did, Fleet

MOST_BODY_BYTES = 1 << 20
KEY_PREFIX = "rg_live_"
MOST_DIGITS = 9
MOST_KEPT = 2000
"""How many characters of a body that isn't JSON the journal keeps."""
PER_PAGE = 15
"""How many DIDs a page has when the request doesn't say; an assumption."""


def bearer_key(header: str) -> str:
    """Return the key of an Authorization header, or an empty string."""
    scheme, _, key = header.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def check_key(key: str, valid: tuple[str, ...], elsewhere: str) -> None:
    """Refuse a wrong key, and one that stands in the query or the body, where none may be."""
    known = key in valid if valid else key.startswith(KEY_PREFIX)
    if not known:
        raise Refusal(401, "Missing or invalid API key")
    if key in elsewhere or KEY_PREFIX in elsewhere:
        raise Refusal(401, "The API key goes into the Authorization header only")


def json_object(body: object) -> dict[str, object]:
    """Return the body of a POST; an empty one is an empty object."""
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object")
    return body


def parsed(text: str) -> object:
    """Return a body's JSON, or its text where it is none, or None without a body."""
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def connection_of(fleet: Fleet, values: Mapping[str, object]) -> Connection:
    """Find the connection that a request names or, where it names none, the only active one.

    What an inactive connection (403) or an account without an active one (404) gets is an assumption.
    """
    named = _uuid(values, "connection_id")
    if not named:
        active = [connection for connection in fleet.connections.values() if connection.status == ACTIVE]
        if len(active) > 1:
            raise invalid("connection_id is required: several VoiceLink connections are active")
        if not active:
            raise not_found("VoiceLink connection")
        return active[0]
    connection = fleet.connections.get(named)
    if connection is None:
        raise not_found("VoiceLink connection")
    if connection.status != ACTIVE:
        raise Refusal(403, "The VoiceLink connection is not active")
    return connection


def import_wanted(body: Mapping[str, object]) -> bool:
    """Return `import_dids`, which is true unless said otherwise."""
    wanted = body.get("import_dids", True)
    if not isinstance(wanted, bool):
        raise invalid("import_dids must be a boolean")
    return wanted


def did_of(fleet: Fleet, connection: Connection, body: Mapping[str, object]) -> Did:
    """Find the DID that a call-ready request is about."""
    did_id, number = body.get("did_id"), body.get("did_number")
    if (did_id is None) == (number is None):
        raise invalid("did_id or did_number is required, one of the two")
    did: Did | None
    if did_id is not None:
        if isinstance(did_id, bool) or not isinstance(did_id, int):
            raise invalid("did_id must be an integer")
        did = next((did for did in connection.members if did.did_id == did_id), None)
    else:
        if not isinstance(number, str) or not number:
            raise invalid("did_number must be a string")
        did = fleet.by_number.get(number.removeprefix("+"))
    if did is None or did.removed or did.connection_id != connection.connection_id:
        raise not_found("DID")
    return did


def order_of(body: Mapping[str, object]) -> Order:
    """Read what a call-ready request asks for beside the DID."""
    client_id = body.get("client_id")
    if client_id is not None and (isinstance(client_id, bool) or not isinstance(client_id, int) or client_id < 1):
        raise invalid("client_id must be an integer of at least 1")
    url = _text(body, "websocket_url")
    if url and not (urlsplit(url).scheme and urlsplit(url).netloc):
        raise invalid("websocket_url must be a URI")
    return Order(client_id, _uuid(body, "agent_id"), _text(body, "bot_name"), url)


def positive(query: Mapping[str, str], name: str, default: int) -> int:
    """Read an integer of at least 1."""
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS and int(text)):
        raise invalid(f"{name} must be an integer of at least 1")
    return int(text)


def _text(values: Mapping[str, object], name: str) -> str:
    value = values.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or not value:
        raise invalid(f"{name} must be a string that isn't empty")
    return value


def _uuid(values: Mapping[str, object], name: str) -> str:
    text = _text(values, name)
    try:
        return str(uuid.UUID(text)) if text else ""
    except ValueError:
        raise invalid(f"{name} must be a UUID") from None
