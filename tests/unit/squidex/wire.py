"""A server that keeps what it was sent, byte for byte, and answers with the bytes it was given."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from tests.faults import threaded

if TYPE_CHECKING:
    import ssl

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Wire:
    """`url`, and what came in."""

    def __init__(self) -> None:
        self.url = ""
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.most_open = 0
        self.came = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    async def wait_for(self, count: int) -> None:
        """Wait until so many requests have come in since the list was cleared."""
        async with asyncio.timeout(10):
            while len(self.heads) < count:
                self.came.clear()
                await self.came.wait()


def response(status: str, body: bytes = b"", *headers: str) -> bytes:
    """An HTTP/1.1 answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@contextlib.asynccontextmanager
async def serving(answer: bytes | Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    """Serve on a free loopback port: the same bytes to everybody, or what a handler does after it has read a request."""
    wire = Wire()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        wire.tasks.add(task)
        wire.connections += 1
        wire.open += 1
        wire.most_open = max(wire.most_open, wire.open)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(x.split(b":")[1]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-le")), 0
                )
                wire.heads.append(head)
                wire.came.set()
                wire.bodies.append(await reader.readexactly(length))
                if callable(answer):
                    await answer(reader, writer)
                else:
                    writer.write(answer)
                    await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass  # the client has gone, or the test is over
        finally:
            wire.open -= 1
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    wire.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield wire
    finally:
        server.close()
        for task in wire.tasks:
            task.cancel()
        await asyncio.gather(*wire.tasks)
        await threaded.drop_connections(port)
