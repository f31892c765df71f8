"""Two things that can stand between the operator and the API server: one breaks connections, one breaks answers.

Each runs in a thread of its own, on a free loopback port, as a context manager.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import ssl
import threading
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from aiohttp import web

from sandbox.controlplane.certificates import Authority
from sandbox.controlplane.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

_DEADLINE = 30.0
_LONGEST_HOLD = 90.0


class _Threaded:
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
        self._thread.join(_DEADLINE)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_DEADLINE)

    async def _open(self) -> None:
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    # asyncio has no way to ask for its transports, and each one left is a warning, which fails a test.
    transports = asyncio.get_running_loop()._transports
    async with asyncio.timeout(_DEADLINE):
        while left := [each for each in transports.values() if each._sock is not None]:
            for transport in left:
                transport.abort()
            await asyncio.sleep(0)


class FreezingProxy(_Threaded):
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


@dataclasses.dataclass
class Fault:
    """What happens to requests that match: the first `times` of them."""

    method: str
    path: str
    """A regular expression, found anywhere in the path and query."""
    times: int = 1_000_000
    status: int = 0
    """Answer with this instead of passing it on."""
    reason: str = ""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    lose_answer: bool = False
    """Pass it on, and break the connection when the answer is there."""
    hold: bool = False
    """Pass it on when `release` is called."""
    seen: int = 0
    """How many requests met it."""
    _reached: threading.Event = dataclasses.field(default_factory=threading.Event)
    _released: threading.Event = dataclasses.field(default_factory=threading.Event)

    def wait_reached(self) -> None:
        """Wait until a request has met it."""
        assert self._reached.wait(_DEADLINE), f"no {self.method} {self.path} came"

    def release(self) -> None:
        """Let go what is held, and what comes."""
        self._released.set()

    def matches(self, method: str, path: str) -> bool:
        """Whether this request meets it."""
        return self.seen < self.times and method == self.method and re.search(self.path, path) is not None

    async def meet(self) -> None:
        """A request is there: returns when it may go on."""
        self.seen += 1
        self._reached.set()
        if self.hold:
            await asyncio.to_thread(self._released.wait, _LONGEST_HOLD)


class FaultProxy(_Threaded):
    """Ends TLS with a certificate of its own, and passes requests on, but for those that meet a fault."""

    def __init__(self, upstream: str, ca_file: Path, folder: Path) -> None:
        """`folder` gets the certificates."""
        super().__init__()
        self._upstream = upstream
        self._trust = ssl.create_default_context(cafile=str(ca_file))
        self._authority = Authority("sandbox-fault-proxy")
        folder.mkdir()
        crt, key = self._authority.serving([LOOPBACK, "localhost"]).write(folder, "proxy")
        self._serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._serving.load_cert_chain(crt, key)
        self.faults: list[Fault] = []

    @property
    def ca(self) -> bytes:
        """The authority of its certificate, PEM."""
        return self._authority.cert

    def add(self, method: str, path: str, **what: Any) -> Fault:
        """Switch a fault on."""
        fault = Fault(method, path, **what)
        self.faults.append(fault)
        return fault

    def clear(self) -> None:
        """Switch all faults off."""
        for fault in self.faults:
            fault.release()
        self.faults = []

    async def _open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._trust, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            auto_decompress=False,
        )
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, 0, ssl_context=self._serving)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        self.clear()
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        fault = next((each for each in self.faults if each.matches(request.method, request.path_qs)), None)
        if fault is not None:
            await fault.meet()
            if fault.status:
                return _status(fault)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "connection")}
        body = await request.read() or None
        response: web.StreamResponse | None = None
        try:
            async with self._session.request(
                request.method, self._upstream + request.path_qs, headers=headers, data=body, allow_redirects=False
            ) as answer:
                if fault is not None and fault.lose_answer:
                    await answer.read()
                    raise aiohttp.ClientConnectionError
                kept = {k: v for k, v in answer.headers.items() if k.lower() not in ("transfer-encoding", "connection")}
                response = web.StreamResponse(status=answer.status, headers=kept)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response
        except (aiohttp.ClientError, OSError):
            # As without a proxy in between: no answer at all.
            if request.transport is not None:
                request.transport.abort()
            return response or web.Response(status=502)


def _status(fault: Fault) -> web.Response:
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": fault.reason,
        "code": fault.status,
        "message": "a fault of the test",
    }
    return web.Response(
        status=fault.status, headers=fault.headers, text=json.dumps(body), content_type="application/json"
    )
