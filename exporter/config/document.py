"""What pydantic finds wrong, as sentences that name the key: for any strict schema."""

from __future__ import annotations

import difflib
import re
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_MESSAGES: Final = {
    "missing": "is required",
    "model_type": "has to be a mapping of keys to values",
    "dict_type": "has to be a mapping of keys to values",
    "tuple_type": "has to be a list",
    "string_type": "has to be a text",
    "string_too_short": "must not be empty",
    "invalid_key": "is no text, as keys have to be",
    "too_short": "must not be empty",
    "int_type": "has to be a whole number",
    "bool_type": "has to be true or false",
}


def section_of(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - a type, of any kind
    """Return the section that a field holds, `None` where it holds none."""
    if get_origin(annotation) is UnionType:
        annotation = next((arg for arg in get_args(annotation) if arg is not type(None)), annotation)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def problems_with(error: ValidationError, model: type[BaseModel]) -> list[tuple[str, str]]:
    """Return what pydantic found when it made `model`: each problem as the key, dotted, and a sentence about it."""
    return [_problem(detail, model) for detail in error.errors(include_url=False, include_input=False)]


def _problem(error: ErrorDetails, root: type[BaseModel]) -> tuple[str, str]:
    path = ""
    for part in error["loc"] if error["loc"][-1:] != ("[key]",) else error["loc"][:-1]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    kind, context = error["type"], error.get("ctx", {})
    if kind == "at":
        key = str(context["key"])
        return (f"{path}.{key}" if path else key), str(context["problem"])
    if kind == "extra_forbidden":
        return path, f"unknown key{_suggestion(error['loc'], root)}"
    if kind == "value_error":
        return path or "configuration", str(context["error"])
    message = _MESSAGES.get(kind) or re.sub("^(Input|String) should", "has to", error["msg"])
    return path or "configuration", message[0].lower() + message[1:]


def _suggestion(loc: tuple[int | str, ...], root: type[BaseModel]) -> str:
    """Return the key that was meant, among those of the section that the unknown one stands in."""
    model = root
    for part in loc[:-1]:
        if isinstance(part, str):
            annotation = _fields(model)[part]
            model = next(section for arg in (annotation, *get_args(annotation)) if (section := section_of(arg)))
    close = difflib.get_close_matches(str(loc[-1]), _fields(model), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    """Return the types of the keys, by their names in the file."""
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}
