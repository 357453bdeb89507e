"""From file, environment and flags to one checked configuration, or to every problem with it at once."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, ValidationError

from exporter.config.document import problems_with, section_of
from exporter.config.places import Place, default_place, named_place, store_name
from exporter.config.schema import BASE_URL, Config, masked_store_url
from exporter.config.secrets import read_secrets
from exporter.config.values import KEY_PREFIX
from exporter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ENV_PREFIX: Final = "VOICELINK_"
_ALIKE: Final = 0.85  # as difflib measures likeness
_SECRET_KEYS: Final = frozenset({"api_key", "apikey", "key", "token", "secret", "password", "bearer_token"})
_API_KEY: Final = re.compile(KEY_PREFIX + r"[^\s'\",:;]*")
_INLINE: Final = "secrets don't belong into this file"


@dataclass(frozen=True, slots=True)
class Settings:
    """A checked configuration with the secrets that it names.

    `unknown_environment` are `VOICELINK_…` variables that mean nothing, which is worth a warning. `store_problem` says
    why the store must not be used, where that needs a person: everything but the store works all the same.
    """

    config: Config
    api_keys: Mapping[str, SecretStr]
    hash_key: SecretStr | None = None
    unknown_environment: tuple[str, ...] = ()
    store_problem: str = ""

    @property
    def key_travels_in_the_clear(self) -> bool:
        """Whether the API is asked without TLS, over more than this machine's loopback."""
        url = urlsplit(self.config.api.base_url)
        host = url.hostname or ""
        with suppress(ValueError):
            return url.scheme == "http" and not ip_address(host).is_loopback
        return url.scheme == "http" and host != "localhost"

    @property
    def store(self) -> str:
        """What the store is called in messages: its file, or its URL without secrets; empty where it has no place."""
        return store_name(masked_store_url(self.config.store.url or ""))


def load_settings(
    path: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, str | Sequence[str]] | None = None,
    *,
    secrets: bool = True,
) -> Settings:
    """Read, merge and check. `flags` maps dotted keys to values and wins over `environ`, which wins over the file.

    Without `secrets` no key is read, for commands that ask the API nothing and work in a shell that has none.
    Raises `ConfigError` with every problem found.
    """
    try:
        data = _read(path) if path else {}
    except ConfigError as error:
        raise _refused(error.problems, {}) from None
    overrides, unknown = _from_environment(environ)
    overrides |= {key: (value, "the command line") for key, value in (flags or {}).items()}
    origins = {}
    for key, (value, origin) in overrides.items():
        if _put(data, key.split("."), value):
            origins[key] = origin
    problems = [*_inline_secrets(data, "", set()), *_repeated_names(data.get("accounts"))]
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        secret_paths = {problem.partition(": ")[0] for problem in problems}
        problems += [f"{key}: {text}" for key, text in problems_with(error, Config) if key not in secret_paths]
        raise _refused(problems, origins) from None
    api_keys, hash_key, secret_problems = read_secrets(config, environ) if secrets else ({}, None, [])
    problems += secret_problems
    try:
        place = _place(config, path if "store.url" not in origins else None, environ)
    except ValueError as error:
        raise _refused([*problems, f"store.url: {error}"], origins) from None
    problems += _store_problems(config, place)
    if problems:
        raise _refused(problems, origins)
    return Settings(_with_place(config, place), api_keys, hash_key, tuple(unknown), place.problem)


def _read(path: Path) -> dict[str, Any]:
    from exporter.config.yaml_file import read_mapping  # noqa: PLC0415 - not needed where there is no file

    return read_mapping(path)


def suspicious(settings: Settings) -> list[str]:
    """Name what is allowed and most likely a mistake: misspelt variables, and keys that are none of Vocobase's."""
    found = [
        f"{name}: no setting has this name; is {meant} meant?"
        for name in settings.unknown_environment
        for meant in get_close_matches(name, environment_names(), 1, _ALIKE)
    ]
    if urlsplit(settings.config.api.base_url).hostname == urlsplit(BASE_URL).hostname:
        for index, account in enumerate(settings.config.accounts):
            key = settings.api_keys.get(account.name)
            if key and not key.get_secret_value().startswith(KEY_PREFIX):
                where = "api_key_env" if account.api_key_env else "api_key_file"
                found.append(f"accounts[{index}].{where}: the key does not begin with {KEY_PREFIX}, as Vocobase's do")
    return found


def environment_names() -> dict[str, str]:
    """Return every environment variable that sets a key of the configuration, with that key, dotted."""
    return {ENV_PREFIX + key.replace(".", "_").upper(): key for key, _ in _leaves(Config, "")}


