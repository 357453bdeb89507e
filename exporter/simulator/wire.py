"""How the API writes the fleet as JSON.

A DID's readiness is kept as a tuple of byte strings, rendered again when the DID has changed; an answer is these,
joined. What is in `clients`, `available_dids`, `drift` and a connection's `phone_numbers` is an assumption, as the
vendor documents only that there are such lists.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from exporter.simulator.codes import AGENT_PAUSED, NO_AGENT, NO_BOT, ROUTING_MISSING, action
from exporter.simulator.seeded import uuid_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.simulator.fleet import Connection, Did, Fleet

CANARY = "raw-canary"
"""Stands in every `raw` object, so that a test can show that none leaks."""

NULL = b"null"
REMOTE, LOCAL, ROUTING, BOT = 1, 3, 5, 7
"""Where these objects are in a DID's parts."""

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode
_DAY = 86_400.0


def dump(value: object) -> bytes:
    """Write compact JSON."""
    return _ENCODE(value).encode()


class Wire:
    """Writes the DIDs of one fleet; `started` is in Unix seconds."""

    def __init__(self, fleet: Fleet, started: float) -> None:
        self._fleet = fleet
        self._started = started

    def entry(self, did: Did) -> bytes:
        """Write one entry of `readiness`."""
        return b"".join(self.parts(did))

    def parts(self, did: Did) -> tuple[bytes, ...]:
        """Return the pieces of an entry of `readiness`."""
        if did.parts is None:
            did.parts = self._render(did)
        return did.parts

    def sync(self, connection: Connection) -> bytes:
        """Write the answer of a sync."""
        dids = connection.dids()
        parts = [self.parts(did) for did in dids]
        entries: list[bytes] = []
        for pieces in parts:
            entries.extend(pieces)
            entries.append(b",")
        lists = (
            (b"clients", b",".join(dump({"id": key, "name": name}) for key, name in connection.clients.items())),
            (b"dids", _objects(parts, REMOTE)),
            (b"available_dids", b",".join(self.parts(did)[REMOTE] for did in dids if did.client_id is None)),
            (b"bots", _objects(parts, BOT)),
            (b"routing", _objects(parts, ROUTING)),
            (b"local_phone_numbers", _objects(parts, LOCAL)),
            (b"readiness", b"".join(entries[:-1])),
            (b"drift", b",".join(dump(_drift(did)) for did in dids if not did.imported)),
        )
        return success(b"{%b}" % b",".join(b'"%b":[%b]' % pair for pair in lists))

    def connections(self, connections: Iterable[Connection]) -> bytes:
        """Write the list of connections, right under `data`."""
        return success(b"[%b]" % b",".join(map(self._connection, connections)))

    def local_id(self, did: Did) -> str:
        """Return the id of Vocobase's own row of the number."""
        return uuid_of(self._fleet.seed, "local", did.index)

    def bot_id(self, did: Did) -> int:
        """Return the id of the DID's bot; a bot that was made anew has another one."""
        return 20_000 + did.index + did.bot_ordinal * 10_000_000

    def routing_id(self, did: Did) -> int:
        """Return the id of the DID's routing record."""
        return 30_000 + did.index + did.routing_ordinal * 10_000_000

    def _connection(self, connection: Connection) -> bytes:
        known = {
            "id": connection.connection_id,
            "connection_id": connection.connection_id,
            "provider": "voicelink",
            "provider_key": "voicelink",
            "name": connection.name,
            "status": connection.status,
            "is_default": connection.is_default,
        }
        numbers = b",".join(
            b'{"phone_number":"%b","status":"ACTIVE"}' % did.phone_number.encode()
            for did in connection.dids()
            if did.imported
        )
        return b'%b,"phone_numbers":[%b]}' % (dump(known)[:-1], numbers)

    def _render(self, did: Did) -> tuple[bytes, ...]:
        issues = did.issues
        head = {"key": did.number, "phone_number": did.phone_number, "state": did.state, "issues": issues}
        tail = {
            "actions": [action(code) for code in issues],
            "action_items": [{"code": code, "label": action(code)} for code in issues],
        }
        return (
            dump(head)[:-1] + b',"remote_did":',
            dump(self._remote(did)),
            b',"local_phone_number":',
            dump(self._local(did, issues)) if did.imported else NULL,
            b',"routing":',
            NULL if ROUTING_MISSING in issues else dump(self._routing(did)),
            b',"bot":',
            NULL if NO_BOT in issues else dump(self._bot(did)),
            b"," + dump(tail)[1:],
        )

    def _remote(self, did: Did) -> dict[str, object]:
        """Every other DID has `id` and `status`: the vendor's sample lacks them, its description has them."""
        known: dict[str, object] = {
            "did_id": did.did_id,
            "did_number": did.number,
            "phone_number": did.phone_number,
            "client_id": did.client_id,
            "is_expired": did.expired,
            "raw": {"kind": CANARY, "pulse": 15},
        }
        if did.index % 2:
            known |= {"id": did.did_id, "status": did_status(did)}
        return known

    def _local(self, did: Did, issues: tuple[str, ...]) -> dict[str, object]:
        agent = {"id": did.agent_id, "name": did.agent_name}
        return {
            "id": self.local_id(did),
            "phone_number": did.phone_number,
            "friendly_name": did.friendly_name,
            "status": "ACTIVE",
            "is_default": did.index == 0,
            "inbound_enabled": AGENT_PAUSED not in issues,
            "agent": None if NO_AGENT in issues else agent,
            "created_at": _iso(self._started - 90 * _DAY + did.index),
            "updated_at": _iso(self._started + did.updated),
        }

    def _routing(self, did: Did) -> dict[str, object]:
        return {
            "id": self.routing_id(did),
            "phone_number": did.phone_number,
            "for_inbound_call": 3,
            "for_outbound_call": 3,
            "outbound_websocket_bot_id": self.bot_id(did),
            "raw": {"kind": CANARY},
        }

    def _bot(self, did: Did) -> dict[str, object]:
        return {"id": self.bot_id(did), "name": did.bot_name, "status": 1, "raw": {"kind": CANARY}}


def success(data: bytes) -> bytes:
    """Write an answer that went well."""
    return b'{"success":true,"data":%b}' % data


def did_status(did: Did) -> str:
    """Return VoiceLink's status of a DID; the values are assumptions."""
    return "EXPIRED" if did.expired else "ACTIVE"


def purchased(dids: list[Did], page: int, per_page: int) -> bytes:
    """Write one page of the purchased DIDs; the figures beside `data.data` are an assumption."""
    rows = [
        {
            "id": did.did_id,
            "did_id": did.did_id,
            "did_number": did.number,
            "client_id": did.client_id,
            "status": did_status(did),
        }
        for did in dids[(page - 1) * per_page : page * per_page]
    ]
    last = max(1, -(-len(dids) // per_page))
    figures = {"current_page": page, "per_page": per_page, "last_page": last, "total": len(dids)}
    return success(dump({"data": rows, **figures}))


def _objects(parts: list[tuple[bytes, ...]], which: int) -> bytes:
    return b",".join([pieces[which] for pieces in parts if pieces[which] is not NULL])


def _drift(did: Did) -> dict[str, object]:
    return {"type": "missing_local", "key": did.number, "phone_number": did.phone_number}


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
