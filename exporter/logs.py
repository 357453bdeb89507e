"""The log: logfmt or JSON on standard error, and failures that go on said once."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from exporter.clock import Clock

LEVELS: Final = ("debug", "info", "warn", "error")
FORMATS: Final = ("logfmt", "json")
SUMMARY_EVERY: Final = 600.0  # seconds between two lines about a failure that goes on

log = structlog.stdlib.get_logger(__name__)


def set_up_logging(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send the log to `stream` (standard error) as `logfmt` or `json`, from `level` on.

    What libraries log goes the same way from `warn` on. Tracebacks never reach the log: an unexpected error is logged
    with its type and place.
    """
    number = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}[level]
    shared: list[Any] = [
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        _place_of_error,
        _go_names,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
        if form == "json"
        else structlog.processors.LogfmtRenderer(key_order=("ts", "level", "msg"), bool_as_flag=False)
    )
    target = stream or sys.stderr
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_first_line, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _one_line, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("exporter").setLevel(number)


def place_of(error: BaseException) -> str:
    """Return the line that an error came from, as `module:line`; empty where it was never raised."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}" if trace else ""


def _first_line(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401 - structlog's
    """Keep the first line of what a library logs: asyncio puts errors with their texts into those below."""
    event["event"] = event["event"].partition("\n")[0]
    event.pop("stack_info", None)
    return event


def _go_names(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401 - structlog's
    """Name the fields as the rest of a Prometheus installation does."""
    event["msg"] = event.pop("event")
    event["level"] = {"warning": "warn", "critical": "error"}.get(event["level"], event["level"])
    return event


def _place_of_error(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401 - structlog's
    """Replace a traceback by the error's type and the line it came from: its text could hold anything."""
    info = event.pop("exc_info", None)
    error = info[1] if isinstance(info, tuple) else info if isinstance(info, BaseException) else None
    if info is True:
        error = sys.exc_info()[1]
    if error is not None:
        event["error"] = type(error).__name__
        if place := place_of(error):
            event["at"] = place
    return event


def _one_line(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401 - structlog's
    """Keep what came from outside on one line and free of control characters."""
    for key, value in event.items():
        if value is not None and not isinstance(value, bool | int | float):
            event[key] = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in str(value))
    return event


@dataclass(slots=True)
class _Failing:
    reason: str
    since: float
    count: int = 0
    said: float = 0.0


class FailureLog:
    """Says a failure once, then sums it up: every ten minutes, and when it is over.

    `fields` are logged and tell failures of the same kind apart.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failing: dict[tuple[object, ...], _Failing] = {}

    def failed(self, what: str, reason: str, message: str, **fields: str) -> None:
        """Note that `what` failed; `reason` tells whether it is still the same failure."""
        now, key = self._clock.monotonic(), (what, *fields.values())
        known = self._failing.get(key)
        if known is None or known.reason != reason:
            self._failing[key] = _Failing(reason, known.since if known else now, (known.count if known else 0) + 1, now)
            log.warning("%s failed", what, reason=reason, error=message, **fields)
            return
        known.count += 1
        if now - known.said >= SUMMARY_EVERY:
            known.said = now
            log.warning("%s keeps failing", what, reason=reason, error=message, failures=known.count, **fields)

    def worked(self, what: str, **fields: str) -> None:
        """Note that `what` worked; says so where it had failed before."""
        known = self._failing.pop((what, *fields.values()), None)
        if known:
            seconds = round(self._clock.monotonic() - known.since, 1)
            log.info("%s works again", what, failures=known.count, failed_for_seconds=seconds, **fields)
