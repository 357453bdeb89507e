"""The log: one readable line an event, whatever is in it."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from exporter.logs import FORMATS, LEVELS, FailureLog, place_of, set_up_logging
from tests.support import logfmt
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CANARY = "rg_live_canary"
AWKWARD = 'a "quoted" \\ back=slash\nnew line\r\t\0\x1b[31mred\x1b[0m\x85\u2028\ud800 é 日本 \U0001f4de'
ESCAPED = (
    'a "quoted" \\ back=slash\\x0anew line\\x0d\\x09\\x00\\x1b[31mred\\x1b[0m\\x85\\x2028\\xd800 é 日本 \U0001f4de'
)
log = structlog.stdlib.get_logger("exporter.something")
READ: dict[str, Callable[[str], dict[str, Any]]] = {"logfmt": logfmt.parse, "json": json.loads}


class Written:
    """What was logged since the last look, by line."""

    def __init__(self, form: str, level: str = "debug") -> None:
        self.form = form
        self.stream = io.StringIO()
        set_up_logging(level, form, self.stream)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    def lines(self) -> list[dict[str, Any]]:
        text = self.text
        self.stream.seek(0)
        self.stream.truncate()
        assert not text or text.endswith("\n")
        return [READ[self.form](line) for line in text.split("\n")[:-1]]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the logging of the process as it was."""
    root, ours = logging.getLogger(), logging.getLogger("exporter")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    structlog.reset_defaults()


@pytest.fixture(params=FORMATS)
def written(request: pytest.FixtureRequest) -> Written:
    return Written(request.param)


def test_an_event_is_a_line_with_time_level_and_message(written: Written) -> None:
    log.info("polled", account="main", dids=3, seconds=0.25, ready=True)
    (line,) = written.lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("ts"))
    values: dict[str, object] = {"dids": 3, "seconds": 0.25, "ready": True}
    if written.form == "logfmt":
        values = {"dids": "3", "seconds": "0.25", "ready": "true"}
    assert line == {"level": "info", "msg": "polled", "account": "main", **values}


def test_logfmt_begins_with_time_level_and_message() -> None:
    written = Written("logfmt")
    log.info("state changed", account="main")
    assert re.fullmatch(r'ts=\S+ level=info msg="state changed" account=main\n', written.text)


def test_json_is_not_escaped_to_ascii() -> None:
    written = Written("json")
    log.info("état")
    assert '"état"' in written.text


def test_levels_are_named_as_prometheus_names_them(written: Written) -> None:
    for say in (log.debug, log.info, log.warning, log.error, log.critical):
        say("x")
    assert [line["level"] for line in written.lines()] == ["debug", "info", "warn", "error", "error"]


@pytest.mark.parametrize("level", LEVELS)
def test_from_a_level_on(level: str) -> None:
    written = Written("json", level)
    for say in (log.debug, log.info, log.warning, log.error):
        say("x")
    assert [line["level"] for line in written.lines()] == list(LEVELS[LEVELS.index(level) :])


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(KeyError):
        set_up_logging("loud", "json", io.StringIO())


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", "logfmt")
    log.info("hello")
    captured = capsys.readouterr()
    assert (captured.out, logfmt.parse(captured.err.strip())["msg"]) == ("", "hello")
    assert sys.stderr is not sys.stdout


def test_whatever_is_in_a_text_stays_on_one_line(written: Written) -> None:
    log.info(AWKWARD, value=AWKWARD)
    (line,) = written.lines()
    assert (line["msg"], line["value"]) == (ESCAPED, ESCAPED)


class Awkward:
    def __str__(self) -> str:
        return AWKWARD


@pytest.mark.parametrize(
    "value", [Awkward(), ValueError(AWKWARD), [AWKWARD], b"\n"], ids=lambda value: type(value).__name__
)
def test_whatever_a_value_is_it_stays_on_one_line(written: Written, value: object) -> None:
    log.info("x", value=value)
    text = written.text
    assert text.count("\n") == 1
    assert text.removesuffix("\n").isprintable()
    assert set(written.lines()[0]) == {"ts", "level", "msg", "value"}


def test_nothing_is_a_value_too(written: Written) -> None:
    log.info("x", value=None, empty="")
    (line,) = written.lines()
    assert (line["value"] or "", line["empty"]) == ("", "")


@given(st.text(), st.text())
def test_any_text_is_one_line_that_can_be_read(message: str, value: str) -> None:
    for form in FORMATS:
        written = Written(form)
        log.info(message, value=value)
        assert len(written.text.splitlines()) == 1
        (line,) = written.lines()
        if value.isprintable() and "\\" not in value:
            assert line["value"] == value


def test_arguments_are_put_into_the_message(written: Written) -> None:
    log.warning("%s of %s failed", "poll", "main")
    (line,) = written.lines()
    assert line["msg"] == "poll of main failed"
    assert "positional_args" not in line


def fail() -> None:
    raise RuntimeError(f"with {CANARY}\nand more")


