"""What is served: finished bytes in both formats, plain and gzipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.exposition.deflate import Piece, compress, join

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.exposition.deflate import Joined

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_EOF: Final = compress(b"# EOF\n")


@dataclass(frozen=True, slots=True)
class Body:
    """One format's answer to a scrape. `plain` is the text in parts, `gzip` the whole of it compressed."""

    content_type: str
    plain: tuple[bytes, ...]
    gzip: bytes
    length: int  # of the text, in bytes

    @classmethod
    def of(cls, content_type: str, pieces: Iterable[Piece | Joined]) -> Body:
        """Assemble an answer; OpenMetrics gets its end mark."""
        whole = join([*pieces, _EOF] if content_type == OPENMETRICS else pieces)
        return cls(content_type, whole.texts, whole.gzip, whole.length)


@dataclass(frozen=True, slots=True)
class Bodies:
    """The answers to a scrape in both formats, of one moment."""

    text: Body
    openmetrics: Body


NOTHING: Final = Bodies(Body.of(TEXT, ()), Body.of(OPENMETRICS, ()))
