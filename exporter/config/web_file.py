"""The web configuration file: the format of Prometheus' exporter-toolkit, as a frozen and strict schema.

It says who may ask, and how: TLS, client certificates, passwords, headers. What it names is read elsewhere.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from exporter.config.document import problems_with
from exporter.config.schema import List, Section
from exporter.config.values import Duration  # noqa: TC001 - pydantic looks for it when the classes are made
from exporter.config.yaml_file import read_mapping
from exporter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TLS13_SUITES: Final = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
TLS12_SUITES: Final = {  # by the name that the format knows: OpenSSL's
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
CURVES: Final = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
COSTS: Final = range(4, 18)  # of bcrypt: what is dearer keeps a processor busy for many seconds at each try
_HASH: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII)
_LIKE_HASH: Final = re.compile(r"\$2[a-z]?\$[^\s:]*")
_VERIFYING: Final = ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert")


def _version(value: object) -> object:
    if value in ("TLS10", "TLS11"):
        raise ValueError("TLS 1.0 and 1.1 are broken and not offered; write TLS12 or TLS13")
    return value


def _client_auth(value: object) -> object:
    if value in ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert"):
        raise ValueError(
            "would take certificates that nobody verified, which is not offered; "
            "write RequireAndVerifyClientCert or VerifyClientCertIfGiven"
        )
    return "NoClientCert" if value == "" else value


def _suite(value: str) -> str:
    if value not in TLS12_SUITES and value not in TLS13_SUITES:
        raise ValueError("is not a cipher suite that is offered; the documentation lists them")
    return value


def _curve(value: str) -> str:
    if value not in CURVES:
        raise ValueError(f"is not a curve that is offered; write one of {', '.join(CURVES)}")
    return value


def _hash(value: object) -> object:
    """Check a hash. Never say a word of it: it may be the password itself."""
    if isinstance(value, str):
        match = _HASH.fullmatch(value)
        if not match:
            raise ValueError("is not a bcrypt hash; make one with: htpasswd -nBC 10 NAME")
        if int(match[1]) not in COSTS:
            raise ValueError(f"the cost of a bcrypt hash has to be from {COSTS[0]} to {COSTS[-1]}")
    return value


def _user(value: str) -> str:
    if ":" in value:
        raise ValueError("holds a colon, which no client can send in a user's name")
    return value


def _header(value: str) -> str:
    if not re.fullmatch(r"[ -~]*", value):
        raise ValueError("holds characters that a header can't carry")
    return value.strip()


def _interval(value: object) -> object:
    return timedelta() if value == 0 and not isinstance(value, bool) else value


Version = Annotated[Literal["TLS12", "TLS13"], BeforeValidator(_version)]
Header = Annotated[str, AfterValidator(_header)]
Pem = Annotated[str, Field(min_length=1)]
FileName = Annotated[str, Field(min_length=1, max_length=4096)]


class TlsServer(Section):
    """Encryption, and whose certificates open the door."""

    cert_file: FileName | None = None
    """The server's certificate and what leads up to its authority, PEM. This or `cert`."""
    cert: Pem | None = None
    """The same, in place."""
    key_file: FileName | None = None
    """The certificate's private key, PEM, not encrypted. This or `key`."""
    key: SecretStr | None = None
    """The same, in place."""
    client_auth_type: Annotated[
        Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"], BeforeValidator(_client_auth)
    ] = "NoClientCert"
    """Whether clients need a certificate."""
    client_ca_file: FileName | None = None
    """The authorities that clients' certificates have to come from, PEM. This or `client_ca`."""
    client_ca: Pem | None = None
    """The same, in place."""
    client_allowed_sans: Annotated[List[Annotated[str, Field(min_length=1)]] | None, Field(min_length=1)] = None
    """A client's certificate has to have one of these names: DNS name, e-mail address, IP address or URI."""
    min_version: Version = "TLS12"
    """The oldest version of TLS that is spoken."""
    max_version: Version = "TLS13"
    """The newest."""
    cipher_suites: List[Annotated[str, AfterValidator(_suite)]] = ()
    """Cipher suites of TLS 1.2, the best first. Empty: OpenSSL's choice of good ones."""
    prefer_server_cipher_suites: bool = True
    """Whether the order above counts, and not the client's."""
    curve_preferences: List[Annotated[str, AfterValidator(_curve)]] = ()
    """The curve of the key exchange: one, or empty for OpenSSL's choice."""


