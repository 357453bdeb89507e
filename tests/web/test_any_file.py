"""Whatever stands in a web configuration file: it is taken into use, or refused with a sentence about each problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from exporter.clock import SystemClock
from exporter.config.web_file import CURVES, TLS12_SUITES, TLS13_SUITES, Headers, HttpServer, RateLimit, TlsServer
from exporter.errors import ConfigError
from exporter.web.security import Security
from tests.support.certificates import hashed, issue, write_authority

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hypothesis.strategies import SearchStrategy

FILES = ["server.crt", "server.key", "authority-one.crt", ".", "..", "none", "web.yml", "/dev/null", "a\0b", "x" * 300]
WORDS = [
    *(*FILES, *CURVES, *TLS12_SUITES, *TLS13_SUITES, hashed("secret"), "$2b$04$", "TLS10", "TLS12", "TLS13", "1s", "0"),
    *("RequestClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert", "NoClientCert", "deny", "nosniff"),
    *("-----BEGIN CERTIFICATE-----", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "é", "\ud800"),
]
TEXTS = st.sampled_from(WORDS) | st.text(max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(max_size=4) | st.dates()
VALUES: SearchStrategy[object] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3), max_leaves=6
)


def section(*keys: str) -> SearchStrategy[object]:
    """Return what has these keys, now and then others, and values that may fit."""
    likely = TEXTS | st.lists(TEXTS, max_size=3) | st.booleans() | st.integers(-1, 5)
    return st.dictionaries(st.sampled_from(keys), likely, max_size=6) | st.dictionaries(TEXTS, VALUES, max_size=3)


PLAIN = {"cert_file": "server.crt", "key_file": "server.key"}
TLS = section(*TlsServer.model_fields)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "tls_server_config": TLS | TLS.map(lambda said: {**said, **PLAIN} if isinstance(said, dict) else said) | VALUES,
        "http_server_config": st.fixed_dictionaries(
            {}, optional={"headers": section(*(str(info.alias) for info in Headers.model_fields.values()))}
        )
        | section(*HttpServer.model_fields),
        "basic_auth_users": section("alice", "bob:", "", "é") | VALUES,
        "rate_limit": section(*RateLimit.model_fields) | VALUES,
    },
)


MARKS = st.sampled_from([": ", "{", "}", "[", "]", "\n  ", "\n", "- ", "&a ", "*a", "!", "|\n"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a certificate and an authority."""
    made = tmp_path_factory.mktemp("any")
    issue(made, "server")
    write_authority(made)
    return made


def taken_or_refused(path: Path) -> None:
    try:
        Security(path, SystemClock()).close()
    except ConfigError as error:
        refused = error.problems
    else:
        return
    assert refused
    assert all(problem.startswith(str(path)) for problem in refused)


@settings(deadline=None)
@given(DOCUMENTS)
def test_any_mapping_is_taken_or_refused(folder: Path, data: Mapping[str, object]) -> None:
    with (folder / "web.yml").open("w", encoding="utf-8", errors="backslashreplace") as stream:
        YAML(typ="safe", pure=True).dump(data, stream)
    taken_or_refused(folder / "web.yml")


@settings(deadline=None)
@given(
    st.text()
    | st.lists(TEXTS | st.sampled_from([": ", "{", "}", "[", "]", "\n  ", "\n", "- ", "&a ", "*a", "!", "|\n"]))
)
def test_any_text_is_taken_or_refused(folder: Path, text: str | list[str]) -> None:
    (folder / "web.yml").write_bytes("".join(text).encode(errors="surrogatepass"))
    taken_or_refused(folder / "web.yml")


@pytest.mark.parametrize("escaped", ['"\\ud800"', '"a\\0"', '"\\U0001F600"'])
@pytest.mark.parametrize("key", ["cert_file", "cert", "key", "client_ca", "client_auth_type", "min_version"])
def test_odd_characters_are_taken_or_refused(folder: Path, key: str, escaped: str) -> None:
    path = folder / "web.yml"
    path.write_text(f"tls_server_config: {{{key}: {escaped}}}\nbasic_auth_users: {{{escaped}: {hashed('x')}}}\n")
    taken_or_refused(path)