def _leaves(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, info in model.model_fields.items():
        section = section_of(info.annotation)
        if section:
            yield from _leaves(section, f"{prefix}{name}.")
        elif _settable(info.annotation):
            yield f"{prefix}{name}", info.annotation


def _settable(annotation: Any) -> bool:  # noqa: ANN401 - a type, of any kind
    """Tell whether a value fits into a variable: lists of sections have no form that does."""
    return not any(section_of(arg) for arg in get_args(annotation))


def _from_environment(environ: Mapping[str, str]) -> tuple[dict[str, tuple[object, str]], list[str]]:
    known = environment_names()
    types = dict(_leaves(Config, ""))
    found, unknown = {}, []
    for name, text in environ.items():
        if not text.strip():
            continue  # as a variable that is there and empty, which templates make of one that isn't set
        key = known.get(name)
        if key:
            found[key] = (_from_text(text, types[key]), name)
        elif name.startswith(ENV_PREFIX) and not name.startswith(_NOT_OURS):
            unknown.append(name)
    return found, sorted(unknown)


# Read by the command line; and what Kubernetes sets in every pod beside a service called voicelink-exporter.
_NOT_OURS: Final = (
    *("VOICELINK_CONFIG_FILE", "VOICELINK_WEB_CONFIG_FILE", "VOICELINK_LOG_LEVEL", "VOICELINK_LOG_FORMAT"),
    *("VOICELINK_SHARD", "VOICELINK_TOTAL_SHARDS", "VOICELINK_EXPORTER_"),
)


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


def _inline_secrets(value: object, path: str, seen: set[int]) -> Iterator[str]:
    """Find secrets anywhere in the file. `seen` are the ids of what was looked at: aliases can make it a circle."""
    if isinstance(value, dict | list):
        if id(value) in seen:
            return
        seen.add(id(value))
    if isinstance(value, dict):
        for key, inner in value.items():
            here = f"{path}.{key}" if path else str(key)
            if str(key).lower() in _SECRET_KEYS and ".labels." not in here:
                yield f"{here}: {_INLINE}; name a file with api_key_file or a variable with api_key_env"
            elif KEY_PREFIX in str(key):
                yield f"{here}: this looks like an API key; {_INLINE}"
            else:
                yield from _inline_secrets(inner, here, seen)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _inline_secrets(inner, f"{path}[{index}]", seen)
    elif isinstance(value, str) and KEY_PREFIX in value and not path.endswith(".api_key_env"):
        yield f"{path}: this looks like an API key; {_INLINE}"


def _repeated_names(accounts: object) -> Iterator[str]:
    """Account names are checked on what the file holds: a fault elsewhere in an account must not hide this one."""
    seen: dict[object, int] = {}
    for index, account in enumerate(accounts if isinstance(accounts, list) else ()):
        name = account.get("name", "default") if isinstance(account, dict) else None
        if isinstance(name, str) and seen.setdefault(name, index) != index:
            yield f"accounts[{index}].name: accounts[{seen[name]}] is called {name!r} already"


def _refused(problems: Sequence[str], origins: Mapping[str, str]) -> ConfigError:
    """Return the error, each problem with where its value came from, and none with an API key in it."""
    return ConfigError([_API_KEY.sub(KEY_PREFIX + "…", _with_origin(problem, origins)) for problem in problems])


def _with_origin(problem: str, origins: Mapping[str, str]) -> str:
    origin = origins.get(problem.partition(": ")[0].partition("[")[0])
    return f"{problem} (from {origin})" if origin else problem


def _place(config: Config, path: Path | None, environ: Mapping[str, str]) -> Place:
    """Return where the store is; `path` is the file that names it. Raises `ValueError`."""
    if config.store.url is None:
        return default_place(environ)
    return named_place(config.store.url, path.parent if path else Path())


def _with_place(config: Config, place: Place) -> Config:
    return config.model_copy(update={"store": config.store.model_copy(update={"url": place.url})})


def _store_problems(config: Config, place: Place) -> Iterator[str]:
    """Check a file that was asked for; the default one is nobody's wish until something is kept in it."""
    url = place.url or ""
    if url.startswith("postgresql") and find_spec("psycopg") is None:
        yield "store.url: PostgreSQL needs the extra; install voicelink-exporter[postgres]"
    path = store_name(url)
    if config.store.url is None or not url.startswith("sqlite:") or path == ":memory:":
        return
    folder = os.path.dirname(path) or "."  # noqa: PTH120 - pathlib raises for a path that is too long
    if not os.path.isdir(folder):  # noqa: PTH112 - the same
        yield f"store.url: there is no folder {folder}"
    elif os.path.isdir(path):  # noqa: PTH112 - the same
        yield f"store.url: {path} is a folder"
    elif not os.access(path if os.path.exists(path) else folder, os.W_OK):  # noqa: PTH110 - the same
        yield f"store.url: {path} can't be written to"
