"""From file, environment and flags to one checked configuration, or to every problem with it at once."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from exporter.config.schema import Config
from exporter.config.secrets import read_secrets
from exporter.config.values import KEY_PREFIX
from exporter.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ENV_PREFIX: Final = "VOICELINK_"
_SECRET_KEYS: Final = frozenset({"api_key", "apikey", "key", "token", "secret", "password", "bearer_token"})
_INLINE: Final = "secrets don't belong into this file"
_MESSAGES: Final = {
    "missing": "is required",
    "model_type": "has to be a mapping of keys to values",
    "dict_type": "has to be a mapping of keys to values",
    "tuple_type": "has to be a list",
    "string_type": "has to be a text",
    "int_type": "has to be a whole number",
    "bool_type": "has to be true or false",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """A checked configuration with the secrets that it names.

    `unknown_environment` are `VOICELINK_…` variables that mean nothing, which is worth a warning.
    """

    config: Config
    api_keys: Mapping[str, SecretStr]
    hash_key: SecretStr | None = None
    unknown_environment: tuple[str, ...] = ()


def load_settings(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, str] | None = None) -> Settings:
    """Read, merge and check. `flags` maps dotted keys to values and wins over `environ`, which wins over the file.

    Raises `ConfigError` with every problem found.
    """
    data = _read(path) if path else {}
    overrides, unknown = _from_environment(environ)
    overrides |= {key: (value, "the command line") for key, value in (flags or {}).items()}
    origins = {}
    for key, (value, origin) in overrides.items():
        if _put(data, key.split("."), value):
            origins[key] = origin
    problems = [*_inline_secrets(data, ""), *_repeated_names(data.get("accounts"))]
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        secret_paths = {problem.partition(": ")[0] for problem in problems}
        found = [_problem(detail) for detail in error.errors(include_url=False, include_input=False)]
        problems += [f"{key}: {text}" for key, text in found if key not in secret_paths]
        raise ConfigError([_with_origin(problem, origins) for problem in problems]) from None
    api_keys, hash_key, secret_problems = read_secrets(config, environ)
    problems += secret_problems
    problems += _store_problems(config)
    if problems:
        raise ConfigError(problems)
    return Settings(config, api_keys, hash_key, tuple(unknown))


def environment_names() -> dict[str, str]:
    """Return every environment variable that sets a key of the configuration, with that key, dotted."""
    return {ENV_PREFIX + key.replace(".", "_").upper(): key for key, _ in _leaves(Config, "")}


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{path}: can't be read: {error.strerror or 'no such file'}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 text (byte {error.start})"]) from None
    try:
        data = YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError as error:
        raise ConfigError([f"{path}{_line(error)}: the same key stands twice in one mapping"]) from None
    except YAMLError as error:
        raise ConfigError([f"{path}{_line(error)}: is not YAML: {_yaml_reason(error)}"]) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError([f"{path}: has to be a mapping of keys to values"])
    return data


def _line(error: YAMLError) -> str:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    return f":{mark.line + 1}:{mark.column + 1}" if mark else ""


def _yaml_reason(error: YAMLError) -> str:
    reason = getattr(error, "problem", None) or getattr(error, "reason", None)
    return str(reason) if reason else "it can't be parsed"


def _leaves(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, info in model.model_fields.items():
        section = _section(info.annotation)
        if section:
            yield from _leaves(section, f"{prefix}{name}.")
        elif _settable(info.annotation):
            yield f"{prefix}{name}", info.annotation


def _section(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - a type, of any kind
    if get_origin(annotation) is UnionType:
        annotation = next((arg for arg in get_args(annotation) if arg is not type(None)), annotation)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _settable(annotation: Any) -> bool:  # noqa: ANN401 - a type, of any kind
    """Tell whether a value fits into a variable: lists of sections have no form that does."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return not any(_section(arg) for arg in get_args(annotation))


