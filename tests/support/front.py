"""A front before the API that speaks HTTP on raw sockets, and does to connections what balancers and networks do."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

READY: dict[str, Any] = {"success": True, "data": {"ready": True, "steps": []}}


@dataclass
class Seen:
    """One connection: the bytes that came over it, and when its first and its last came."""

    index: int
    data: bytes = b""
    first_at: float | None = None
    whole_at: float | None = None
    requests: int = 0


@dataclass
class Front:
    """Server of raw connections. `answers` is asked for the answer to each request; `None` closes without one."""

    now: Callable[[], float]
    answer: Callable[[Seen], bytes | None]
    seen: list[Seen] = field(default_factory=list)
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    close_at_once: bool = False
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def posts(self) -> list[Seen]:
        """The connections over which any byte came."""
        return [each for each in self.seen if each.data]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = Seen(len(self.seen))
        self.seen.append(seen)
        self.accepted.set()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            if self.close_at_once:
                return await self._close(writer)
            while await self._request(reader, seen):
                answer = self.answer(seen)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        await self._close(writer)
        return None

    async def _close(self, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()
        self.closed.set()

    async def _request(self, reader: asyncio.StreamReader, seen: Seen) -> bool:
        head = b""
        while b"\r\n\r\n" not in head:
            chunk = await reader.read(65_536)
            if not chunk:
                return False
            if seen.first_at is None:
                seen.first_at = self.now()
            seen.data += chunk
            head += chunk
        headers, _, body = head.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in headers.lower().split(b"\r\n") if b"content-length" in line), 0
        )
        while len(body) < length:
            chunk = await reader.readexactly(length - len(body))
            seen.data += chunk
            body += chunk
        seen.whole_at = self.now()
        seen.requests += 1
        return True


def http(payload: object, status: str = "200 OK") -> bytes:
    """Return an answer as bytes."""
    body = json.dumps(payload).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@contextlib.asynccontextmanager
async def fronting(front: Front, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve a front on a free port of loopback; return its address."""
    server = await asyncio.start_server(front.serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}/api/v2"
