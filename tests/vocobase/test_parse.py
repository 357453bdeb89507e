"""What answers mean, and that no answer means more than an error."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import BadResponseError
from exporter.model import Anomaly, Answer, Connection, Entry
from exporter.vocobase import parse_connections, parse_sync
from exporter.vocobase.parse import error_code

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY = "canary-of-raw"
BOT = "f4df9f8c-df95-46d8-bb0e-6f9f83fd4f55"
ENTRY: dict[str, Any] = {
    "key": "918011223344",
    "phone_number": "+918011223344",
    "state": "NO_BOT",
    "issues": ["NO_BOT", "ROUTING_MISSING", "NO_BOT"],
    "remote_did": {
        "did_id": 812,
        "did_number": "918011223344",
        "phone_number": "+918011223344",
        "client_id": 415,
        "is_expired": False,
        "status": "active",
        "raw": {"note": CANARY},
    },
    "local_phone_number": {
        "id": BOT,
        "phone_number": "+918011223344",
        "friendly_name": "Sales",
        "status": "ACTIVE",
        "agent": {"id": BOT, "name": "Asha"},
    },
    "routing": {"id": 7, "for_inbound_call": 3, "raw": {"note": CANARY}},
    "bot": {"id": 9, "name": "Sales line", "status": 1, "raw": [CANARY]},
    "actions": ["Create a bot"],
    "action_items": [{"code": "NO_BOT", "label": "Create a bot"}],
}
SYNC: dict[str, Any] = {
    "success": True,
    "data": {"clients": [], "dids": [{"raw": CANARY}], "readiness": [ENTRY], "drift": [{"a": 1}, None, 3]},
}
READ = Entry(
    number="+918011223344",
    state="NO_BOT",
    issues=("NO_BOT", "ROUTING_MISSING"),
    did_id=812,
    client_id=415,
    did_status="active",
    friendly_name="Sales",
    agent_id=BOT,
    agent_name="Asha",
    bot_id="9",
    bot_name="Sales line",
    routing_id="7",
    actions=(("NO_BOT", "Create a bot"),),
)
LISTED: dict[str, Any] = {
    "id": 5,
    "connection_id": BOT.upper(),
    "provider": "voicelink",
    "provider_key": CANARY,
    "name": "Main",
    "status": "ACTIVE",
    "is_default": True,
    "phone_numbers": [],
}
FOUND = Connection(BOT, "Main", "ACTIVE", is_default=True)
UNDOCUMENTED = "the API's answer to sync is not what it documents: "
NO_LIST = "the API's answer holds no list of connections"

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


def paths(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: object) -> Any:  # noqa: ANN401 - JSON
    if not path:
        return new
    changed = copy.copy(value)
    changed[path[0]] = put(value[path[0]], path[1:], new)
    return changed


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def entry_of(**changes: object) -> Entry:
    """Return what is read from the entry with changes in it; a key with dots goes down."""
    entry = ENTRY
    for key, value in changes.items():
        entry = put(entry, tuple(key.split("__")), value)
    answer = parse_sync(as_json({"success": True, "data": {"readiness": [entry]}}))
    assert answer.anomalies == {}
    return answer.entries[0]


def test_a_whole_answer() -> None:
    assert parse_sync(as_json(SYNC)) == Answer((READ,), 3, {})
    assert parse_sync(bytearray(as_json(SYNC))) == Answer((READ,), 3, {})


def test_the_vendors_sample_with_half_of_it_null() -> None:
    sample = {
        "key": "918011223344",
        "phone_number": "+918011223344",
        "state": "NO_BOT",
        "issues": ["NO_BOT", "ROUTING_MISSING", "NO_VOCOBASE_AGENT"],
        "remote_did": {"did_id": 812, "client_id": 415, "is_expired": False, "raw": {}},
        "local_phone_number": None,
        "routing": None,
        "bot": None,
    }
    answer = parse_sync(as_json({"success": True, "data": {"readiness": [sample]}}))
    issues = ("NO_BOT", "ROUTING_MISSING", "NO_VOCOBASE_AGENT")
    assert answer == Answer((Entry("+918011223344", "NO_BOT", issues, did_id=812, client_id=415),), None, {})


def test_what_is_raw_is_in_no_entry() -> None:
    assert CANARY not in repr(parse_sync(as_json(SYNC)))
    assert CANARY not in repr(parse_connections(as_json({"success": True, "data": [LISTED]})))


INTACT = {"key": "918011223399", "phone_number": "+918011223399", "state": "READY", "issues": []}
TWO = put(SYNC, ("data", "readiness"), [*SYNC["data"]["readiness"], INTACT])  # so that one entry can be spoilt


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(list(paths(SYNC))), anything)
def test_anything_in_the_place_of_any_part_is_an_answer_or_a_bad_response(path: tuple[Any, ...], new: object) -> None:
    try:
        answer = parse_sync(as_json(put(TWO, path, new)))
    except BadResponseError:
        within_an_entry = path[:2] == ("data", "readiness") and len(path) > 2
    else:
        within_an_entry = False
        check(answer)
    assert not within_an_entry, "an odd entry spoils the others"


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(paths(LISTED))), anything)
def test_anything_in_the_place_of_any_part_of_a_connection_is_a_list_or_a_bad_response(
    path: tuple[Any, ...], new: object
) -> None:
    try:
        listed = parse_connections(as_json({"success": True, "data": [put(LISTED, path, new), LISTED]}))
    except BadResponseError:
        pytest.fail("one odd connection hides the others")
    assert listed[-1] == FOUND


@settings(max_examples=300, deadline=None)
@given(st.binary() | st.text().map(str.encode) | anything.map(as_json))
def test_any_bytes_are_an_answer_or_a_bad_response(body: bytes) -> None:
    for parse in (parse_sync, parse_connections):
        with contextlib.suppress(BadResponseError):
            parse(body)
    code = error_code(body)
    assert code is None or code.isupper()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(as_json(SYNC)) - 1), st.integers(0, 255))
def test_any_byte_that_is_wrong_is_an_answer_or_a_bad_response(place: int, byte: int) -> None:
    body = bytearray(as_json(SYNC))
    body[place] = byte
    with contextlib.suppress(BadResponseError):
        check(parse_sync(body))


def check(answer: Answer) -> None:
    """Check that every field holds what its type says, so that nothing behind it can stumble."""
    for entry in answer.entries:
        assert isinstance(entry.state, str)
        assert all(isinstance(issue, str) for issue in entry.issues)
        assert len(set(entry.issues)) == len(entry.issues)
        assert entry.expired in {True, False, None}
        assert all(value is None or 0 < value < 2**63 for value in (entry.did_id, entry.client_id))
        texts = (entry.friendly_name, entry.agent_id, entry.agent_name, entry.bot_id, entry.bot_name, entry.routing_id)
        for text in (entry.number, entry.state, *entry.issues, entry.did_status, *texts):
            assert len(text) <= 200
            text.encode()  # no lone surrogates
    assert answer.drift_items is None or answer.drift_items >= 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", f"{UNDOCUMENTED}Input data was truncated"),
        (b"<html>", f"{UNDOCUMENTED}JSON is malformed: invalid character (byte 0)"),
        (b"[]", f"{UNDOCUMENTED}Expected `object`, got `array`"),
        (b"{}", f"{UNDOCUMENTED}Object missing required field `success`"),
        (
            b'{"success": true}',
            f"{UNDOCUMENTED}Object missing required field `data`",
        ),
        (
            b'{"success": "yes", "data": {"readiness": []}}',
            f"{UNDOCUMENTED}Expected `bool`, got `str` - at `$.success`",
        ),
        (
            b'{"success": true, "data": {}}',
            f"{UNDOCUMENTED}Object missing required field `readiness` - at `$.data`",
        ),
        (
            b'{"success": true, "data": {"readiness": {}}}',
            f"{UNDOCUMENTED}Expected `array`, got `object` - at `$.data.readiness`",
        ),
        (b'{"success": false, "data": {"readiness": []}}', "the API answered 200, but without success"),
        (
            b'{"success": false, "error": {"code": "FORBIDDEN", "message": "secret"}}',
            "the API answered 200, but without success (FORBIDDEN)",
        ),
        (
            b'{"success": false, "data": {"readiness": []}, "error": {"code": "<b>"}}',
            "the API answered 200, but without success",
        ),
    ],
)
def test_an_envelope_that_is_broken_fails_the_poll(body: bytes, message: str) -> None:
    with pytest.raises(BadResponseError) as caught:
        parse_sync(body)
    assert str(caught.value) == message


@pytest.mark.parametrize("spoilt", [None, 42, "READY", [], {}, {"state": "READY"}, {"phone_number": "sales"}])
def test_an_entry_that_names_no_number_is_counted_and_skipped(spoilt: object) -> None:
    answer = parse_sync(as_json({"success": True, "data": {"readiness": [spoilt, ENTRY, spoilt]}}))
    assert answer.entries == (READ,)
    assert answer.anomalies == {Anomaly.INVALID_ENTRY: 2}


def test_duplicates_are_left_to_those_who_count_them() -> None:
    answer = parse_sync(as_json({"success": True, "data": {"readiness": [ENTRY, ENTRY]}}))
    assert answer.entries == (READ, READ)


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"phone_number": None}, "+918011223344"),
        ({"phone_number": 918011223345}, "+918011223345"),
        ({"phone_number": "91 8011 223345"}, "+918011223345"),
        ({"phone_number": {"number": "+918011223345"}}, "+918011223344"),
        ({"phone_number": "9" * 5000, "key": True}, "+918011223344"),
        ({"phone_number": "+91 80 1122 33 45".ljust(40)}, "+918011223345"),
        ({"phone_number": "+91 80 1122 33 45".ljust(41)}, "+918011223344"),
        ({"phone_number": "", "key": "", "remote_did__phone_number": "+918011223346"}, "+918011223346"),
        (
            {"phone_number": 1, "key": 1.5, "remote_did": {"did_number": 918011223347}, "local_phone_number": 5},
            "+918011223347",
        ),
        (
            {"phone_number": 1, "key": "x", "remote_did": [], "local_phone_number": {"phone_number": "+918011223348"}},
            "+918011223348",
        ),
        ({"phone_number": "99912345"}, "+99912345"),
    ],
)
def test_the_number_is_the_first_one_that_is_one(changes: dict[str, object], number: str) -> None:
    assert entry_of(**changes).number == number


@pytest.mark.parametrize(
    ("did_id", "kept"), [(812, (812, "")), (None, (None, "918011223344")), ("x", (None, "918011223344"))]
)
def test_the_did_number_is_kept_where_no_did_id_is_named(did_id: object, kept: tuple[int | None, str]) -> None:
    read = entry_of(remote_did__did_id=did_id)
    assert (read.did_id, read.did_number) == kept


@pytest.mark.parametrize(
    ("issues", "read"),
    [
        ([], ()),
        (None, ()),
        ("NO_BOT", ("NO_BOT",)),
        ({"code": "NO_BOT"}, ("OTHER",)),
        (["NO_BOT", 5, None, "", "no bot\n"], ("NO_BOT", "OTHER", "", "no bot\n")),
        (["A" * 300], ("A" * 200,)),
    ],
)
def test_issues(issues: object, read: tuple[str, ...]) -> None:
    assert entry_of(issues=issues).issues == read


@pytest.mark.parametrize(("state", "read"), [("READY", "READY"), (None, "OTHER"), (1, "OTHER"), ("", ""), ("ok", "ok")])
def test_a_state_is_what_the_api_says_or_other(state: object, read: str) -> None:
    assert entry_of(state=state).state == read


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (812, 812),
        ("812", 812),
        (0, None),
        ("0", None),
        (-1, None),
        (True, None),
        (8.0, None),
        (None, None),
        (2**63 - 1, 2**63 - 1),
        (str(2**63 - 1), 2**63 - 1),
        (2**63, None),
        (str(2**63), None),
        ("\N{ARABIC-INDIC DIGIT ONE}", None),
        ("9" * 30, None),
        ("", None),
        (10**400, None),
    ],
)
def test_an_id_is_a_positive_number_of_64_bits_or_nothing(value: object, read: int | None) -> None:
    assert entry_of(remote_did__did_id=value).did_id == read


@pytest.mark.parametrize(
    ("value", "read"),
    [(True, True), (1, True), (False, False), (0, False), (None, None), ("true", None), (1.0, None), ([], None)],
)
def test_expired_is_what_the_api_says_so_clearly(value: object, read: bool | None) -> None:  # noqa: FBT001 - expected
    assert entry_of(remote_did__is_expired=value).expired is read


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("a" * 200, "a" * 200),
        ("a" * 201, "a" * 199 + "…"),
        ('<b>"x"\\\n\0', '<b>"x"\\\n\0'),
        (5, "5"),
        (10**400, ""),
        (True, ""),
        (1.5, ""),
        (None, ""),
        ({"a": 1}, ""),
        ("half \ud83d", "half ?"),
        ("half \ude00 a pair \\ud83d", "half ? a pair \\ud83d"),
        ("\ud83d\ud83d\ude00", "?\U0001f600"),
    ],
)
def test_texts_are_shown_as_they_are_but_not_without_end(value: object, read: str) -> None:
    assert entry_of(local_phone_number__friendly_name=value).friendly_name == read
    assert entry_of(bot__name=value).bot_name == read


def test_half_an_emoji_in_what_is_raw_harms_nobody() -> None:
    assert entry_of(remote_did__raw="\ud83d") == READ


@pytest.mark.parametrize("part", ["remote_did", "local_phone_number", "routing", "bot"])
@pytest.mark.parametrize("value", [None, 1, "x", [], [1.5], {"unexpected": 1}])
def test_a_part_of_another_shape_counts_as_absent(part: str, value: object) -> None:
    read = entry_of(**{part: value})
    assert read == entry_of(**{part: None})
    assert read.number == READ.number
    assert read.issues == READ.issues


def test_the_last_of_two_equal_keys_holds() -> None:
    body = b'{"success": true, "data": {"readiness": [{"key": "918011223344", "state": "READY", "state": "NO_BOT"}]}}'
    assert parse_sync(body).entries[0].state == "NO_BOT"


@pytest.mark.parametrize(
    ("drift", "items"), [([], 0), ([1, {}, None], 3), ({"a": 1}, None), (None, None), ("x", None), (3, None)]
)
def test_drift_is_counted_where_it_is_a_list(drift: object, items: int | None) -> None:
    assert parse_sync(as_json({"success": True, "data": {"readiness": [], "drift": drift}})).drift_items == items


def test_what_is_nested_without_end_is_refused_or_skipped() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    for body in (deep, b'{"success": true, "data": {"readiness": %s}}' % deep, b'{"success": false, "x": %s}' % deep):
        for parse in (parse_sync, parse_connections):
            with pytest.raises(BadResponseError):
                parse(body)
    assert error_code(deep) is None


@pytest.mark.parametrize("depth", [10, 100, 200, 300, 500, 900, 1100, 20_000])
def test_an_entry_may_be_nested_as_deep_as_any_parser_goes(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    body = b'{"success": true, "data": {"readiness": [{"key": "918011223344", "raw": %s}], "drift": %s}}' % (deep, deep)
    try:
        answer = parse_sync(body)
    except BadResponseError:
        assert depth > 500
        return
    assert len(answer.entries) + answer.anomalies.get(Anomaly.INVALID_ENTRY, 0) == 1
    assert answer.drift_items == 1


def test_ten_thousand_codes_are_read_as_they_are() -> None:
    codes = [f"CODE_{number}" for number in range(10_000)]
    assert entry_of(issues=codes).issues == tuple(codes)


@pytest.mark.parametrize(
    "data", [[LISTED], {"connections": [LISTED]}, {"data": [LISTED]}, {"connections": None, "data": [LISTED]}]
)
def test_the_list_of_connections_may_sit_in_three_places(data: object) -> None:
    assert parse_connections(as_json({"success": True, "data": data})) == (FOUND,)


@pytest.mark.parametrize(
    ("item", "listed"),
    [
        (LISTED | {"connection_id": None, "id": BOT}, (FOUND,)),
        (LISTED | {"connection_id": "5", "id": BOT}, (FOUND,)),
        (LISTED | {"provider": None}, (FOUND,)),
        (LISTED | {"provider": "twilio"}, ()),
        (LISTED | {"provider": []}, ()),
        (LISTED | {"connection_id": 5}, ()),
        ({"connection_id": BOT}, (Connection(BOT),)),
        (LISTED | {"is_default": 1, "name": None, "status": 5}, (Connection(BOT, "", "5"),)),
        (LISTED | {"name": "\ud83d"}, (Connection(BOT, "?", "ACTIVE", is_default=True),)),
        (None, ()),
        (BOT, ()),
    ],
)
def test_connections(item: object, listed: tuple[Connection, ...]) -> None:
    assert parse_connections(as_json({"success": True, "data": [item]})) == listed


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the API's list of connections is not JSON"),
        (b"<html>", "the API's list of connections is not JSON"),
        (b'{"success": true, "data": [', "the API's list of connections is not JSON"),
        (b"[]", NO_LIST),
        (b'{"success": true}', NO_LIST),
        (b'{"data": {"connections": {}}}', NO_LIST),
        (b'{"success": false, "data": []}', "the API answered 200, but without success"),
        (b'{"success": false, "error": {"code": "X"}}', "the API answered 200, but without success (X)"),
    ],
)
def test_a_list_of_connections_that_is_none(body: bytes, message: str) -> None:
    with pytest.raises(BadResponseError) as caught:
        parse_connections(body)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"success": false, "error": {"code": "NOT_FOUND", "message": "x"}}', "NOT_FOUND"),
        (b'{"error": {"code": "NOT_FOUND", "message": "\\ud83d"}}', "NOT_FOUND"),
        (b'{"error": {"code": "not found"}}', None),
        (b'{"error": {"code": "A%s"}}' % (b"A" * 64), None),
        (b'{"error": {"code": 404}}', None),
        (b'{"error": "NOT_FOUND"}', None),
        (b'"NOT_FOUND"', None),
        (b"NOT_FOUND", None),
    ],
)
def test_a_code_is_what_looks_like_one(body: bytes, code: str | None) -> None:
    assert error_code(body) == code


def test_entries_of_which_none_names_a_number_are_no_answer() -> None:
    with pytest.raises(BadResponseError, match=r"^the API's answer to sync names no number in any of its entries$"):
        parse_sync(as_json({"success": True, "data": {"readiness": [{"did": "918011223344", "state": "READY"}, 7]}}))
    assert parse_sync(as_json({"success": True, "data": {"readiness": []}})).entries == ()


LONG = "x" * 300
SAID: list[tuple[object, object, tuple[tuple[str, str], ...]]] = [
    ([{"code": "A", "label": "One"}, {"code": "B", "label": "Two"}], ["Else"], (("A", "One"), ("B", "Two"))),
    (None, ["One", "Two"], (("", "One"), ("", "Two"))),
    ([], ["One"], (("", "One"),)),
    ([{"code": "A"}, {"code": "B", "label": ""}, {"code": "C", "label": None}], ["One"], (("", "One"),)),
    ([{"label": "One"}, 42, None, "Two", [], {"code": 7, "label": 8}], [], (("", "One"), ("7", "8"))),
    ([{"code": "A", "label": "One", "raw": {"note": CANARY}}], [], (("A", "One"),)),
    ("One", {"a": 1}, ()),
    (7, "One", ()),
    ([], [1, None, {}, ["One"], "Two", ""], (("", "Two"),)),
    ([{"code": LONG, "label": LONG}], [], ((LONG[:199] + "…", LONG[:199] + "…"),)),
    ([{"code": str(n), "label": "One"} for n in range(99)], [], tuple((str(n), "One") for n in range(20))),
    ([], [str(n) for n in range(1, 99)], tuple(("", str(n)) for n in range(1, 21))),
]


@pytest.mark.parametrize(("items", "sentences", "read"), SAID)
def test_what_a_person_would_do_is_read_as_far_as_it_can_be(items: object, sentences: object, read: object) -> None:
    changed = copy.deepcopy(SYNC)
    changed["data"]["readiness"][0] |= {"action_items": items, "actions": sentences}
    (entry,) = parse_sync(json.dumps(changed).encode()).entries
    assert entry.actions == read
    assert entry.issues == READ.issues


def test_actions_that_cannot_be_read_cost_nothing_else() -> None:
    deep = "[" * 200 + "]" * 200
    body = json.dumps(SYNC).replace('[{"code": "NO_BOT", "label": "Create a bot"}]', deep).encode()
    (entry,) = parse_sync(body).entries
    assert entry.actions == (("", "Create a bot"),)
