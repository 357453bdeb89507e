"""How a daemon is configured, in plain numbers that the judge goes by, and the same as the product's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

HOST: Final = "https://vendor.example/api/v2"


@dataclass(frozen=True)
class Window:
    """Time in which nothing may be healed: it begins daily at a minute of the day in a zone. `seconds` long."""

    hour: int
    minute: int
    seconds: float
    zone: str


@dataclass(frozen=True)
class DidRules:
    """What a configuration says of one DID."""

    number: str
    client: int | None = None
    heal: bool = True


@dataclass(frozen=True)
class AccountRules:
    """What a configuration says of one account."""

    name: str
    key: str
    connections: tuple[str, ...] = ()
    dids: tuple[DidRules, ...] = ()
    exclude: tuple[str, ...] = ()

    def selects(self, number: str) -> bool:
        """Return whether a number is monitored: any that is not excluded, where none is named."""
        return number not in self.exclude and (not self.dids or any(did.number == number for did in self.dids))


@dataclass(frozen=True)
class HealRules:
    """What a configuration says of healing. Times in seconds."""

    mode: str = "enforce"
    issues: tuple[str, ...] = ("NO_BOT", "ROUTING_MISSING")
    confirm_polls: int = 3
    confirm_for: float = 120.0
    verify_within: float = 600.0
    probation: float = 3600.0
    backoff_initial: float = 600.0
    backoff_max: float = 21600.0
    max_attempts: int = 3
    attempts_window: float = 86400.0
    max_unhealthy: float = 0.3  # share of a target's DIDs
    max_in_flight: int = 5
    max_per_hour: int = 12
    requests_per_minute: int = 10
    breaker_failures: int = 3
    breaker_open_for: float = 1800.0
    hold_off_polls: int = 3
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True)
class Setup:
    """How one replica is configured. Times in seconds."""

    accounts: tuple[AccountRules, ...]
    heal: HealRules = HealRules()
    interval: float = 60.0
    jitter: float = 5.0
    stale_after: float = 300.0
    requests_per_minute: int = 60
    timeout: float = 30.0

    def account(self, name: str) -> AccountRules | None:
        """Return the account with a name."""
        return next((account for account in self.accounts if account.name == name), None)

    def selects(self, account: str, number: str) -> bool:
        """Return whether a number is monitored for an account of this name."""
        return any(each.name == account and each.selects(number) for each in self.accounts)

    def account_for(self, key: str, connection: str) -> AccountRules | None:
        """Return the account that asks about a connection with a key."""
        return next(
            (
                account
                for account in self.accounts
                if account.key == key and (not account.connections or connection in account.connections)
            ),
            None,
        )

    def as_config(self, store_url: str) -> dict[str, Any]:
        """Return it as the product's configuration, without the keys."""
        heal = self.heal
        return {
            "api": {
                "base_url": HOST,
                "timeout": _duration(self.timeout),
                "requests_per_minute": self.requests_per_minute,
            },
            "accounts": [_account(account) for account in self.accounts],
            "poll": {
                "interval": _duration(self.interval),
                "jitter": _duration(self.jitter),
                "stale_after": _duration(self.stale_after),
            },
            "heal": {
                "mode": heal.mode,
                "issues": list(heal.issues),
                "confirm_polls": heal.confirm_polls,
                "confirm_for": _duration(heal.confirm_for),
                "verify_within": _duration(heal.verify_within),
                "probation": _duration(heal.probation),
                "backoff": {"initial": _duration(heal.backoff_initial), "max": _duration(heal.backoff_max)},
                "max_attempts": heal.max_attempts,
                "attempts_window": _duration(heal.attempts_window),
                "max_unhealthy": f"{heal.max_unhealthy * 100:g}%",
                "max_in_flight": heal.max_in_flight,
                "max_per_hour": heal.max_per_hour,
                "requests_per_minute": heal.requests_per_minute,
                "breaker": {"failures": heal.breaker_failures, "open_for": _duration(heal.breaker_open_for)},
                "hold_off_polls": heal.hold_off_polls,
                "windows": [
                    {
                        "cron": f"{window.minute} {window.hour} * * *",
                        "duration": _duration(window.seconds),
                        "timezone": window.zone,
                    }
                    for window in heal.windows
                ],
            },
            "store": {"url": store_url, "retention": "90d"},
        }


def _account(account: AccountRules) -> dict[str, Any]:
    return {
        "name": account.name,
        "api_key_env": f"KEY_{account.name.upper()}",
        "connections": list(account.connections),
        "dids": [
            {"did_number": did.number, "heal": did.heal} | ({"client_id": did.client} if did.client else {})
            for did in account.dids
        ],
        "exclude": list(account.exclude),
    }


def _duration(seconds: float) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 1000}s" + (f"{whole % 1000}ms" if whole % 1000 else "")
