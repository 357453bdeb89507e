"""The kinds of values that the configuration knows, each parsed and checked once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from exporter.addresses import Address, UnixAddress, parse_listen_address
from exporter.model import CODE
from exporter.numbers import to_e164

_DURATION: Final = re.compile(
    r"(?:(?P<years>\d+)y)?(?:(?P<weeks>\d+)w)?(?:(?P<days>\d+)d)?(?:(?P<hours>\d+)h)?(?:(?P<minutes>\d+)m)?"
    r"(?:(?P<seconds>\d+)s)?(?:(?P<milliseconds>\d+)ms)?",
    re.ASCII,
)
_UNITS: Final = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_LARGEST: Final = 10**15  # no number has more digits
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_CRON_FIELDS: Final = 5
LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
KEY_PREFIX: Final = "rg_live_"  # how the vendor's keys begin


def parse_duration(text: str) -> timedelta:
    """Read a duration as Prometheus writes it: `30s`, `5m`, `1h30m`, `250ms`, `2w`.

    Raises `ValueError` for anything else. The grammar is that of Prometheus' configuration: units from large to small,
    each at most once; a year has 365 days.
    """
    match = _DURATION.fullmatch(text)
    if not text or not match:
        raise ValueError(f"{text!r:.60} is not a duration; write one as 30s, 5m or 1h30m")
    try:
        parts = {name: int(value) for name, value in match.groupdict().items() if value}
        days = parts.pop("years", 0) * 365 + parts.pop("days", 0)
        return timedelta(days=days, **parts)
    except (OverflowError, ValueError):
        raise ValueError("is longer than any clock lasts") from None


def format_duration(value: timedelta) -> str:
    """Write a duration as `parse_duration` reads it, in the fewest units."""
    rest, text = round(value.total_seconds() * 1000), ""
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError("a duration needs a unit; write one as 30s, 5m or 1h30m")


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("has to be longer than zero")
    return value


@dataclass(frozen=True, slots=True)
class Share:
    """Either a part of a whole, from 0 to 1, or a plain number."""

    ratio: float | None = None
    count: int | None = None

    def of(self, total: int) -> float:
        """Return how many of `total` that is."""
        return self.ratio * total if self.ratio is not None else float(self.count or 0)

    def __str__(self) -> str:
        return f"{self.ratio * 100:g}%" if self.ratio is not None else str(self.count)


def _share(value: object) -> object:
    if isinstance(value, Share):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Share(count=value)
    if isinstance(value, str) and re.fullmatch(r"\d{1,3}(\.\d+)?%", value, re.ASCII) and float(value[:-1]) <= 100:  # noqa: PLR2004
        return Share(ratio=float(value[:-1]) / 100)
    raise ValueError("has to be a share as 30% or a number of DIDs as 20")


def _number(value: object) -> object:
    # Unquoted digits are an integer in YAML, and so is +918011223344.
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _LARGEST else value
    number = to_e164(text) if isinstance(text, str) else None
    if number is None:
        raise ValueError('is not a phone number; write it with its country code, as "+918011223344"')
    return number


def _off(value: object) -> object:
    return "off" if value is False else value  # what YAML 1.1 tools write for a bare off


def _code(value: str) -> str:
    if not CODE.fullmatch(value):
        raise ValueError("is not an issue code; they look like NO_BOT")
    return value


def _cron(value: str) -> str:
    problem = 'is not a cron expression; write five fields, as "0 9 * * mon-fri"'
    if len(value.split()) != _CRON_FIELDS:  # the parser would take a sixth, for seconds
        raise ValueError(problem)
    try:
        CronSim(value, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError:
        raise ValueError(problem) from None
    return value


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is not a time zone; write its IANA name, as Asia/Kolkata") from None
    return value


def _env_name(value: str) -> str:
    if value.startswith(KEY_PREFIX):
        raise ValueError("this looks like an API key; put the name of the environment variable that holds it here")
    if not _ENV_NAME.fullmatch(value):
        raise ValueError("is not the name of an environment variable")
    return value


def _listen_address(value: object) -> object:
    return value if isinstance(value, Address | UnixAddress) else parse_listen_address(str(value))


def _listen_addresses(value: object) -> object:
    """Take one address for a list of one. What is wrong with it is then said without an index."""
    return tuple(value) if isinstance(value, list | tuple) else (_listen_address(value),)


def _each_once(value: tuple[Address | UnixAddress, ...]) -> tuple[Address | UnixAddress, ...]:
    repeated = [str(address) for address in dict.fromkeys(value) if value.count(address) > 1]
    if repeated:
        raise ValueError(f"named more than once: {', '.join(repeated)}")
    return value


def _one_or_all(value: tuple[Address | UnixAddress, ...]) -> str | list[str]:
    return str(value[0]) if len(value) == 1 else [str(address) for address in value]


def _schema(pattern: str, *examples: str, **more: Any) -> WithJsonSchema:  # noqa: ANN401 - JSON Schema keywords
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples), **more})


_DURATION_SCHEMA: Final = _schema(
    r"^(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?$", "30s", "5m", "1h30m", minLength=2
)
_AS_DURATION: Final = PlainSerializer(format_duration, return_type=str)

Duration = Annotated[timedelta, BeforeValidator(_duration), _AS_DURATION, _DURATION_SCHEMA]
PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
ShareOf = Annotated[
    Share,
    BeforeValidator(_share),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": r"^\d{1,3}(\.\d+)?%$"}, {"type": "integer", "minimum": 0}]}
    ),
]
PhoneNumber = Annotated[
    str,
    BeforeValidator(_number),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}], "examples": ["+918011223344"]}),
]
_LISTEN_SCHEMA: Final = {
    "type": "string",
    "pattern": r"(^unix:/|:\d{1,5}$)",
    "examples": [":10880", "unix:/run/x.sock"],
}
ListenAddresses = Annotated[
    tuple[Annotated[Address | UnixAddress, BeforeValidator(_listen_address)], ...],
    BeforeValidator(_listen_addresses),
    Field(min_length=1),
    AfterValidator(_each_once),
    PlainSerializer(_one_or_all, return_type=str | list[str]),
    WithJsonSchema(
        {"anyOf": [_LISTEN_SCHEMA, {"type": "array", "items": _LISTEN_SCHEMA, "minItems": 1, "uniqueItems": True}]}
    ),
]
OffIsFalse = BeforeValidator(_off)
IssueCode = Annotated[str, AfterValidator(_code), _schema(f"^{CODE.pattern}$", "NO_BOT")]
Cron = Annotated[str, AfterValidator(_cron), _schema(r"\S", "0 9 * * mon-fri")]
TimeZone = Annotated[str, AfterValidator(_timezone), _schema(r"\S", "Asia/Kolkata")]
EnvName = Annotated[str, AfterValidator(_env_name), _schema(f"^{_ENV_NAME.pattern}$", "VOCOBASE_API_KEY")]
