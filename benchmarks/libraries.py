"""The job of `bare.py --whole` on the libraries that the operator is made of, without the operator: the least it can cost.

Kopf watches both kinds, with handlers that do nothing; requests go through the Kubernetes client's REST layer and through httpx
over aiohttp, as `kube/gateway.py` and `squidex/http.py` send them. Prints one JSON line.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import json
import logging
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import httpx_aiohttp
from kubernetes.aio.client import rest

from benchmarks import bare
from squidex_operator import __main__ as program
from squidex_operator import handlers
from squidex_operator.api import names
from squidex_operator.kube import access as access_module

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator

_TIMEOUT = 15.0


class Listener:
    """Counts what Kopf brings; `listed` is set when it has brought so many."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self.events = 0
        self.listed = asyncio.Event()

    def client_event(self, _kind: str | None, _body: dict[str, Any]) -> None:
        """One of a SquidexClient."""
        self.events += 1
        if self.events >= self._wanted:
            self.listed.set()

    def secret_event(self, _kind: str | None, _body: dict[str, Any]) -> None:
        """One of a Secret."""
        self.events += 1


class Kube:
    """The API server, through the Kubernetes client's REST layer."""

    def __init__(self, access: access_module.Access) -> None:
        self._host = access.configuration.host
        self._token = access.configuration.api_key["BearerToken"]
        self.client = rest.RESTClientObject(access.configuration)
        self.calls = 0

    async def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, Any]:
        """One request."""
        self.calls += 1
        headers = {"Accept": "application/json", "Content-Type": kind, "Authorization": self._token}
        answer = await self.client.request(method, self._host + path, headers, body, _request_timeout=_TIMEOUT)
        return answer.status, json.loads(await answer.read())


@dataclasses.dataclass
class Answer:
    """As much of aiohttp's as the job asks for."""

    status: int
    body: bytes

    async def read(self) -> bytes:
        """The whole body."""
        return self.body


class Squidex:
    """Squidex, through httpx over aiohttp."""

    def __init__(self, trusted: ssl.SSLContext, concurrency: int) -> None:
        def session() -> aiohttp.ClientSession:
            connector = aiohttp.TCPConnector(ssl=trusted, limit_per_host=concurrency)
            return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

        self.transport = httpx_aiohttp.AiohttpTransport(verify=trusted, client=session)

    def post(self, url: str, data: dict[str, str]) -> contextlib.AbstractAsyncContextManager[Answer]:
        """A form."""
        return self._send(httpx.Request("POST", url, data=data, extensions=self._extensions()))

    def get(self, url: str, headers: dict[str, str]) -> contextlib.AbstractAsyncContextManager[Answer]:
        """A question."""
        return self._send(httpx.Request("GET", url, headers=headers, extensions=self._extensions()))

    @staticmethod
    def _extensions() -> dict[str, Any]:
        return {"timeout": {"connect": _TIMEOUT, "read": _TIMEOUT, "pool": _TIMEOUT}}

    @contextlib.asynccontextmanager
    async def _send(self, request: httpx.Request) -> AsyncIterator[Answer]:
        async with asyncio.timeout(_TIMEOUT):
            response = await self.transport.handle_async_request(request)
            body = b"".join([chunk async for chunk in response.aiter_raw()])
            await response.aclose()
        yield Answer(response.status_code, body)


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """The job for all SquidexClients, while Kopf watches."""
    access = access_module.Access(str(options.kubeconfig), None)
    await access.load()
    trusted = ssl.create_default_context(cafile=str(options.squidex_ca))
    kube, squidex = Kube(access), Squidex(trusted, options.concurrency)
    _, listed = await kube.call("GET", f"{bare.API}/{names.PLURAL}")
    listener, stop = Listener(len(listed["items"])), asyncio.Event()
    watch = asyncio.create_task(handlers.watch(listener, access, [], stop, inactivity=dt.timedelta(minutes=5)))
    await listener.listed.wait()
    figures = await bare.serve_all(kube, squidex, listed["items"], options)
    stop.set()
    await watch
    await kube.client.close()
    await squidex.transport.aclose()
    return figures | {"events": listener.events / len(listed["items"])}


if __name__ == "__main__":
    logging.disable(logging.INFO)
    program.calm_collector()
    print(json.dumps(asyncio.run(run(bare.parse(__doc__)))))
