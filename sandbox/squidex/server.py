"""The HTTP server: takes requests in, applies faults, keeps counts, and answers `/_sandbox/`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

from aiohttp import web

from sandbox.squidex import counts, delivery, forms, keys, mishaps, routes, switches, wire
from sandbox.squidex.world import LIFETIME, Start, World

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

CONTROL = "/_sandbox/"

MAX_BODY = 30_000_000
"""Kestrel's limit, in bytes."""


class StandIn:
    """A stand-in Squidex inside this process, on the running event loop."""

    def __init__(
        self,
        clients: Mapping[str, str | None],
        *,
        key: keys.SigningKey | None = None,
        issuer: str | None = None,
        lifetime: int = LIFETIME,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take client ids with their secrets (None: public), and what else differs from the defaults.

        `lifetime` is that of access tokens, in seconds; port 0 picks a free one.
        """
        self.world = World(Start(dict(clients), key or keys.generate(), issuer, lifetime))
        self._address = (host, port)
        self._tls = tls
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        """Base URL without a trailing slash, and without the base path that a switch may have set."""
        return self.world.own_url

    async def start(self) -> None:
        """Listen."""
        server = web.Server(self._handle, handler_cancellation=True, access_log=None, max_field_size=32768)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.01)
        await self._runner.setup()
        host, port = self._address
        site = web.TCPSite(self._runner, host, port, ssl_context=self._tls, backlog=1024)
        await site.start()
        bound = self._runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        self.world.own_url = f"{'https' if self._tls else 'http'}://{shown}:{bound}"

    async def stop(self) -> None:
        """Stop at once; requests that are still being answered are cut off."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    def state(self) -> dict[str, Any]:
        """Return all switches and counts, as `GET /_sandbox/state` does."""
        return switches.state(self.world)

    def patch(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Set switches, as `PATCH /_sandbox/state` does; raises SwitchError."""
        switches.patch(self.world, dict(changes))
        return self.state()

    def log(self, after: int = 0) -> list[dict[str, Any]]:
        """Return what was answered, as `GET /_sandbox/log` does."""
        return self.world.counts.rows(after)

    def reset(self) -> None:
        """Return to the state at the start, as `DELETE /_sandbox/state` does."""
        self.world.reset()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        raw_path, _, query = request.raw_path.partition("?")
        body = await _read(request)
        if raw_path.startswith(CONTROL):
            return self._control(request, raw_path, query, body)
        if body is None:
            return delivery.response(wire.Reply(413), request, self.world)
        base, path = self.world.base_path, unquote(raw_path)
        inside = path == base or path.startswith(f"{base}/")
        asked = wire.Request(
            method=request.method,
            path=path[len(base) :] or "/" if inside else path,
            query=query,
            headers=_joined(request),
            body=body,
            base_url=f"{request.scheme}://{request.host}{base}",
        )
        return await self._answer(routes.classify(asked.path) if inside else "other", asked, request)

    async def _answer(self, endpoint: str, asked: wire.Request, request: web.BaseRequest) -> web.StreamResponse:
        world = self.world
        client, app = routes.client_named(endpoint, asked), routes.app_named(endpoint, asked)
        if endpoint == "token":
            parameters = forms.parse(asked.body.decode("utf-8", "replace")[:100_000])
            world.counts.token_request(asked.headers.get("Content-Type", ""), asked.headers, parameters.values)
        status = counts.NO_ANSWER
        world.counts.began(endpoint)
        try:
            faults = world.faults.take(endpoint, routes.same_client(client), app)
            await mishaps.wait(faults)
            reply = mishaps.replacement(faults, asked, world)
            if reply is None:
                reply = routes.answer(endpoint, asked, world, mishaps.twist(faults))
            sent = await delivery.send(delivery.edited(reply, faults), request, world, faults)
            status = counts.NO_ANSWER if sent is None else reply.status
        finally:
            world.counts.ended(endpoint, client, app, status)
        # Nobody is there any more to get this one: aiohttp finds the connection closed and says nothing.
        return web.Response() if sent is None else sent

    def _control(self, request: web.BaseRequest, path: str, query: str, body: bytes | None) -> web.StreamResponse:
        try:
            if path == f"{CONTROL}log" and request.method == "GET":
                after = forms.parse(query).get("after")[:18]
                return web.json_response(self.log(int(after) if after.isdecimal() else 0))
            if path != f"{CONTROL}state":
                return _error(404, f"there is only {CONTROL}state and {CONTROL}log")
            match request.method:
                case "GET":
                    pass
                case "PATCH":
                    switches.patch(self.world, json.loads(body or b""))
                case "DELETE":
                    self.reset()
                case _:
                    return _error(405, "the state takes GET, PATCH and DELETE")
        except switches.SwitchError as error:
            return _error(400, str(error))
        except (ValueError, RecursionError) as error:
            return _error(400, f"the patch is not JSON: {error}")
        return web.json_response(self.state())


async def _read(request: web.BaseRequest) -> bytes | None:
    """Return the body, or None when it is larger than Kestrel takes."""
    if not request.can_read_body:
        return b""
    received = bytearray()
    async for piece in request.content.iter_any():
        received += piece
        if len(received) > MAX_BODY:
            return None
    return bytes(received)


def _joined(request: web.BaseRequest) -> Mapping[str, str]:
    """Return the headers with repeated ones joined, as ASP.NET joins them when it reads one as text."""
    if len(set(request.headers)) == len(request.headers):
        return request.headers
    joined = request.headers.copy()
    for name in set(request.headers):
        joined[name] = ",".join(request.headers.getall(name))
    return joined


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
