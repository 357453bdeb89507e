"""Addresses of databases: what can't be used is refused in words, and a password is in none of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from exporter.errors import StoreError
from exporter.store.engine import connect, migrate

CANARY = "canary-Pw77"
NO_URL = "store.url: is not a database URL; write sqlite:///FILE or postgresql+psycopg://…"
NO_DIALECT = "store.url: only SQLite and PostgreSQL are supported"
NO_FILE = "store.url: has to name a file, as what is only in memory does not outlive a restart"


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", NO_URL),
        (CANARY, NO_URL),
        (f"postgresql+psycopg://user:{CANARY}@host:{CANARY}/database", NO_URL),
        (f"postgresql+psycopg://user:{CANARY}@[::1/database", NO_URL),
        (f"postgresql+nosuch://user:{CANARY}@host/database", NO_URL),
        (f"sqlite:///file.db?timeout={CANARY}", NO_URL),
        (f"mysql://user:{CANARY}@host/database", NO_DIALECT),
        (f"nosuch://user:{CANARY}@host/database", NO_DIALECT),
        ("sqlite://", NO_FILE),
        ("sqlite:///:memory:", NO_FILE),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(url: str, sentence: str) -> None:
    with pytest.raises(StoreError) as refused:
        connect(url)
    assert str(refused.value) == sentence
    error: BaseException | None = refused.value
    while error:
        assert CANARY not in f"{error!r}"
        error = error.__cause__


@pytest.mark.e2e
def test_without_the_driver_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from exporter.errors import StoreError\n"
        "from exporter.store.engine import connect\n"
        f"try: connect('postgresql+psycopg://user:{CANARY}@host/database')\n"
        "except StoreError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (
        "store.url: PostgreSQL needs the extra: install voicelink-exporter[postgres]\n",
        "",
    )


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:9",
        "no-such-host.invalid",
        f"127.0.0.1:9/database?nosuch={CANARY}",
        f"127.0.0.1:9/database?sslmode={CANARY}",
    ],
)
def test_a_server_that_is_not_there_is_said_without_the_password(address: str) -> None:
    engine = connect(f"postgresql+psycopg://user:{CANARY}@{address}")
    said = r"^the store at postgresql\+psycopg://user:<secret>@.+ does not answer: "
    with pytest.raises(StoreError, match=said) as refused:
        migrate(engine)
    assert f":{CANARY}" not in f"{refused.value} {refused.value.__cause__}"
    assert refused.value.__cause__
