"""The configuration as a frozen, strict schema: every key, its default, its bounds and its one-line meaning.

`exporter.config.json_schema` makes the JSON Schema of it, and the reference in the docs is checked against it.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, Self, TypeVar
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator
from pydantic_core import PydanticCustomError

from exporter.addresses import Address
from exporter.config.values import (
    LABEL_NAME,
    Cron,
    Duration,
    EnvName,
    IssueCode,
    ListenAddresses,
    OffIsFalse,
    PhoneNumber,
    PositiveDuration,
    Share,
    ShareOf,
    TimeZone,
    format_duration,
)

BASE_URL: Final = "https://api.vocobase.com/api/v2"
DID_INFO_LABELS: Final = frozenset(
    {
        *("account", "connection", "phone_number", "did_id", "client_id", "did_status", "friendly_name"),
        *("agent_id", "agent_name", "bot_id", "bot_name", "routing_id"),
    }
)


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, nothing is coerced, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _at(key: str, problem: str) -> PydanticCustomError:
    """Return an error that a check of the whole section found at one of its keys."""
    return PydanticCustomError("at", "{problem}", {"key": key, "problem": problem})


def _url(value: str, *schemes: str) -> SplitResult:
    if not value.lower().startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise ValueError(f"has to be a URL that begins with {':// or '.join(schemes)}://")
    problem = "is no URL that can be called: check its host and port, and for spaces and letters with accents"
    try:
        url = urlsplit(value)
        host, port = url.hostname or "", url.port
    except ValueError:  # brackets that don't match, or a port that is no number up to 65535
        raise ValueError(problem) from None
    if not _HOST.fullmatch(host) or port == 0 or not re.fullmatch(r"[!-~]+", value):
        raise ValueError(problem)
    return url


def _base_url(value: str) -> str:
    url = _url(value, "https", "http")
    if url.username or url.password:
        raise ValueError("holds a user name or password; the API wants its key alone, by api_key_file or api_key_env")
    if url.query or url.fragment:
        raise ValueError("has to end with the path, without ? or #")
    return value.rstrip("/")


def _websocket_url(value: str) -> str:
    _url(value, "wss", "ws")
    return value


def _store_url(value: str) -> str:
    if not _STORE.match(value):
        raise ValueError("has to be sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE")
    return value


def _uuid(value: str) -> str:
    try:
        return str(UUID(value))
    except ValueError:
        raise ValueError("has to be a UUID, as f4df9f8c-df95-46d8-bb0e-6f9f83fd4f55") from None


def _unique(values: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"named more than once: {', '.join(repeated)}")
    return values


def _unique_dids(dids: tuple[ConfiguredDid, ...]) -> tuple[ConfiguredDid, ...]:
    _unique(tuple(did.key for did in dids))
    return dids


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _or_false(schema: dict[str, Any]) -> None:
    schema.update(anyOf=[{"const": False}, *schema["anyOf"]], default=False)


def _either(*keys: str) -> dict[str, Any]:
    return {"oneOf": [{"required": [key]} for key in keys]}


def _false_is_none(value: object) -> object:
    return None if value is False else value


def masked_url(value: str) -> str:
    """Return a URL without what may be a secret in it: user and password, query, fragment."""
    return _TAIL.sub(_MASK, _LOGIN.sub(_MASK + "@", value, count=1), count=1)


def masked_store_url(value: str) -> str:
    """Do the same as SQLAlchemy reads URLs: a password may hold anything but an @. The user's name stays."""
    return _TAIL.sub(_MASK, _STORE_PASSWORD.sub(rf"\1:{_MASK}@", value, count=1), count=1)


