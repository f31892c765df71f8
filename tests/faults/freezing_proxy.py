"""Stands between the operator and the API server, and breaks connections: loudly, or without a word."""

from __future__ import annotations

import asyncio
import contextlib

from sandbox.controlplane.ports import LOOPBACK
from tests.faults.threaded import Threaded


class FreezingProxy(Threaded):
    """Passes bytes on, TLS and all. Connections that are frozen stay open and swallow what is sent, as a lost NAT entry does."""

    def __init__(self, upstream: int) -> None:
        """`upstream` is a loopback port."""
        super().__init__()
        self._upstream = upstream
        self._frozen: set[int] = set()
        self._numbers = 0
        self._open_now: dict[int, tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}

    def freeze(self) -> int:
        """Freeze the connections that are open now, for ever; how many those are. New ones are served."""

        async def work() -> int:
            self._frozen |= self._open_now.keys()
            return len(self._open_now)

        return int(self._run(work()))

    def drop(self) -> None:
        """Break the connections that are open now. New ones are served."""

        async def work() -> None:
            for both in list(self._open_now.values()):
                for writer in both:
                    writer.transport.abort()

        self._run(work())

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._numbers += 1
        number = self._numbers
        # A task that ends as cancelled makes asyncio's own callback fail, in Python 3.11.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            up_reader, up_writer = await asyncio.open_connection(LOOPBACK, self._upstream)
            self._open_now[number] = (writer, up_writer)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(number, reader, up_writer))
                    group.create_task(self._pump(number, up_reader, writer))
            finally:
                del self._open_now[number]
                up_writer.close()
        writer.close()

    async def _pump(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if number not in self._frozen:
                    writer.write(data)
                    await writer.drain()
        if number not in self._frozen:
            writer.close()
