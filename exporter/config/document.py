"""A YAML file as a mapping, and what is wrong with it as sentences that name the key: for any strict schema."""

from __future__ import annotations

import difflib
import re
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from exporter.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

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


def read_mapping(path: Path) -> dict[str, Any]:
    """Return what a YAML file holds; an empty one holds nothing. Raises `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{path}: can't be read: {error.strerror or 'no such file'}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 text (byte {error.start})"]) from None
    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False  # YAML allows it, and the warning would go past the log
    try:
        data = yaml.load(text)
    except DuplicateKeyError as error:
        raise ConfigError([f"{path}{_line(error, text)}: the same key stands twice in one mapping"]) from None
    except YAMLError as error:
        raise ConfigError([f"{path}{_line(error, text)}: is not YAML: {_yaml_reason(error)}"]) from None
    except (ValueError, KeyError):  # such as a date in a 13th month
        raise ConfigError([f"{path}: is not YAML: it holds a value that its own type doesn't allow"]) from None
    except RecursionError:
        raise ConfigError([f"{path}: is nested too deep"]) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError([f"{path}: has to be a mapping of keys to values"])
    return data


def _line(error: YAMLError, text: str) -> str:
    if isinstance(error, ReaderError):
        return f":{text.count(chr(10), 0, error.position) + 1}"
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    return f":{mark.line + 1}:{mark.column + 1}" if mark else ""


def _yaml_reason(error: YAMLError) -> str:
    reason = str(getattr(error, "problem", None) or getattr(error, "reason", None))
    return f"{getattr(error, 'context', '')}, {reason}" if reason.startswith("but ") else reason


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
