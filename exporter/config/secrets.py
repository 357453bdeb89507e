"""Secrets: read from where the configuration says, never from the configuration itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.config.schema import Account, Config

_LONGEST: Final = 4096  # bytes; no key is longer
_SHORTEST_HASH_KEY: Final = 16  # bytes


def read_secrets(
    config: Config, environ: Mapping[str, str]
) -> tuple[dict[str, SecretStr], SecretStr | None, list[str]]:
    """Return API keys by account, the key that numbers are hashed with, and what is wrong with any of them."""
    keys: dict[str, SecretStr] = {}
    problems: list[str] = []
    for index, account in enumerate(config.accounts):
        try:
            keys[account.name] = SecretStr(_api_key(account, environ))
        except ValueError as error:
            key = "api_key_env" if account.api_key_env else "api_key_file"
            problems.append(f"accounts[{index}].{key}: {error}")
    hash_key = None
    if config.privacy.hash_numbers:
        try:
            hash_key = SecretStr(_from_file(config.privacy.hash_numbers.key_file))
            if len(hash_key.get_secret_value().encode()) < _SHORTEST_HASH_KEY:
                problems.append(
                    f"privacy.hash_numbers.key_file: the key has to have {_SHORTEST_HASH_KEY} bytes or more"
                )
        except ValueError as error:
            problems.append(f"privacy.hash_numbers.key_file: {error}")
    return keys, hash_key, problems


def _api_key(account: Account, environ: Mapping[str, str]) -> str:
    if account.api_key_env:
        key = environ.get(account.api_key_env, "").strip()
        if not key:
            raise ValueError(
                f"the environment variable {account.api_key_env} is not set, or empty; it has to hold your Vocobase "
                "API key. To try the exporter without one, run: voicelink-exporter demo"
            )
    else:
        key = _from_file(account.api_key_file or "")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the key holds characters that an HTTP header can't carry; is it one line with nothing else?")
    return key


def _from_file(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError as error:
        raise ValueError(f"{name} can't be read: {error.strerror}") from None
    if len(data) > _LONGEST:
        raise ValueError(f"{name} is longer than {_LONGEST} bytes, so it is no key")
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not text, so it is no key") from None
    if not text:
        raise ValueError(f"{name} is empty")
    return text
