"""Gzip in pieces: text is compressed once, piece by piece, and the pieces are joined without being compressed again.

Each piece is a run of deflate blocks that ends on a byte boundary and refers to nothing before it (RFC 1951), so pieces
in any order make one deflate stream; a gzip member (RFC 1952) wants its CRC and length on top. A whole's CRC follows
from those of its parts: CRC-32 is linear over GF(2), so appending n bytes multiplies by x^8n modulo the polynomial.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LEVEL: Final = 6  # zlib's own default; series compress 20 to 30 times with it
_POLYNOMIAL: Final = 0xEDB88320  # CRC-32 of IEEE 802.3, bit 31 is x^0
_ONE: Final = 1 << 31
_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # deflate, no name, no time
_END: Final = b"\x03\x00"  # the last block, empty


@dataclass(frozen=True)
class Piece:
    """Some text with its deflated form and its CRC-32. All empty for no text."""

    text: bytes
    deflated: bytes
    crc: int

    @cached_property
    def shift(self) -> int:
        """What appending this piece multiplies the CRC before it with."""
        return _power(len(self.text))


def compress(text: bytes) -> Piece:
    """Make a piece. zlib lets other threads run meanwhile."""
    if not text:
        return EMPTY
    deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return Piece(text, deflater.compress(text) + deflater.flush(zlib.Z_FULL_FLUSH), zlib.crc32(text))


@dataclass(frozen=True)
class Joined:
    """Pieces in a row: their text and deflated form in parts, and the CRC-32 and length of the whole."""

    texts: tuple[bytes, ...]
    deflated: tuple[bytes, ...]
    crc: int
    length: int

    @property
    def gzip(self) -> bytes:
        """The whole as one gzip member: the only place where deflated bytes are copied."""
        return b"".join((_HEADER, *self.deflated, _END, struct.pack("<LL", self.crc, self.length & 0xFFFFFFFF)))

    @cached_property
    def shift(self) -> int:
        """What appending the whole multiplies the CRC before it with."""
        return _power(self.length)


def join(pieces: Iterable[Piece | Joined]) -> Joined:
    """Put pieces in a row. Costs a few dozen steps each."""
    texts: list[bytes] = []
    deflated: list[bytes] = []
    crc = length = 0
    for piece in pieces:
        if isinstance(piece, Joined):
            texts.extend(piece.texts)
            deflated.extend(piece.deflated)
            length += piece.length
        elif piece.text:
            texts.append(piece.text)
            deflated.append(piece.deflated)
            length += len(piece.text)
        else:
            continue
        crc = _multiply(piece.shift, crc) ^ piece.crc
    return Joined(tuple(texts), tuple(deflated), crc, length)


def _multiply(a: int, b: int) -> int:
    """Return a·b modulo the polynomial; bit 31 is the coefficient of x^0."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


def _powers() -> tuple[int, ...]:
    squares = [_ONE >> 8]  # x^8: one byte
    for _ in range(63):
        squares.append(_multiply(squares[-1], squares[-1]))
    return tuple(squares)


_BYTES: Final = _powers()  # x^(8·2^k)


def _power(count: int) -> int:
    """Return x^(8·count) modulo the polynomial."""
    result, k = _ONE, 0
    while count:
        if count & 1:
            result = _multiply(_BYTES[k], result)
        count >>= 1
        k += 1
    return result


EMPTY: Final = Piece(b"", b"", 0)
