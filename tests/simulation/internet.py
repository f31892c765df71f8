"""The way to the servers: the operator's own `Http`, with the model in the place of httpx's transport.

Time-outs, the limit of the body, and what an error means are the operator's own code.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx

from squidex_operator.squidex import http
from tests.simulation import squidex, virtual, wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


class Internet(http.Http):
    """Sends requests to the model."""

    def __init__(self, servers: Mapping[str, squidex.Server]) -> None:
        super().__init__(connections_per_host=16)
        self._servers = servers
        self._model = http._Route(httpx.AsyncBaseTransport())

    def _route(self, host: str, ca: str) -> http._Route:
        return self._model

    async def _respond(
        self,
        route: http._Route,
        method: str,
        url: httpx.URL,
        form: Mapping[str, str] | None,
        headers: Mapping[str, str],
    ) -> Any:
        found = squidex.split(str(url), self._servers)
        if found is None:
            raise httpx.ConnectError("no such server")
        server, path = found
        name = squidex.endpoint(path)
        record = [virtual.now(), name, (form or {}).get("client_id", ""), 0]
        server.requests.append(record)  # type: ignore[arg-type]
        # There and back: what is done at the server is done, even when its answer gets lost.
        await asyncio.sleep(server.rng.uniform(*server.latency) / 2)
        reply = await server.respond(name, method, path, form or {}, headers)
        record[3] = reply.status
        await asyncio.sleep(server.rng.uniform(*server.latency) / 2)
        return _Response(reply)


class _Response:
    def __init__(self, reply: wire.Reply) -> None:
        self._reply = reply
        self.status_code = reply.status
        self.headers = reply.headers

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        yield self._reply.body
        if self._reply.broken is not None:
            raise self._reply.broken

    async def aclose(self) -> None:
        """There is nothing to close."""
