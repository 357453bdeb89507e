"""From the API's answers to our types. Pure: bytes in, values out, `BadResponseError` where the envelope is broken."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

import msgspec
from pydantic import ValidationError
from pydantic_core import from_json

from exporter.errors import BadResponseError
from exporter.model import CODE, OTHER, Anomaly, Answer, Connection, Entry
from exporter.numbers import MAX_LENGTH, canonical
from exporter.vocobase.wire import (
    ActionItem,
    ListedConnection,
    LocalPhoneNumber,
    Named,
    Outcome,
    ReadinessEntry,
    RemoteDid,
    SyncEnvelope,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_TEXT: Final = 200  # characters of a name or id that are shown
MOST_ACTIONS: Final = 20  # of an entry, that are shown
EMPTY: Final = 4  # bytes of two lists without items, as of every number that is ready
_LARGEST_ID: Final = 2**63
_NAMELESS: Final = Named()
_NO_REMOTE: Final = RemoteDid()
_NO_LOCAL: Final = LocalPhoneNumber()
T = TypeVar("T")
_ESCAPE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)
_outcome = msgspec.json.Decoder(Outcome)
_sync = msgspec.json.Decoder(SyncEnvelope)
_list = msgspec.json.Decoder(list[msgspec.Raw])
_readiness = msgspec.json.Decoder(ReadinessEntry)
_remote = msgspec.json.Decoder(RemoteDid | None)
_local = msgspec.json.Decoder(LocalPhoneNumber | None)
_named = msgspec.json.Decoder(Named | None)
_action = msgspec.json.Decoder(ActionItem)
_sentence = msgspec.json.Decoder(str)
_BROKEN: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse_sync(body: bytes | bytearray) -> Answer:
    """Read the answer to a sync request.

    An entry that names no number is counted as `invalid_entry` and skipped; anything odd inside of one degrades to what
    can be told of it. Raises `BadResponseError` where there is no list of readiness entries.
    """
    try:
        envelope = _decode(body)
    except _BROKEN as error:
        _check_success(body)
        raise BadResponseError(f"the API's answer to sync is not what it documents: {error}") from None
    if not envelope.success:
        _check_success(body)
    entries: list[Entry] = []
    anomalies: Counter[Anomaly] = Counter()
    for raw in envelope.data.readiness:
        entry = _entry(raw)
        if entry:
            entries.append(entry)
        else:
            anomalies[Anomaly.INVALID_ENTRY] += 1
    if anomalies and not entries:  # a shape that we don't know, rather than an account without numbers
        raise BadResponseError("the API's answer to sync names no number in any of its entries")
    return Answer(tuple(entries), _length(envelope.data.drift), anomalies)


def parse_connections(body: bytes | bytearray) -> tuple[Connection, ...]:
    """Read the answer to the list of connections; entries without an id are skipped.

    Where the list sits is undocumented: `data`, `data.connections` and `data.data` are accepted. Raises
    `BadResponseError` where there is none.
    """
    _check_success(body)
    try:
        answer = _loads(body)
    except ValueError:
        raise BadResponseError("the API's list of connections is not JSON") from None
    return tuple(connection for item in _listed(answer) if (connection := _connection(item)))


def error_code(body: bytes | bytearray) -> str | None:
    """Return `error.code` of a failure's envelope, or `None` where there is none that looks like a code."""
    try:
        answer = _loads(body)
    except ValueError:
        return None
    error = answer.get("error") if isinstance(answer, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) and CODE.fullmatch(code) else None


def _check_success(body: bytes | bytearray) -> None:
    """Raise what the API itself says is wrong, if it does."""
    try:
        failed = not _outcome.decode(body).success
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if failed:
        code = error_code(body)
        raise BadResponseError("the API answered 200, but without success" + (f" ({code})" if code else ""))


def _decode(body: bytes | bytearray) -> SyncEnvelope:
    try:
        return _sync.decode(body)
    except msgspec.DecodeError:
        repaired = _repaired(body)
        if repaired == body:
            raise
        return _sync.decode(repaired)


def _loads(body: bytes | bytearray) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        return from_json(body)
    except ValueError:
        return from_json(_repaired(body))


def _repaired(body: bytes | bytearray) -> bytes:
    """Put a question mark for half a surrogate pair, as a text cut in an emoji ends with: parsers refuse it."""
    return _ESCAPE.sub(lambda escape: b"?" if escape[1] else escape[0], body)


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
    except _BROKEN:
        return None


def _entry(raw: msgspec.Raw) -> Entry | None:
    try:
        wire = _readiness.decode(raw)
    except _BROKEN:
        return None
    remote = _part(_remote, wire.remote_did) or _NO_REMOTE
    local = _part(_local, wire.local_phone_number) or _NO_LOCAL
    number = next(_numbers(wire, remote, local), None)
    if number is None:
        return None
    agent = _part(_named, local.agent) or _NAMELESS
    bot, routing = _part(_named, wire.bot) or _NAMELESS, _part(_named, wire.routing) or _NAMELESS
    return Entry(
        number=number,
        state=_code(wire.state),
        issues=_issues(wire.issues),
        expired=_flag(remote.is_expired),
        did_id=_id(remote.did_id),
        client_id=_id(remote.client_id),
        did_number="" if _id(remote.did_id) else _text(remote.did_number),
        did_status=_text(remote.status),
        friendly_name=_text(local.friendly_name),
        agent_id=_text(agent.id),
        agent_name=_text(agent.name),
        bot_id=_text(bot.id),
        bot_name=_text(bot.name),
        routing_id=_text(routing.id),
        actions=_actions(wire) if len(wire.action_items) + len(wire.actions) > EMPTY else (),
    )


def _part(decoder: msgspec.json.Decoder[T | None] | msgspec.json.Decoder[T], raw: msgspec.Raw) -> T | None:
    """Return a part of an entry; one that isn't of its shape counts as absent."""
    try:
        return decoder.decode(raw)
    except _BROKEN:
        return None


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


def _actions(wire: ReadinessEntry) -> tuple[tuple[str, str], ...]:
    """Return what the API says a person would do: issue code and sentence; without codes where it names none."""
    items = _items(wire.action_items)
    found = [(_text(item.code), _text(item.label)) for raw in items if (item := _part(_action, raw))]
    named = tuple((code, label) for code, label in found if label)
    return named or tuple(("", _text(label)) for raw in _items(wire.actions) if (label := _part(_sentence, raw)))


def _items(raw: msgspec.Raw) -> list[msgspec.Raw]:
    """Return the first items of a list, unparsed; none where it isn't one."""
    try:
        return _list.decode(raw)[:MOST_ACTIONS]
    except _BROKEN:
        return []


def _code(value: object) -> str:
    """Return a state or issue as the API spells it; what isn't even a text is nothing that could be shown."""
    return value[:LONGEST_TEXT] if isinstance(value, str) else OTHER


def _id(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:  # noqa: PLR2004 - 64 bits
        value = int(value)
    return value if type(value) is int and 0 < value < _LARGEST_ID else None


def _flag(value: object) -> bool | None:
    """Return what the API says with a flag, `None` where it says nothing of the kind."""
    return bool(value) if isinstance(value, bool) or (type(value) is int and value in {0, 1}) else None


def _text(value: object) -> str:
    if not isinstance(value, str):
        return str(value) if type(value) is int and abs(value) < _LARGEST_ID else ""
    return value if len(value) <= LONGEST_TEXT else value[: LONGEST_TEXT - 1] + "…"