_HOST: Final = re.compile(r"[a-z0-9_.-]+|[0-9a-f:.]+", re.ASCII)
_STORE: Final = re.compile(r"^(sqlite:///.|postgresql\+psycopg://.)")
_MASK: Final = "<secret>"
_LOGIN: Final = re.compile(r"(?<=://)[^/?#]*@")
_STORE_PASSWORD: Final = re.compile(r"(?<=://)([^:/@]*):[^@]*@")
_TAIL: Final = re.compile(r"(?<=[?#]).*", re.DOTALL)
_HTTP_SCHEMA: Final[dict[str, Any]] = {"format": "uri", "pattern": "^https?://"}
_WS_SCHEMA: Final[dict[str, Any]] = {"format": "uri", "pattern": "^wss?://"}
T = TypeVar("T")
List = Annotated[tuple[T, ...], BeforeValidator(_as_tuple)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
ConnectionId = Annotated[str, AfterValidator(_uuid), Field(json_schema_extra={"format": "uuid"})]


class Api(Section):
    """How to reach the Vocobase API."""

    base_url: Annotated[str, AfterValidator(_base_url), Field(json_schema_extra=_HTTP_SCHEMA)] = BASE_URL
    """Where the API is, with its version, without a slash at the end."""
    timeout: PositiveDuration = timedelta(seconds=30)
    """How long one request may take, from asking for a connection to the answer's last byte."""
    requests_per_minute: int = Field(60, ge=1, le=100_000)
    """The vendor's limit for one API key; every request made with that key counts."""
    max_response_bytes: int = Field(268_435_456, ge=1024)
    """An answer longer than this fails the poll; reading stops there."""


class ConfiguredDid(Section):
    """One DID that has to be there, by number or by VoiceLink's id, and what healing may say about it."""

    model_config = ConfigDict(json_schema_extra=_either("did_number", "did_id"))

    did_number: PhoneNumber | None = None
    """The number with its country code. This or `did_id`."""
    did_id: int | None = Field(None, ge=1)
    """VoiceLink's id of the DID. This or `did_number`."""
    client_id: int | None = Field(None, ge=1)
    """Sent to call-ready when this DID is healed: the client an unmapped DID is mapped to."""
    agent_id: ConnectionId | None = None
    """Sent to call-ready when this DID is healed: the voice agent that gets the number."""
    bot_name: Name | None = None
    """Sent to call-ready when this DID is healed: the name of a bot that has to be made."""
    websocket_url: (
        Annotated[
            str,
            AfterValidator(_websocket_url),
            PlainSerializer(masked_url, return_type=str),
            Field(json_schema_extra=_WS_SCHEMA),
        ]
        | None
    ) = None
    """Sent to call-ready when this DID is healed: where a bot that has to be made connects to."""
    heal: bool = True
    """`false`: never heal this one."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Put onto `voicelink_did_info` of this DID."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.did_number is None) == (self.did_id is None):
            raise ValueError("needs either did_number or did_id, and not both")
        for name in self.labels:
            if not LABEL_NAME.fullmatch(name) or name.startswith("__"):
                raise _at("labels", f"{name!r:.60} is not a label name; use letters, digits and _")
            if name in DID_INFO_LABELS:
                raise _at("labels", f"{name} is a label the exporter sets itself")
        return self

    @property
    def key(self) -> str:
        """What the DID is called before it was seen: its number, or `did:812`."""
        return self.did_number or f"did:{self.did_id}"


class Account(Section):
    """One API key and what is monitored with it."""

    model_config = ConfigDict(json_schema_extra=_either("api_key_env", "api_key_file"))

    name: Name = "default"
    """The `account` label."""
    api_key_env: EnvName | None = None
    """The environment variable that holds the API key. This or `api_key_file`."""
    api_key_file: Name | None = None
    """A file that holds the API key and nothing else. This or `api_key_env`."""
    connections: Annotated[List[ConnectionId], AfterValidator(_unique)] = ()
    """Connection ids. Empty: every ACTIVE VoiceLink connection, looked up again every 10 minutes."""
    dids: Annotated[List[ConfiguredDid], AfterValidator(_unique_dids)] = ()
    """Only these DIDs are monitored, and reported MISSING when they aren't there. Empty: every DID the account has."""
    exclude: List[PhoneNumber] = ()
    """Numbers that are not monitored."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.api_key_env is None) == (self.api_key_file is None):
            raise ValueError("needs either api_key_env or api_key_file, and not both")
        both = sorted({did.key for did in self.dids} & set(self.exclude))
        if both:
            raise ValueError(f"dids and exclude both name {', '.join(both)}")
        return self


class Poll(Section):
    """When the API is asked."""

    interval: PositiveDuration = timedelta(seconds=60)
    """How often each target is asked. Stretched where the request budget is too small for that."""
    jitter: Duration = timedelta(seconds=5)
    """Each wait is shortened by a random part of this, so that several exporters don't ask in step."""
    stale_after: PositiveDuration = timedelta(minutes=5)
    """When a target's data is older than this, its DID series go away."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.interval < timedelta(milliseconds=100):
            raise _at("interval", "has to be at least 100ms")
        if self.jitter >= self.interval:
            raise _at("jitter", f"has to be shorter than interval, which is {format_duration(self.interval)}")
        if self.stale_after <= self.interval:
            raise _at("stale_after", f"has to be longer than interval, which is {format_duration(self.interval)}")
        return self


class Backoff(Section):
    """How long a DID is left alone after a heal that did not work."""

    initial: PositiveDuration = timedelta(minutes=10)
    """After the first failure; doubles with each one, plus up to 25 % jitter."""
    max: PositiveDuration = timedelta(hours=6)
    """The longest it gets."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max < self.initial:
            raise _at("max", f"has to be at least initial, which is {format_duration(self.initial)}")
        return self


class Breaker(Section):
    """When healing of an account stops because it doesn't help."""

    failures: int = Field(3, ge=1, le=20)
    """So many unverified heals in a row open the breaker."""
    open_for: PositiveDuration = timedelta(minutes=30)
    """How long it stays open; then one heal is tried."""


class Window(Section):
    """A time in which nothing is healed."""

    cron: Cron
    """When it begins: five cron fields."""
    duration: PositiveDuration
    """How long it lasts."""
    timezone: TimeZone = "UTC"
    """The IANA time zone that `cron` is in."""


class Heal(Section):
    """What is healed without asking, and every limit on it."""

    mode: Annotated[Literal["off", "observe", "enforce"], OffIsFalse] = "off"
    """`observe` decides and records, and sends nothing; `enforce` sends."""
    issues: Annotated[
        List[IssueCode],
        AfterValidator(_unique),
        Field(min_length=1, json_schema_extra={"minItems": 1, "uniqueItems": True}),
    ] = (
        "NO_BOT",
        "ROUTING_MISSING",
    )
    """The issue codes that are worth a heal."""
    confirm_polls: int = Field(3, ge=1)
    """So many complete polls in a row have to show the issue first."""
    confirm_for: Duration = timedelta(minutes=2)
    """And for so long."""
    verify_within: PositiveDuration = timedelta(minutes=10)
    """A heal that the polls don't confirm within this has failed."""
    probation: PositiveDuration = timedelta(hours=1)
    """How long a healed DID has to stay clean until its attempts are forgotten."""
    backoff: Backoff = Backoff()
    """How long a DID is left alone after a heal that did not work."""
    max_attempts: int = Field(3, ge=1)
    """So many attempts within `attempts_window` put a DID into quarantine."""
    attempts_window: PositiveDuration = timedelta(hours=24)
    """The window of `max_attempts`."""
    max_unhealthy: ShareOf = Share(ratio=0.3)
    """More unhealthy DIDs in a target than this stop healing there. Never less than 3."""
    max_in_flight: int = Field(5, ge=1)
    """How many heals of an account may be unverified at once."""
    max_per_hour: int = Field(12, ge=1)
    """How many heals of an account may be sent in any hour."""
    requests_per_minute: int = Field(10, ge=1)
    """How many requests of an account's `api.requests_per_minute` healing may use."""
    breaker: Breaker = Breaker()
    """When healing of an account stops because it doesn't help."""
    hold_off_polls: int = Field(3, ge=0)
    """So many complete polls after the start before the first heal."""
    windows: List[Window] = ()
    """Times in which nothing is healed."""


class Store(Section):
    """Where states, transitions and the ledger of heals are kept."""

    url: (
        Annotated[
            str,
            AfterValidator(_store_url),
            PlainSerializer(masked_store_url, return_type=str),
            Field(json_schema_extra={"pattern": _STORE.pattern}),
        ]
        | None
    ) = None
    """`sqlite:///FILE`, relative to this file, or `postgresql+psycopg://…`. None: a file in the state directory."""
    retention: PositiveDuration = timedelta(days=90)
    """How long what is over is kept."""


class HashNumbers(Section):
    """The key that phone numbers are hashed with."""

    key_file: Name
    """A file that holds the secret key, at least 16 bytes."""


class Privacy(Section):
    """What phone numbers look like outside."""

    hash_numbers: Annotated[HashNumbers | None, BeforeValidator(_false_is_none), Field(json_schema_extra=_or_false)] = (
        None
    )
    """A keyed hash instead of the number in metrics and logs."""


class Web(Section):
    """The exporter's own HTTP server."""

    listen_address: ListenAddresses = (Address("", 10880),)
    """`HOST:PORT`, without a host every address of the machine; or `unix:/PATH`. One, or a list."""


class Config(Section):
    """Configuration of voicelink-exporter."""

    api: Api = Api()
    """How to reach the Vocobase API."""
    accounts: Annotated[List[Account], Field(min_length=1, json_schema_extra={"minItems": 1})] = (
        Account(api_key_env="VOCOBASE_API_KEY"),
    )
    """API keys and what is monitored with each. Omitted: one named `default`, its key in `VOCOBASE_API_KEY`."""
    poll: Poll = Poll()
    """When the API is asked."""
    heal: Heal = Heal()
    """What is healed without asking, and every limit on it."""
    store: Store = Store()
    """Where states, transitions and the ledger of heals are kept."""
    privacy: Privacy = Privacy()
    """What phone numbers look like outside."""
    web: Web = Web()
    """The exporter's own HTTP server."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        chosen = "requests_per_minute" in self.heal.model_fields_set
        if chosen and self.heal.requests_per_minute > self.api.requests_per_minute:
            raise _at("heal.requests_per_minute", "is more than api.requests_per_minute, out of which it comes")
        return self