def _from_environment(environ: Mapping[str, str]) -> tuple[dict[str, tuple[object, str]], list[str]]:
    known = environment_names()
    types = dict(_leaves(Config, ""))
    found, unknown = {}, []
    for name, text in environ.items():
        key = known.get(name)
        if key:
            found[key] = (_from_text(text, types[key]), name)
        elif name.startswith(ENV_PREFIX) and not name.startswith(_NOT_OURS):
            unknown.append(name)
    return found, sorted(unknown)


# Read by the command line; and what Kubernetes sets in every pod beside a service called voicelink-exporter.
_NOT_OURS: Final = ("VOICELINK_CONFIG_FILE", "VOICELINK_LOG_LEVEL", "VOICELINK_LOG_FORMAT", "VOICELINK_EXPORTER_")


def _from_text(text: str, annotation: Any) -> object:  # noqa: ANN401 - a type, of any kind
    if get_origin(annotation) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) and annotation is not str else text


def _put(data: dict[str, Any], path: list[str], value: object) -> bool:
    for name in path[:-1]:
        inner = data.setdefault(name, {})
        if inner is None or inner is False:
            inner = data[name] = {}
        if not isinstance(inner, dict):
            return False  # the file has something else there, which validation reports
        data = inner
    data[path[-1]] = value
    return True


def _inline_secrets(value: object, path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            here = f"{path}.{key}" if path else str(key)
            if str(key).lower() in _SECRET_KEYS and ".labels." not in here:
                yield f"{here}: {_INLINE}; name a file with api_key_file or a variable with api_key_env"
            else:
                yield from _inline_secrets(inner, here)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _inline_secrets(inner, f"{path}[{index}]")
    elif isinstance(value, str) and value.startswith(KEY_PREFIX) and not path.endswith(".api_key_env"):
        yield f"{path}: this looks like an API key; {_INLINE}"


def _repeated_names(accounts: object) -> Iterator[str]:
    """Account names are checked on what the file holds: a fault elsewhere in an account must not hide this one."""
    seen: dict[object, int] = {}
    for index, account in enumerate(accounts if isinstance(accounts, list) else ()):
        name = account.get("name", "default") if isinstance(account, dict) else None
        if isinstance(name, str) and seen.setdefault(name, index) != index:
            yield f"accounts[{index}].name: accounts[{seen[name]}] is called {name!r} already"


def _problem(error: ErrorDetails) -> tuple[str, str]:
    path = ""
    for part in error["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    kind, context = error["type"], error.get("ctx", {})
    if kind == "at":
        key = str(context["key"])
        return (f"{path}.{key}" if path else key), str(context["problem"])
    if kind == "extra_forbidden":
        return path, f"unknown key{_suggestion(error['loc'])}"
    if kind == "value_error":
        return path or "configuration", str(context["error"])
    message = _MESSAGES.get(kind) or error["msg"].replace("Input should be", "has to be")
    return path or "configuration", message[0].lower() + message[1:]


def _suggestion(loc: tuple[int | str, ...]) -> str:
    names = sorted(_keys(Config))
    close = difflib.get_close_matches(str(loc[-1]), names, n=1, cutoff=0.8)
    return f"; did you mean {close[0]}?" if close else ""


def _keys(model: type[BaseModel]) -> set[str]:
    names = set(model.model_fields)
    for info in model.model_fields.values():
        for arg in (info.annotation, *get_args(info.annotation)):
            section = _section(arg)
            names |= _keys(section) if section else set()
    return names


def _with_origin(problem: str, origins: Mapping[str, str]) -> str:
    origin = origins.get(problem.partition(": ")[0])
    return f"{problem} (from {origin})" if origin else problem


def _store_problems(config: Config) -> Iterator[str]:
    """Check a file that was asked for; the default one is nobody's wish until something is kept in it."""
    path = config.store.url.removeprefix("sqlite:///")
    if "store" not in config.model_fields_set or path == config.store.url or path in {"", ":memory:"}:
        return
    folder = Path(path).parent
    if not folder.is_dir():
        yield f"store.url: there is no folder {folder}"
    elif not os.access(folder, os.W_OK) or (Path(path).exists() and not os.access(path, os.W_OK)):
        yield f"store.url: {path} can't be written to"
