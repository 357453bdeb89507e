"""What call-ready does to a DID.

Only the step names `resolve_did` and `ensure_routing` and the status `done` are documented. The other names, the
statuses `skipped` (nothing to do) and `blocked` (can't be done), and the 409 for a DID that another client has are
assumptions, and so is that a new agent_id is taken unseen.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from exporter.simulator.codes import NO_AGENT, NO_BOT, ROUTING_MISSING
from exporter.simulator.refusals import Refusal, not_found

if TYPE_CHECKING:
    from exporter.simulator.fleet import Connection, Did

Step = dict[str, object]


@dataclass(frozen=True, slots=True)
class Order:
    """What a call-ready request asks for beside the DID."""

    client_id: int | None = None
    agent_id: str = ""
    bot_name: str = ""
    websocket_url: str = ""


def make_ready(did: Did, connection: Connection, order: Order, elapsed: float) -> list[Step]:
    """Repair what call-ready can repair and say how it went; refuses before it has done anything."""
    if order.client_id is not None:
        _check_client(did, connection, order.client_id)
    steps = [
        _step("resolve_did", "done", "DID found", did_id=did.did_id),
        import_did(did),
        _map(did, order),
        _bot(did, order),
        _routing(did),
        _agent(did, order),
    ]
    if any(step["status"] == "done" for step in steps[1:]):
        did.touch(elapsed)
    return steps


def _check_client(did: Did, connection: Connection, client_id: int) -> None:
    if client_id not in connection.clients:
        raise not_found(f"Client {client_id}")
    if did.client_id not in (None, client_id):
        raise Refusal(HTTPStatus.CONFLICT, f"DID is mapped to client {did.client_id} already")


def import_did(did: Did) -> Step:
    """Write the local row of a DID; it has no agent then."""
    if did.imported:
        return _step("import_did", "skipped", "already in the local inventory")
    did.imported = True
    did.defects = (*did.defects, *(() if NO_AGENT in did.defects else (NO_AGENT,)))
    return _step("import_did", "done", "imported into the local inventory")


def _map(did: Did, order: Order) -> Step:
    if did.client_id is not None:
        return _step("map_client", "skipped", "already mapped", client_id=did.client_id)
    if order.client_id is None:
        return _step("map_client", "blocked", "unmapped and no client_id given")
    did.client_id = order.client_id
    did.defects = tuple(dict.fromkeys((*did.defects, NO_BOT, ROUTING_MISSING)))
    return _step("map_client", "done", "mapped", client_id=did.client_id)


def _bot(did: Did, order: Order) -> Step:
    if did.client_id is None:
        return _step("ensure_bot", "blocked", "no client")
    if NO_BOT not in did.issues:
        return _step("ensure_bot", "skipped", "active bot exists")
    did.repair(NO_BOT)
    did.bot_ordinal += 1
    did.bot_name = order.bot_name or did.bot_name
    return _step("ensure_bot", "done", "bot created", websocket_url=order.websocket_url or None)


def _routing(did: Did) -> Step:
    if did.client_id is None:
        return _step("ensure_routing", "blocked", "no client")
    if ROUTING_MISSING not in did.issues:
        return _step("ensure_routing", "skipped", "outbound calls go to the bot")
    did.repair(ROUTING_MISSING)
    did.routing_ordinal += 1
    return _step("ensure_routing", "done", "outbound calls go to the bot")


def _agent(did: Did, order: Order) -> Step:
    if not order.agent_id:
        status = "blocked" if NO_AGENT in did.issues else "skipped"
        return _step("assign_agent", status, "no agent_id given")
    if NO_AGENT not in did.issues and did.agent_id == order.agent_id:
        return _step("assign_agent", "skipped", "assigned already")
    did.repair(NO_AGENT)
    if did.agent_id != order.agent_id:
        did.agent_id, did.agent_name = order.agent_id, f"Agent {order.agent_id[:8]}"
    return _step("assign_agent", "done", "assigned", agent_id=did.agent_id)


def _step(name: str, status: str, detail: str, **data: object) -> Step:
    return {"step": name, "status": status, "detail": detail, "data": data or None}
