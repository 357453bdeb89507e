"""Compressed pieces in a row are what compressing the whole would have been."""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.exposition.deflate import EMPTY, Joined, Piece, compress, join

TEXTS = st.binary(max_size=300) | st.integers(0, 4000).map(lambda size: b"voicelink_did_ready 1.0\n" * size)


def _check(joined: Joined, text: bytes) -> None:
    assert b"".join(joined.texts) == text
    assert (joined.length, joined.crc) == (len(text), zlib.crc32(text))
    assert gzip.decompress(joined.gzip) == text


@settings(deadline=None)
@given(TEXTS, st.lists(st.integers(0, 100_000), max_size=8))
def test_however_a_text_is_split(text: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    _check(join(compress(text[start:end]) for start, end in pairwise(places)), text)


@settings(deadline=None)
@given(st.recursive(TEXTS, lambda inner: st.lists(inner, max_size=4), max_leaves=10))
def test_however_pieces_are_nested(tree: object) -> None:
    def whole(node: object) -> tuple[bytes, Piece | Joined]:
        if isinstance(node, bytes):
            return node, compress(node)
        assert isinstance(node, list)
        parts = [whole(inner) for inner in node]
        return b"".join(text for text, _ in parts), join(piece for _, piece in parts)

    text, piece = whole(tree)
    _check(join([piece]), text)


def test_nothing_is_nothing() -> None:
    assert compress(b"") is EMPTY
    _check(join(()), b"")
    _check(join([EMPTY, join(()), EMPTY]), b"")


def test_no_part_is_empty() -> None:
    assert join([EMPTY, compress(b"a"), EMPTY, join([EMPTY])]).texts == (b"a",)


def test_a_piece_refers_to_nothing_before_it() -> None:
    piece = compress(b"voicelink " * 1000)
    assert zlib.decompressobj(-zlib.MAX_WBITS).decompress(piece.deflated) == piece.text
    assert len(piece.deflated) < len(piece.text) / 20
