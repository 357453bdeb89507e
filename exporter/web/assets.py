"""Stylesheet, script and icon: from inside the package, named with a hash of their content so that caches keep them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request

TYPES: Final = {"status.css": "text/css", "status.js": "text/javascript", "icon.svg": "image/svg+xml"}
A_YEAR: Final = 31_536_000  # seconds


def url(name: str) -> str:
    """Return where an asset is; the address changes with its content."""
    return f"/static/{name}?v={_version(name)}"


async def serve(request: Request) -> Response:
    """Answer with an asset. One that is asked for without its version is not kept by caches."""
    name = request.path_params["name"]
    if name not in TYPES:
        raise HTTPException(404)
    tag = f'"{_version(name)}"'
    kept = request.query_params.get("v") == _version(name)
    headers = {"ETag": tag, "Cache-Control": f"public, max-age={A_YEAR}, immutable" if kept else "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(_content(name), media_type=TYPES[name], headers=headers)


@cache
def _content(name: str) -> bytes:
    return (files("exporter.web") / "static" / name).read_bytes()


@cache
def _version(name: str) -> str:
    return hashlib.sha256(_content(name)).hexdigest()[:12]
