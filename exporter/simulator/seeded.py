"""Randomness without state: the same parts give the same value, in any order and in any process."""

from __future__ import annotations

import hashlib
import math
import uuid


def digest(*parts: object, size: int = 16) -> bytes:
    """Hash the parts to `size` bytes."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=size).digest()


def unit(*parts: object) -> float:
    """Draw from [0, 1)."""
    return (int.from_bytes(digest(*parts, size=8), "big") >> 11) / (1 << 53)


def exponential(mean: float, *parts: object) -> float:
    """Draw from the exponential distribution with this mean."""
    return -mean * math.log1p(-unit(*parts))


def uuid_of(*parts: object) -> str:
    """Make a version 4 UUID."""
    return str(uuid.UUID(bytes=digest(*parts), version=4))
