"""Reads logfmt as log collectors do."""

from __future__ import annotations

import re

_PAIR = re.compile(r'([^\s="]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s"]*))(?: |$)')
_ESCAPED = re.compile(r"\\(.)")


def parse(line: str) -> dict[str, str]:
    """Return the fields of one line; `ValueError` where it isn't logfmt."""
    fields, end = {}, 0
    while end < len(line):
        found = _PAIR.match(line, end)
        if not found:
            raise ValueError(f"no logfmt from here on: {line[end:]!r}")
        key, quoted, plain = found.groups()
        fields[key] = plain if quoted is None else _ESCAPED.sub(lambda match: match[1], quoted)
        end = found.end()
    return fields