class Headers(Section):
    """Headers of every answer. A blank one is not sent."""

    strict_transport_security: Header | None = Field(None, alias="Strict-Transport-Security")
    """That browsers shall come by TLS alone from now on."""
    x_content_type_options: Literal["", "nosniff"] | None = Field(None, alias="X-Content-Type-Options")
    """`nosniff`, which is sent anyway."""
    x_frame_options: Literal["", "deny", "sameorigin"] | None = Field(None, alias="X-Frame-Options")
    """Who may show the pages within their own."""
    x_xss_protection: Header | None = Field(None, alias="X-XSS-Protection")
    """For browsers of the past."""
    content_security_policy: Header | None = Field(None, alias="Content-Security-Policy")
    """What the pages may load; instead of the strict one that is sent otherwise."""


class HttpServer(Section):
    """What is said over HTTP."""

    http2: bool = True
    """Has no effect: the exporter speaks HTTP/1.1, which every client falls back to."""
    headers: Headers = Headers()
    """Headers of every answer."""


class RateLimit(Section):
    """How many requests are answered, of all clients together."""

    interval: Annotated[Duration, BeforeValidator(_interval)] = timedelta()
    """One request each so often; 0 is no limit."""
    burst: int = Field(0, ge=0, le=1_000_000)
    """So many at once after a quiet time."""


class WebFile(Section):
    """Web configuration of voicelink-exporter, in the format of Prometheus' exporter-toolkit."""

    model_config = ConfigDict(hide_input_in_errors=True)

    tls_server_config: TlsServer | None = None
    """Encryption, and whose certificates open the door. Left out: no encryption."""
    http_server_config: HttpServer = HttpServer()
    """What is said over HTTP."""
    basic_auth_users: dict[Annotated[str, AfterValidator(_user)], Annotated[SecretStr, BeforeValidator(_hash)]] = Field(
        default_factory=dict
    )
    """Users and the bcrypt hashes of their passwords. Empty: no password is asked for."""
    rate_limit: RateLimit = RateLimit()
    """How many requests are answered, of all clients together."""


def load_web_file(path: Path) -> WebFile:
    """Read and check the file, but nothing that it names. Raises `ConfigError` with every problem found."""
    try:
        data = read_mapping(path)
        file = WebFile.model_validate(data)
    except ValidationError as error:
        raise web_file_error(path, problems_with(error, WebFile)) from None
    except ConfigError as error:
        raise ConfigError([_masked(problem) for problem in error.problems]) from None
    problems = [*_tls_problems(file.tls_server_config), *_rate_problems(file.rate_limit)]
    if problems:
        raise web_file_error(path, problems)
    return file


def web_file_error(path: Path, problems: list[tuple[str, str]]) -> ConfigError:
    """Return the error that names problems by the file and their keys, without a hash in it."""
    return ConfigError([_masked(f"{path}: {key}: {text}") for key, text in problems])


def _masked(problem: str) -> str:
    return _LIKE_HASH.sub("$2…", problem)


def _tls_problems(tls: TlsServer | None) -> Iterator[tuple[str, str]]:
    for key, text in _all_tls_problems(tls) if tls else ():
        yield f"tls_server_config.{key}", text


def _all_tls_problems(tls: TlsServer) -> Iterator[tuple[str, str]]:
    for key, inline, named, needed in (
        ("cert", tls.cert, tls.cert_file, True),
        ("key", tls.key, tls.key_file, True),
        ("client_ca", tls.client_ca, tls.client_ca_file, tls.client_auth_type in _VERIFYING),
    ):
        if inline and named:
            yield f"{key}_file", f"stands beside {key}; give one of the two"
        if needed and not inline and not named:
            reason = "" if key != "client_ca" else f", since client_auth_type is {tls.client_auth_type}"
            yield f"{key}_file", f"is required, or {key}{reason}"
    if tls.client_auth_type == "NoClientCert":
        for key in ("client_ca", "client_ca_file", "client_allowed_sans"):
            if getattr(tls, key):
                yield key, "means nothing without client_auth_type; write RequireAndVerifyClientCert there"
    if tls.min_version > tls.max_version:
        yield "min_version", f"is newer than max_version, which is {tls.max_version}"
    yield from _suite_problems(tls)
    if len(tls.curve_preferences) > 1:
        yield "curve_preferences", "has to name one curve, or none: several can't be set here"


def _suite_problems(tls: TlsServer) -> Iterator[tuple[str, str]]:
    suites = set(tls.cipher_suites)
    new = suites & set(TLS13_SUITES)
    if new and len(new) < len(TLS13_SUITES) and tls.max_version == "TLS13":
        yield "cipher_suites", "the suites of TLS 1.3 can't be chosen one by one; name all three of them, or none"
    if suites and suites == new and tls.min_version == "TLS12":
        yield "cipher_suites", "names no suite of TLS 1.2; add one, or write min_version: TLS13"


def _rate_problems(limit: RateLimit) -> Iterator[tuple[str, str]]:
    if limit.interval and not limit.burst:
        yield "rate_limit.burst", "is required, and at least 1: without it no request would be answered"
