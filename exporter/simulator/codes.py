"""The issue codes, their order and what a person would do about them.

NO_BOT, ROUTING_MISSING and NO_VOCOBASE_AGENT are the vendor's; the vendor says that others exist and not what they are
called, so DID_EXPIRED, DID_UNMAPPED and AGENT_PAUSED are made up. So is the order: what lies deeper comes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

READY = "READY"
DID_EXPIRED = "DID_EXPIRED"
DID_UNMAPPED = "DID_UNMAPPED"
NO_BOT = "NO_BOT"
ROUTING_MISSING = "ROUTING_MISSING"
NO_AGENT = "NO_VOCOBASE_AGENT"
AGENT_PAUSED = "AGENT_PAUSED"

ORDER = (DID_EXPIRED, DID_UNMAPPED, NO_BOT, ROUTING_MISSING, NO_AGENT, AGENT_PAUSED)

ACTIONS = {
    DID_EXPIRED: "Renew the DID at VoiceLink.",
    DID_UNMAPPED: "Map the DID to a VoiceLink client.",
    NO_BOT: "Create an active WebSocket bot for the mapped client.",
    ROUTING_MISSING: "Create the routing record and point outbound calls to the bot.",
    NO_AGENT: "Assign a Vocobase agent to the phone number.",
    AGENT_PAUSED: "Resume the agent of the phone number.",
}

BREAKS = (
    (0.30, (NO_BOT, ROUTING_MISSING)),
    (0.25, (ROUTING_MISSING,)),
    (0.20, (NO_BOT,)),
    (0.10, (NO_AGENT,)),
    (0.10, (NO_BOT, ROUTING_MISSING, NO_AGENT)),
    (0.05, (AGENT_PAUSED,)),
)
"""How a DID breaks, with the weight of each way; the weights add up to 1."""


def in_order(codes: Iterable[str]) -> tuple[str, ...]:
    """Put codes in the order the API names them, each once; unknown ones last, in the order given."""
    distinct = dict.fromkeys(codes)
    return (*(code for code in ORDER if code in distinct), *(code for code in distinct if code not in ORDER))


def pick_break(draw: float) -> tuple[str, ...]:
    """Choose a way to break by a number from [0, 1)."""
    *others, (_, last) = BREAKS
    for weight, codes in others:
        draw -= weight
        if draw < 0:
            return codes
    return last


def action(code: str) -> str:
    """Say what a person would do about an issue."""
    return ACTIONS.get(code, f"Look into {code}.")
