"""/livez, /readyz and /metrics, and the heartbeat that watches the process itself."""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Mapping

from aiohttp import web

logger = logging.getLogger(__name__)

Check = Callable[[], str]
"""What is wrong, in words; empty where nothing is."""

_BEAT = 1.0
_JUMP = dt.timedelta(seconds=10)


class Heartbeat:
    """Beats once a second: the event loop is alive, and so is the clock.

    `lag` is how late the last beat was, in seconds: the time that something blocked the loop.
    """

    def __init__(self, now: Callable[[], dt.datetime]) -> None:
        self._now = now
        self.lag = 0.0
        self.jumps = 0

    async def run(
        self,
        checks: Mapping[str, Check],
        *,
        patience: float = 30.0,
        on_jump: Callable[[dt.timedelta], None] = lambda _: None,
    ) -> None:
        """Beat for ever, and say when the wall clock jumps.

        Raises:
            UnhealthyError: where a check has failed for longer than `patience` seconds.
        """
        loop = asyncio.get_running_loop()
        failing_since: dict[str, float] = {}
        wall, monotonic = self._now(), loop.time()
        while True:
            await asyncio.sleep(_BEAT)
            self.lag = max(loop.time() - monotonic - _BEAT, 0.0)
            jump = (self._now() - wall) - dt.timedelta(seconds=loop.time() - monotonic)
            if abs(jump) > _JUMP:
                self.jumps += 1
                logger.warning("clock jumped seconds=%.0f", jump.total_seconds())
                on_jump(jump)
            wall, monotonic = self._now(), loop.time()
            for name, check in checks.items():
                if problem := check():
                    since = failing_since.setdefault(name, monotonic)
                    if monotonic - since >= patience:
                        raise UnhealthyError(f"{name}: {problem}")
                else:
                    failing_since.pop(name, None)


class UnhealthyError(Exception):
    """The process cannot do its work any more; a new one can."""


class Server:
    """Serves the checks on an address."""

    def __init__(self, live: Mapping[str, Check], ready: Mapping[str, Check], metrics: Callable[[], bytes]) -> None:
        self._live = live
        self._ready = ready
        self._metrics = metrics
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, listen: str) -> None:
        """Listen on HOST:PORT.

        Raises:
            OSError: where that address cannot be had.
        """
        host, _, port = listen.rpartition(":")
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._render)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host.strip("[]") or None, int(port))
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _livez(self, _request: web.Request) -> web.Response:
        return _answer(self._live)

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _answer(self._ready)

    async def _render(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _answer(checks: Mapping[str, Check]) -> web.Response:
    found = {name: check() for name, check in checks.items()}
    lines = [f"[-] {name}: {problem}" if problem else f"[+] {name}" for name, problem in found.items()]
    status = 503 if any(found.values()) else 200
    return web.Response(status=status, text="\n".join([*lines, ""]))
