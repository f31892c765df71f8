"""A stand-in in a thread of its own, for tests and programs that have no event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from sandbox.squidex.server import StandIn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")

SECONDS = 30
"""How long any call into the thread may take."""


class Running:
    """What the calling thread sees of the stand-in."""

    def __init__(self, standin: StandIn, loop: asyncio.AbstractEventLoop) -> None:
        self._standin = standin
        self._loop = loop

    @property
    def url(self) -> str:
        """Base URL without a trailing slash."""
        return self._standin.url

    def state(self) -> dict[str, Any]:
        """Return all switches and counts."""
        return self._call(self._standin.state)

    def patch(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Set switches; raises SwitchError."""
        return self._call(self._standin.patch, changes)

    def log(self, after: int = 0) -> list[dict[str, Any]]:
        """Return what was answered."""
        return self._call(self._standin.log, after)

    def reset(self) -> None:
        """Return to the state at the start."""
        self._call(self._standin.reset)

    def _call(self, function: Callable[..., T], *args: Any) -> T:
        async def run() -> T:
            return function(*args)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=SECONDS)


@contextlib.contextmanager
def running(clients: Mapping[str, str | None], **options: Any) -> Iterator[Running]:
    """Run a stand-in in a thread; `options` are those of `StandIn`."""
    standin = StandIn(clients, **options)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="squidex", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(standin.start(), loop).result(timeout=SECONDS)
        yield Running(standin, loop)
    finally:
        asyncio.run_coroutine_threadsafe(standin.stop(), loop).result(timeout=SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=SECONDS)
        loop.close()
