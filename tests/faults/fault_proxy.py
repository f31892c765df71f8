"""Stands between the operator and the API server, and breaks single requests: refused, held up, or their answers lost."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import ssl
import threading
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from sandbox.controlplane.certificates import Authority
from sandbox.controlplane.ports import LOOPBACK
from tests.faults.threaded import DEADLINE, Threaded

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST_HOLD = 90.0


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
        assert self._reached.wait(DEADLINE), f"no {self.method} {self.path} came"

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


class FaultProxy(Threaded):
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
