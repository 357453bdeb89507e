"""The API's answers as they come: every field may be absent, null or of another type.

Only what we use is named; `raw` objects are never read. What is documented about these shapes is in the vendor's public
reference; where it says nothing (the place of the connection list, the type of ids), any reasonable answer is accepted.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

T = TypeVar("T")


class Sync(msgspec.Struct):
    """`data` of a sync answer. Entries stay unparsed, so that one that is broken costs nothing but itself."""

    readiness: list[msgspec.Raw]
    drift: msgspec.Raw = msgspec.Raw(b"null")


class SyncEnvelope(msgspec.Struct):
    """A sync answer."""

    success: bool
    data: Sync


def _or_none(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    try:
        return handler(value)
    except ValidationError:
        return None


Lenient = Annotated[T | None, WrapValidator(_or_none)]
"""A part that counts as absent when it isn't of the shape."""


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Named(_Wire):
    """Anything of which only id and name are shown: agents, bots, routing records."""

    id: Any = None
    name: Any = None


class RemoteDid(_Wire):
    """The DID as VoiceLink has it."""

    did_id: Any = None
    did_number: Any = None
    phone_number: Any = None
    client_id: Any = None
    is_expired: Any = None
    status: Any = None


class LocalPhoneNumber(_Wire):
    """The number as Vocobase has it."""

    phone_number: Any = None
    friendly_name: Any = None
    agent: Lenient[Named] = None


class ReadinessEntry(_Wire):
    """One entry of `data.readiness`."""

    key: Any = None
    phone_number: Any = None
    state: Any = None
    issues: Any = None
    remote_did: Lenient[RemoteDid] = None
    local_phone_number: Lenient[LocalPhoneNumber] = None
    routing: Lenient[Named] = None
    bot: Lenient[Named] = None


class ListedConnection(_Wire):
    """One entry of the list of connections."""

    id: Any = None
    connection_id: Any = None
    provider: Any = None
    name: Any = None
    status: Any = None
    is_default: Any = None
