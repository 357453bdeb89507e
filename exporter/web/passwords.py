"""Passwords: checked against bcrypt hashes beside the event loop, a few at once; right ones are remembered."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import bcrypt

from exporter.threads import DaemonThread

if TYPE_CHECKING:
    from collections.abc import Mapping

CHECKS_AT_ONCE: Final = 2
MAX_WAITING: Final = 16  # checks that may wait for their turn; who comes then has to come again
REMEMBERED: Final = 256  # right passwords
LONGEST: Final = 72  # bytes of a password that bcrypt looks at; others ignore the rest, too
_BASIC: Final = re.compile(rb"basic +([A-Za-z0-9+/]+=*) *", re.IGNORECASE)
_ALPHABET: Final = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class PasswordChecker:
    """Does the work of bcrypt in threads of its own, so that wrong passwords, however many, hold nothing else up."""

    most_waiting = CHECKS_AT_ONCE + MAX_WAITING

    def __init__(self) -> None:
        self._threads = DaemonThread("passwords", CHECKS_AT_ONCE)
        self._waiting = 0
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()

    async def is_right(self, user: bytes, hashed: bytes, password: bytes, *, counts: bool = True) -> bool | None:
        """Tell whether a password fits a hash. Where it does not count, the answer is no after the same work.

        `None`: so many passwords wait that this one has to come again. Only right ones are remembered.
        """
        mark = self.mark(user, hashed, password)
        if mark in self._right:
            self._right.move_to_end(mark)
            return True
        if self._waiting >= self.most_waiting:
            return None
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            fits = await loop.run_in_executor(self._threads, self.fits, password, hashed)
        finally:
            self._waiting -= 1
        if not (fits and counts):
            return False
        self._right[mark] = None
        if len(self._right) > REMEMBERED:
            self._right.popitem(last=False)
        return True

    def close(self) -> None:
        """End the threads when they have done what they were given."""
        self._threads.shutdown()

    def fits(self, password: bytes, hashed: bytes) -> bool:
        """Tell whether a password fits a hash: the work itself, which takes as long as the hash wants."""
        return bcrypt.checkpw(password[:LONGEST], hashed)

    def mark(self, *parts: bytes) -> bytes:
        """Return what is remembered of user, hash and password: nothing that tells them, and no two have the same."""
        told = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.digest(self._key, told, "sha256")


class Users:
    """Who may come in. An unknown user costs the same work as a known one, whatever the hashes cost."""

    def __init__(self, hashes: Mapping[str, str], checker: PasswordChecker) -> None:
        self._checker = checker
        self._hashes = {user.encode(): hashed.encode() for user, hashed in hashes.items()}
        # One for each user, so that as many unknown ones cost much as known ones do.
        self._made_up = [_made_up(hashed) for hashed in sorted(hashes.values())]
        self._key = hashlib.sha256("\n".join(sorted(hashes.values())).encode()).digest()

    async def may_enter(self, authorization: bytes) -> bool | None:
        """Tell whether an `Authorization` header names a user and the right password. `None`: it has to come again."""
        found = credentials(authorization)
        if found is None:
            return False
        user, password = found
        hashed = self._hashes.get(user, self._made_up_for(user))
        return await self._checker.is_right(user, hashed, password, counts=user in self._hashes)

    def _made_up_for(self, user: bytes) -> bytes:
        """Return a hash that is nobody's, always the same for a name: what it costs mustn't change from try to try."""
        return self._made_up[int.from_bytes(hmac.digest(self._key, user, "sha256"), "big") % len(self._made_up)]


def credentials(authorization: bytes) -> tuple[bytes, bytes] | None:
    """Return user and password of an `Authorization` header, `None` where it is none of the Basic scheme."""
    match = _BASIC.fullmatch(authorization)
    try:
        user, colon, password = base64.b64decode(match[1], validate=True).partition(b":") if match else (b"", b"", b"")
    except binascii.Error:
        return None
    return (user, password) if colon else None


def _made_up(hashed: str) -> bytes:
    """Return a hash of the same cost that no password is known for."""
    cost = int(hashed.split("$")[2])
    return bcrypt.gensalt(cost) + "".join(secrets.choice(_ALPHABET) for _ in range(31)).encode()
