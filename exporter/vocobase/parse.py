"""From the API's answers to our types. Pure: bytes in, values out, `BadResponseError` where the envelope is broken."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec
from pydantic import ValidationError
from pydantic_core import from_json

from exporter.errors import BadResponseError
from exporter.model import CODE, OTHER, Anomaly, Answer, Connection, Entry
from exporter.numbers import MAX_LENGTH, canonical
from exporter.vocobase.wire import (
    ListedConnection,
    LocalPhoneNumber,
    Named,
    ReadinessEntry,
    RemoteDid,
    SyncEnvelope,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_TEXT: Final = 200  # characters of a name or id that are shown
_LARGEST_ID: Final = 2**63
_NAMELESS: Final = Named()
_sync = msgspec.json.Decoder(SyncEnvelope)
_list = msgspec.json.Decoder(list[msgspec.Raw])


def parse_sync(body: bytes | bytearray) -> Answer:
    """Read the answer to a sync request.

    An entry that names no number is counted as `invalid_entry` and skipped; anything odd inside of one degrades to what
    can be told of it. Raises `BadResponseError` where there is no list of readiness entries.
    """
    try:
        envelope = _sync.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadResponseError(f"the API's answer to sync is not what it documents: {error}") from None
    if not envelope.success:
        raise BadResponseError(f"the API answered 200, but without success{_code_of(body)}")
    entries: list[Entry] = []
    anomalies: Counter[Anomaly] = Counter()
    for raw in envelope.data.readiness:
        entry = _entry(bytes(raw))
        if entry:
            entries.append(entry)
        else:
            anomalies[Anomaly.INVALID_ENTRY] += 1
    return Answer(tuple(entries), _length(envelope.data.drift), anomalies)


def parse_connections(body: bytes | bytearray) -> tuple[Connection, ...]:
    """Read the answer to the list of connections; entries without an id are skipped.

    Where the list sits is undocumented: `data`, `data.connections` and `data.data` are accepted. Raises
    `BadResponseError` where there is none.
    """
    try:
        answer = from_json(body)
    except ValueError:
        raise BadResponseError("the API's list of connections is not JSON") from None
    return tuple(connection for item in _listed(answer) if (connection := _connection(item)))


def error_code(body: bytes | bytearray) -> str | None:
    """Return `error.code` of a failure's envelope, or `None` where there is none that looks like a code."""
    try:
        answer = from_json(body)
    except ValueError:
        return None
    error = answer.get("error") if isinstance(answer, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) and CODE.fullmatch(code) else None


def _code_of(body: bytes | bytearray) -> str:
    code = error_code(body)
    return f" ({code})" if code else ""


def _listed(answer: Any) -> list[Any]:  # noqa: ANN401 - whatever JSON holds
    data = answer.get("data") if isinstance(answer, dict) else None
    places = [data, *(data.get(key) for key in ("connections", "data"))] if isinstance(data, dict) else [data]
    for place in places:
        if isinstance(place, list):
            return place
    raise BadResponseError("the API's answer holds no list of connections")


def _connection(item: object) -> Connection | None:
    try:
        listed = ListedConnection.model_validate(item)
    except ValidationError:
        return None
    if listed.provider not in (None, "voicelink"):
        return None
    for candidate in (listed.connection_id, listed.id):
        connection_id = _uuid(candidate)
        if connection_id:
            return Connection(connection_id, _text(listed.name), _text(listed.status), listed.is_default is True)
    return None


def _uuid(value: object) -> str | None:
    try:
        return str(UUID(value)) if isinstance(value, str) else None
    except ValueError:
        return None


def _length(raw: msgspec.Raw) -> int | None:
    try:
        return len(_list.decode(raw))
    except (msgspec.DecodeError, RecursionError):
        return None


def _entry(raw: bytes) -> Entry | None:
    try:
        wire = ReadinessEntry.model_validate_json(raw)
    except ValidationError:
        return None
    remote, local = wire.remote_did or RemoteDid(), wire.local_phone_number or LocalPhoneNumber()
    number = next(_numbers(wire, remote, local), None)
    if number is None:
        return None
    agent, bot, routing = local.agent or _NAMELESS, wire.bot or _NAMELESS, wire.routing or _NAMELESS
    return Entry(
        number=number,
        state=_code(wire.state),
        issues=_issues(wire.issues),
        expired=remote.is_expired is True or (type(remote.is_expired) is int and remote.is_expired == 1),
        did_id=_id(remote.did_id),
        client_id=_id(remote.client_id),
        did_status=_text(remote.status),
        friendly_name=_text(local.friendly_name),
        agent_id=_text(agent.id),
        agent_name=_text(agent.name),
        bot_id=_text(bot.id),
        bot_name=_text(bot.name),
        routing_id=_text(routing.id),
    )


def _numbers(wire: ReadinessEntry, remote: RemoteDid, local: LocalPhoneNumber) -> Iterator[str]:
    for value in (wire.phone_number, wire.key, remote.phone_number, remote.did_number, local.phone_number):
        text = str(value) if type(value) is int else value
        if isinstance(text, str) and len(text) <= MAX_LENGTH:
            number = canonical(text)
            if number:
                yield number


def _issues(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    items = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(_code(item) for item in items))


def _code(value: object) -> str:
    """Return a state or issue as the API spells it; what isn't even a text is nothing that could be shown."""
    return value[:LONGEST_TEXT] if isinstance(value, str) else OTHER


def _id(value: object) -> int | None:
    if type(value) is int and 0 < value < _LARGEST_ID:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:  # noqa: PLR2004 - 64 bits
        return int(value)
    return None


def _text(value: object) -> str:
    if type(value) is int:
        value = str(value) if abs(value) < _LARGEST_ID else ""
    if not isinstance(value, str):
        return ""
    return value if len(value) <= LONGEST_TEXT else value[: LONGEST_TEXT - 1] + "…"
