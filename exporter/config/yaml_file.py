"""A YAML file as a mapping, or what keeps it from being one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from exporter.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


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
