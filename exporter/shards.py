"""Which daemon polls what, where several divide the targets among themselves. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from exporter.model import Target

_NUMBER: Final = re.compile(r"[0-9]{1,4}", re.ASCII)
_POD: Final = re.compile(r"[a-z0-9.-]*[a-z][a-z0-9.-]*-(?P<ordinal>[0-9]{1,4})", re.ASCII)
_STEP: Final = 2862933555777941757  # of the 64-bit linear congruential generator that the algorithm is defined with
_WORD: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `total` parts of the targets, counted from 0. The default is all of them."""

    index: int = 0
    total: int = 1

    def owns(self, target: Target, *, together: bool) -> bool:
        """Whether a target belongs to this part.

        `together` keeps the targets of an account in one part: whether a DID that the configuration names is missing
        can only be told by who sees all of them.
        """
        name = target.account if together else f"{target.account}/{target.connection}"
        return jump_hash(_digest(name), self.total) == self.index


ALL: Final = Shard()


def parse_shard(index: str, total: str) -> Shard:
    """Read what `--shard` and `--total-shards` say. Raises `ValueError` with a sentence for what can't be.

    A pod of a StatefulSet may give its name: its ordinal, modulo the total, is its part. With twice as many pods as
    parts there are two pods for each.
    """
    if not _NUMBER.fullmatch(total) or int(total) < 1:
        raise ValueError(f"--total-shards: {total!r:.60} is no number from 1 to 9999")
    if pod := _POD.fullmatch(index):
        return Shard(int(pod["ordinal"]) % int(total), int(total))
    if not _NUMBER.fullmatch(index) or int(index) >= int(total):
        last = int(total) - 1
        raise ValueError(
            f"--shard: {index!r:.60} is no part of {total}; give a number from 0 to {last}, or a pod's name"
        )
    return Shard(int(index), int(total))


def jump_hash(key: int, buckets: int) -> int:
    """Return the bucket of a 64-bit key, from 0: one bucket more moves one key in so many, and all of them to it.

    Jump consistent hash, by John Lamping and Eric Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm" (2014).
    """
    bucket, following = -1, 0
    while following < buckets:
        bucket = following
        key = (key * _STEP + 1) & _WORD
        following = int((bucket + 1) * (2**31 / ((key >> 33) + 1)))
    return bucket


def _digest(name: str) -> int:
    """Return 64 bits that are the same in every process, version and machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
