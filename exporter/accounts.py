"""What an account is run with: its section of the configuration, its client, and who it is to the API."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.config import Account, Config, Settings
    from exporter.config.schema import Heal
    from exporter.snapshots import Watch
    from exporter.vocobase import VocobaseClient

_PURPOSE: Final = b"voicelink-exporter: credential of the ledger"


@dataclass(frozen=True, slots=True)
class AccountRuntime:
    """Account as it runs. Replaced whole by a reload; what was decided by one is not sent by another.

    `credential` is a mark of the API key: budgets, latches and the breaker are kept by it, whatever the account is
    called. `fingerprint` is a mark of the credential and of the configuration that decides what is sent with it.
    Neither tells anything of the key.
    """

    account: Account
    heal: Heal
    client: VocobaseClient
    watch: Watch
    fingerprint: str
    credential: str

    @property
    def enabled(self) -> bool:
        """Whether anything is healed, or would be."""
        return self.heal.mode != "off"

    @property
    def observing(self) -> bool:
        """Whether what would be sent is only recorded."""
        return self.heal.mode == "observe"


def account_runtimes(
    settings: Settings, clients: Mapping[str, VocobaseClient], watches: Mapping[str, Watch]
) -> dict[str, AccountRuntime]:
    """Return what each account is run with, by its name."""
    config = settings.config
    return {
        account.name: AccountRuntime(
            account,
            config.heal,
            clients[account.name],
            watches[account.name],
            fingerprint(key := settings.api_keys[account.name].get_secret_value(), config),
            credential(key),
        )
        for account in config.accounts
    }


def credential(key: str) -> str:
    """Return a keyed mark of an API key: the same for every account and process that uses the key."""
    return hmac.new(_PURPOSE, key.encode(), hashlib.sha256).hexdigest()[:32]


def fingerprint(key: str, config: Config) -> str:
    """Return a mark that changes with the credential, with `heal` and with `api`.

    An account's own section is left out: two accounts with one key, or one that is renamed, are the same to the API.
    """
    heal = config.heal.model_copy(update={"issues": tuple(sorted(config.heal.issues))})  # their order means nothing
    text = f"{key}\n{heal.model_dump_json()}\n{config.api.model_dump_json()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
