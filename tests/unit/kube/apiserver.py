"""An API server that answers what a test tells it to, over plain HTTP, and the kubeconfig that leads there."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from squidex_operator.kube import access, gateway

if TYPE_CHECKING:
    import pathlib
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

Answer = tuple[int, object, "Mapping[str, str]"]


def status(code: int, reason: str = "", message: str = "", **details: Any) -> Answer:
    """A Status as Kubernetes answers it."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message or f"what went wrong: {reason}",
        "reason": reason,
        "details": details,
        "code": code,
    }
    return code, body, {}


def ok(**body: Any) -> Answer:
    return 200, {"kind": "Thing", "apiVersion": "v1", **body}, {}


class ApiServer:
    """`answers` are given one by one, the last for ever; None leaves a request without an answer."""

    def __init__(self) -> None:
        self.answers: list[Answer | None] = [ok()]
        self.requests: list[tuple[str, str, dict[str, str], dict[str, str], Any]] = []
        self.port = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.requests.append(
            (
                request.method,
                request.path,
                dict(request.query),
                {name.lower(): value for name, value in request.headers.items()},
                json.loads(raw) if raw else None,
            )
        )
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            await asyncio.Event().wait()
        assert answer is not None
        code, body, headers = answer
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return web.Response(status=code, body=raw, headers={"Content-Type": "application/json", **headers})

    @property
    def authorizations(self) -> list[str]:
        return [headers.get("authorization", "") for _, _, _, headers, _ in self.requests]


def write_kubeconfig(folder: pathlib.Path, server: str, user: Mapping[str, Any]) -> str:
    path = folder / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": dict(user)}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(config))
    return str(path)


@contextlib.asynccontextmanager
async def serving(folder: pathlib.Path) -> AsyncIterator[tuple[ApiServer, gateway.Gateway]]:
    """A server, and a gateway to it whose token stands in a file `token` of the folder."""
    server = ApiServer()
    runner = web.ServerRunner(web.Server(server.handle, access_log=None), shutdown_timeout=0.01)  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    token = folder / "token"
    if not token.exists():
        token.write_text("first")
    kubeconfig = write_kubeconfig(folder, f"http://127.0.0.1:{server.port}", {"tokenFile": str(token)})
    found = access.Access(kubeconfig)
    await found.load()
    made = gateway.Gateway(found)
    await made.open()
    try:
        yield server, made
    finally:
        await made.close()
        await runner.cleanup()


def run(folder: pathlib.Path, work: Callable[[ApiServer, gateway.Gateway], Awaitable[Any]]) -> Any:
    """Run against a server of its own."""

    async def main() -> Any:
        async with asyncio.timeout(20), serving(folder) as (server, made):
            return await work(server, made)

    return asyncio.run(main())
