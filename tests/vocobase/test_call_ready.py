"""What is kept of call-ready's answer, and what is no answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from exporter.errors import BadResponseError
from exporter.vocobase.call_ready import CallReadyAnswer, parse_call_ready, scrub


def answer(data: object, *, success: object = True) -> CallReadyAnswer:
    return parse_call_ready(json.dumps({"success": success, "data": data}).encode())


def test_a_whole_answer() -> None:
    step, before, after = {"step": "ensure_bot", "status": "done"}, {"state": "NO_BOT"}, {"state": "READY"}
    data = {"ready": True, "steps": [step], "readiness_before": before, "readiness": after}
    assert answer(data) == CallReadyAnswer(True, (step,), before, after)  # noqa: FBT003 - the first field


def test_an_answer_that_says_nothing() -> None:
    assert answer({}) == CallReadyAnswer(None, (), None, None)


@pytest.mark.parametrize(("said", "ready"), [(True, True), (False, False), (1, None), ("true", None), (None, None)])
def test_ready_is_what_it_says_so_clearly(said: object, ready: object) -> None:
    assert answer({"ready": said}).ready is ready


@pytest.mark.parametrize("steps", [None, {}, "done", 3, {"0": {}}])
def test_steps_that_are_no_list_are_none(steps: object) -> None:
    assert answer({"steps": steps}).steps == ()


def test_a_step_that_is_no_object_is_left_out() -> None:
    assert answer({"steps": ["one", {"step": "two"}, None, {}]}).steps == ({"step": "two"}, {})


def test_no_more_steps_are_kept_than_anybody_reads() -> None:
    assert [step["at"] for step in answer({"steps": [{"at": each} for each in range(60)]}).steps] == list(range(50))


@pytest.mark.parametrize("readiness", [None, [], "READY", 3])
def test_readiness_that_is_no_object_is_none(readiness: object) -> None:
    found = answer({"readiness": readiness, "readiness_before": readiness})
    assert (found.readiness, found.readiness_before) == (None, None)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"success": true, "data": {"ready": NaN}}', b'{"success": true, "data": Infinity}']
)
def test_what_is_no_json_is_no_answer(body: bytes) -> None:
    with pytest.raises(BadResponseError) as caught:
        parse_call_ready(body)
    assert str(caught.value) == "the answer to call-ready is not JSON"


@pytest.mark.parametrize(
    "said",
    [
        [],
        None,
        "success",
        {},
        {"success": True},
        {"success": True, "data": []},
        {"success": True, "data": None},
        {"success": False, "data": {}},
        {"success": 1, "data": {}},
        {"data": {}},
    ],
)
def test_what_is_not_the_documented_success_is_no_answer(said: object) -> None:
    with pytest.raises(BadResponseError) as caught:
        parse_call_ready(json.dumps(said).encode())
    assert str(caught.value) == "the answer to call-ready is not what the API documents"


def test_what_is_raw_is_not_kept_at_any_depth() -> None:
    data = {"raw": 1, "a": [{"raw": {"secret": 1}, "b": {"raw": [], "c": 2}}], "RAW": 3}
    assert scrub(data) == {"a": [{"b": {"c": 2}}], "RAW": 3}


def nested(depth: int, inner: Any, wrap: Any) -> Any:  # noqa: ANN401 - JSON
    for _ in range(depth):
        inner = wrap(inner)
    return inner


def test_six_levels_are_kept() -> None:
    for wrap, empty in ((lambda inner: {"a": inner}, {}), (lambda inner: [inner], [])):
        assert scrub(nested(6, 1, wrap)) == nested(6, 1, wrap)
        assert scrub(nested(9, 1, wrap)) == nested(6, empty, wrap)


def test_fifty_items_and_keys_of_five_hundred_characters_are_kept() -> None:
    assert scrub(list(range(60))) == list(range(50))
    found = scrub({"raw": 0, **{str(each): each for each in range(60)}})
    assert found == {str(each): each for each in range(50)}
    assert scrub({"k" * 600: 1}) == {"k" * 500: 1}
    assert scrub({7: "seven"}) == {"7": "seven"}


def test_texts_are_kept_up_to_five_hundred_characters_and_without_what_no_database_keeps() -> None:
    assert scrub("x" * 600) == "x" * 500
    assert scrub("a\x00b\x00") == "ab"


@pytest.mark.parametrize("value", [True, False, None, 0, 7, 1.5])
def test_other_values_are_kept_as_they_are(value: object) -> None:
    assert scrub(value) is value


def test_what_json_does_not_know_is_a_text() -> None:
    assert scrub(b"x") == "b'x'"
