"""The names of servers, looked up so that one whose DNS server is silent holds up no other, nor the end of the process."""

import asyncio
import contextlib
import functools
import socket
import threading
from collections.abc import Callable
from typing import Any

import aiohttp

from squidex_operator.policy import urls

MOST = 256
"""Lookups at once: aiohttp asks for each name once at a time, so these are that many servers whose names hang."""


class Resolver(aiohttp.ThreadedResolver):
    """Refuses names that point to link-local addresses."""

    def __init__(self) -> None:
        super().__init__(_Lookups())  # type: ignore[arg-type]  # two of a loop's methods are all that it uses

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> Any:
        """The addresses of a name.

        Raises:
            OSError: there is none, or one where a cloud keeps credentials.
        """
        found = await super().resolve(host, port, family)
        if any(urls.is_link_local(entry["host"]) for entry in found):
            raise OSError(None, "the name points to a link-local address")
        return found


class _Lookups:
    """A thread for each lookup.

    The loop's own executor has a handful, which wait for a silent DNS server for up to a minute each: that many such servers
    would hold up all others. Its threads are waited for at the end of the process, these are not.
    """

    def __init__(self) -> None:
        self._running = 0

    async def getaddrinfo(self, *args: Any, **more: Any) -> Any:
        return await self._look_up(functools.partial(socket.getaddrinfo, *args, **more))

    async def getnameinfo(self, *args: Any) -> Any:
        return await self._look_up(functools.partial(socket.getnameinfo, *args))

    async def _look_up(self, work: Callable[[], Any]) -> Any:
        if self._running >= MOST:
            raise OSError(None, "too many names are being looked up")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Any] = loop.create_future()

        def tell(result: Any, error: Exception | None) -> None:
            self._running -= 1
            if found.done():
                return  # nobody waits any more
            if error is not None:
                found.set_exception(error)
            else:
                found.set_result(result)

        def look_up() -> None:
            result, error = None, None
            try:
                result = work()
            except Exception as caught:  # noqa: BLE001 - whatever it is, it is for whoever asked
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(tell, result, error)

        self._running += 1
        threading.Thread(target=look_up, name="look up a name", daemon=True).start()
        return await found
