"""An authority of the tests' own, and files of what it issued."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import bcrypt
import trustme

if TYPE_CHECKING:
    from pathlib import Path

SERVER = "127.0.0.1"


@functools.cache
def authority(name: str = "one") -> trustme.CA:
    """Return an authority, always the same for a name."""
    return trustme.CA(organization_name=f"authority {name}")


@functools.cache
def hashed(password: str, cost: int = 4) -> str:
    """Return the bcrypt hash of a password, by default as cheap as they get."""
    return bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(cost)).decode()


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as files."""

    cert: Path
    key: Path


def issue(folder: Path, name: str, *names: str, by: str = "one") -> Pair:
    """Write `NAME.crt` and `NAME.key` for these names, the machine's own by default, over those that are there."""
    leaf = authority(by).issue_cert(*(names or (SERVER, "localhost")))
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    pair.cert.write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
    pair.key.write_bytes(leaf.private_key_pem.bytes())
    return pair


def write_authority(folder: Path, by: str = "one") -> Path:
    """Write an authority's certificate as `authority-NAME.crt`."""
    path = folder / f"authority-{by}.crt"
    path.write_bytes(authority(by).cert_pem.bytes())
    return path
