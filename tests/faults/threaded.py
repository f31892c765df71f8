"""A server of a test: an event loop in a thread, on a free loopback port, as a context manager."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Coroutine

DEADLINE = 30.0


class Threaded:
    """A loop in a thread; `port` is where it listens."""

    port = 0

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=type(self).__name__, daemon=True)

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        self._run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening, and drop all connections."""
        self._run(self._close())
        self._run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE)

    async def _open(self) -> None:
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await drop_connections()


async def drop_connections(port: int | None = None) -> None:
    """End at once what is left of connections in this loop, or of those of a server on this port, which has been closed.

    One that was just being accepted, or that waits for its peer, when its loop is closed is a warning, which fails a later test.
    """
    transports = asyncio.get_running_loop()._transports  # asyncio has no way to ask for them

    def left() -> list[Any]:
        there = [each for each in transports.values() if each._sock is not None]
        return [each for each in there if port is None or each.get_extra_info("sockname")[1:2] == (port,)]

    async with asyncio.timeout(DEADLINE):
        await asyncio.sleep(0)  # what is being accepted has a transport then
        while found := left():
            for transport in found:
                transport.abort()
            await asyncio.sleep(0)