def test_an_error_leaves_its_type_and_place_alone(written: Written) -> None:
    try:
        fail()
    except RuntimeError as error:
        log.exception("broken")
        log.error("broken", exc_info=error)  # noqa: TRY400 - another way to say it
        log.error("broken", exc_info=(type(error), error, error.__traceback__))  # noqa: TRY400 - a third
        logging.getLogger("library").error("broken", exc_info=True)  # noqa: G201 - as libraries do
    text = written.text
    assert CANARY not in text
    assert "Traceback" not in text
    lines = written.lines()
    place = f"{__name__}:{fail.__code__.co_firstlineno + 1}"
    assert [(line["level"], line["msg"], line["error"], line["at"]) for line in lines] == [
        ("error", "broken", "RuntimeError", place)
    ] * 4
    assert all(set(line) == {"ts", "level", "msg", "error", "at"} for line in lines)


def test_the_place_of_an_error_is_the_innermost_line() -> None:
    with pytest.raises(RuntimeError) as caught:
        fail()
    assert place_of(caught.value) == f"{__name__}:{fail.__code__.co_firstlineno + 1}"
    assert place_of(RuntimeError(CANARY)) == ""


def test_an_error_that_was_never_raised_has_no_place(written: Written) -> None:
    log.error("broken", exc_info=RuntimeError(CANARY))
    log.error("fine", exc_info=True)  # noqa: LOG014 - nothing to be told of
    log.error("fine", exc_info=False)
    broken, *fine = written.lines()
    assert broken["error"] == "RuntimeError"
    assert "at" not in broken
    assert [set(line) for line in fine] == [{"ts", "level", "msg"}] * 2


def test_a_library_is_heard_from_a_warning_on_in_the_same_form(written: Written) -> None:
    library = logging.getLogger("library.part")
    library.info("chatter")
    library.warning("%d%% %s", 5, AWKWARD.replace("\n", ""))
    library.critical("the end")
    first, last = written.lines()
    assert (first["level"], first["msg"]) == ("warn", "5% " + ESCAPED.replace("\\x0a", ""))
    assert (last["level"], last["msg"]) == ("error", "the end")


def test_of_a_librarys_message_the_first_line_is_kept(written: Written) -> None:
    logging.getLogger("asyncio").error(
        "Task exception was never retrieved\nfuture: %r", RuntimeError(CANARY), stack_info=True
    )
    assert CANARY not in written.text
    (line,) = written.lines()
    assert {key: value for key, value in line.items() if key != "ts"} == {
        "level": "error",
        "msg": "Task exception was never retrieved",
    }


def test_setting_up_again_replaces_what_was(written: Written) -> None:
    again = Written("json", "error")
    log.error("x")
    assert (len(written.lines()), len(again.lines())) == (0, 1)


# Failures that go on


def told(written: Written) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "ts"} for line in written.lines()]


async def test_a_failure_is_said_once_then_summed_up_then_over() -> None:
    written, clock = Written("json"), ManualClock()
    failures = FailureLog(clock)
    failures.failed("poll", "timeout", "no answer", account="main")
    first = {"reason": "timeout", "error": "no answer", "account": "main"}
    assert told(written) == [{"level": "warn", "msg": "poll failed", **first}]
    for _ in range(9):
        await clock.advance(60)
        failures.failed("poll", "timeout", "no answer", account="main")
    assert told(written) == []
    await clock.advance(60)
    failures.failed("poll", "timeout", "still none", account="main")
    keeps = {"level": "warn", "msg": "poll keeps failing", **first, "error": "still none", "failures": 11}
    assert told(written) == [keeps]
    await clock.advance(599)
    failures.failed("poll", "timeout", "no answer", account="main")
    assert told(written) == []
    await clock.advance(1)
    failures.failed("poll", "timeout", "still none", account="main")
    assert told(written) == [{**keeps, "failures": 13}]
    await clock.advance(0.26)
    failures.worked("poll", account="main")
    over = {"level": "info", "msg": "poll works again", "account": "main"}
    assert told(written) == [{**over, "failures": 13, "failed_for_seconds": 1200.3}]
    failures.worked("poll", account="main")
    assert told(written) == []
    failures.failed("poll", "timeout", "no answer", account="main")
    assert told(written) == [{"level": "warn", "msg": "poll failed", **first}]


async def test_another_reason_is_said_and_the_count_goes_on() -> None:
    written, clock = Written("json"), ManualClock()
    failures = FailureLog(clock)
    for reason in ("timeout", "timeout", "auth", "auth"):
        failures.failed("poll", reason, "x")
        await clock.advance(10)
    assert [line["reason"] for line in told(written)] == ["timeout", "auth"]
    failures.worked("poll")
    assert told(written) == [{"level": "info", "msg": "poll works again", "failures": 4, "failed_for_seconds": 40.0}]


def test_failures_of_different_things_are_told_apart() -> None:
    written = Written("json")
    failures = FailureLog(ManualClock())
    for what, account in (("poll", "a"), ("poll", "b"), ("listing", "a")):
        failures.failed(what, "auth", "x", account=account)
    assert [(line["msg"], line["account"]) for line in told(written)] == [
        ("poll failed", "a"),
        ("poll failed", "b"),
        ("listing failed", "a"),
    ]
    failures.worked("poll", account="c")
    assert told(written) == []
    failures.worked("poll", account="b")
    assert [line["account"] for line in told(written)] == ["b"]
