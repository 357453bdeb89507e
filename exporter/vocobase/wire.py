"""The API's answers as they come: every field may be absent, null or of another type.

Only what we use is named; `raw` objects are never read. What is documented about these shapes is in the vendor's public
reference; where it says nothing (the place of the connection list, the type of ids), any reasonable answer is accepted.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from pydantic import BaseModel, ConfigDict

NULL: Final = msgspec.Raw(b"null")
NO_ITEMS: Final = msgspec.Raw(b"[]")


class Outcome(msgspec.Struct):
    """What every answer begins with."""

    success: bool


class Sync(msgspec.Struct):
    """`data` of a sync answer. Entries stay unparsed, so that one that is broken costs nothing but itself."""

    readiness: list[msgspec.Raw]
    drift: msgspec.Raw = NULL


class SyncEnvelope(msgspec.Struct):
    """A sync answer."""

    success: bool
    data: Sync


class Named(msgspec.Struct, frozen=True):
    """Anything of which only id and name are shown: agents, bots, routing records."""

    id: Any = None
    name: Any = None


class RemoteDid(msgspec.Struct, frozen=True):
    """The DID as VoiceLink has it."""

    did_id: Any = None
    did_number: Any = None
    phone_number: Any = None
    client_id: Any = None
    is_expired: Any = None
    status: Any = None


class LocalPhoneNumber(msgspec.Struct, frozen=True):
    """The number as Vocobase has it. `agent` is a `Named`."""

    phone_number: Any = None
    friendly_name: Any = None
    agent: msgspec.Raw = NULL


class ActionItem(msgspec.Struct, frozen=True):
    """What a person would do about an issue."""

    code: Any = None
    label: Any = None


class ReadinessEntry(msgspec.Struct, frozen=True):
    """One entry of `data.readiness`.

    Its parts stay unparsed, so that one that isn't of its shape counts as absent: a `RemoteDid`, a `LocalPhoneNumber`,
    two `Named`, a list of sentences and a list of `ActionItem`.
    """

    key: Any = None
    phone_number: Any = None
    state: Any = None
    issues: Any = None
    remote_did: msgspec.Raw = NULL
    local_phone_number: msgspec.Raw = NULL
    routing: msgspec.Raw = NULL
    bot: msgspec.Raw = NULL
    actions: msgspec.Raw = NO_ITEMS
    action_items: msgspec.Raw = NO_ITEMS


class ListedConnection(BaseModel):
    """One entry of the list of connections."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Any = None
    connection_id: Any = None
    provider: Any = None
    name: Any = None
    status: Any = None
    is_default: Any = None
