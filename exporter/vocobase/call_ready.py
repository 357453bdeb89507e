"""The answer to call-ready: what a person may want to read of it afterwards, without what is nobody's business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json

from exporter.errors import BadResponseError

_DEPTH: Final = 6  # levels that are kept
_ITEMS: Final = 50  # of a list or an object
_TEXT: Final = 500  # characters of a text
_OPAQUE: Final = "raw"  # objects the vendor hands through; they are never kept


@dataclass(frozen=True, slots=True)
class CallReadyAnswer:
    """What call-ready said it did. `ready` is `None` where it didn't say; the polls decide anyway."""

    ready: bool | None
    steps: tuple[dict[str, Any], ...]
    readiness_before: dict[str, Any] | None
    readiness: dict[str, Any] | None


def parse_call_ready(body: bytes | bytearray) -> CallReadyAnswer:
    """Read a success. Raises `BadResponseError` where it isn't one: then nobody knows what was done."""
    try:
        answer = from_json(body, allow_inf_nan=False)  # no database would keep them
    except ValueError:
        raise BadResponseError("the answer to call-ready is not JSON") from None
    data = answer.get("data") if isinstance(answer, dict) and answer.get("success") is True else None
    if not isinstance(data, dict):
        raise BadResponseError("the answer to call-ready is not what the API documents")
    steps, ready = data.get("steps"), data.get("ready")
    return CallReadyAnswer(
        ready if isinstance(ready, bool) else None,
        tuple(
            kept for step in (steps if isinstance(steps, list) else [])[:_ITEMS] if (kept := _object(step)) is not None
        ),
        _object(data.get("readiness_before")),
        _object(data.get("readiness")),
    )


def _object(value: object) -> dict[str, Any] | None:
    kept = scrub(value)
    return kept if isinstance(kept, dict) else None


def scrub(value: object, depth: int = _DEPTH) -> Any:  # noqa: ANN401 - JSON in, JSON out
    """Return JSON without `raw` objects, and without what is deeper, longer or more than anybody reads."""
    if isinstance(value, dict):
        items = [(str(key)[:_TEXT], inner) for key, inner in value.items() if key != _OPAQUE][:_ITEMS]
        return {key: scrub(inner, depth - 1) for key, inner in items} if depth else {}
    if isinstance(value, list):
        return [scrub(inner, depth - 1) for inner in value[:_ITEMS]] if depth else []
    if isinstance(value, str):
        return value[:_TEXT].replace("\x00", "")  # PostgreSQL's JSON can't hold a NUL
    return value if isinstance(value, bool | int | float) or value is None else str(value)
